"""Fixtures for copies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.build_context import CopyContext


@pytest.fixture
def copy_context(tmp_path: Path) -> Iterator[CopyContext]:
    old = os.umask(0o022)
    with ExitStack() as stack:
        yield CopyContext(tmp_path, stack)
    os.umask(old)
