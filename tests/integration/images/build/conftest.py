"""Fixtures for copies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.copying import Room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    old = os.umask(0o022)
    with ExitStack() as stack:
        yield Room(tmp_path, stack)
    os.umask(old)
