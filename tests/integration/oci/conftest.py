"""A runtime for each module, which must be empty when the module's tests are done."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from harness.private_runtime import PrivateRuntime


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRuntime]:
    made = PrivateRuntime(tmp_path_factory.mktemp("oci"))
    try:
        yield made
        left = made.left()
        assert not left, f"left behind: {left}"
    finally:
        made.clear()
        shutil.rmtree(made.base, ignore_errors=True)
