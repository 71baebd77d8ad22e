"""dockerd, and an engine that contains only objects of these tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import load_image
from harness import leaks
from harness.callers.dockerd import BridgedDockerd
from harness.engine import PrivateEngine


@pytest.fixture(scope="module")
def dockerd(busybox_archive: Path) -> Iterator[BridgedDockerd]:
    runc = shutil.which("runc", path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert runc, "there is no runc"
    with BridgedDockerd(Path(runc), busybox_archive) as caller:
        yield caller


@pytest.fixture(scope="module")
def own(worker_index: int) -> Iterator[PrivateEngine]:
    with leaks.nothing_left(PrivateEngine((worker_index + 83) % 250 + 1)) as private:
        load_image(private, "busybox")
        yield private
