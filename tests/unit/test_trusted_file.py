"""Configuration files are regular, and only the engine's user may write them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jaula import trusted_file
from jaula.errors import InvalidRequest


def test_a_regular_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    path.chmod(0o644)
    assert trusted_file.read(str(path), 5, "the file", required=True) == b"12345"
    with pytest.raises(InvalidRequest, match="has more than 4 bytes"):
        trusted_file.read(str(path), 4, "the file", required=True)
    path.chmod(0o664)
    with pytest.raises(InvalidRequest, match="is writable by other users"):
        trusted_file.read(str(path), 5, "the file", required=True)


def test_an_absent_file_is_none_unless_it_is_required(tmp_path: Path) -> None:
    path = str(tmp_path / "absent")
    assert trusted_file.read(path, 5, "the file", required=False) is None
    with pytest.raises(InvalidRequest, match=r"the file .*: No such file or directory"):
        trusted_file.read(path, 5, "the file", required=True)


def test_a_file_that_is_not_regular_leaves_no_descriptor(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    before = os.listdir("/proc/self/fd")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(InvalidRequest, match="is not a regular file"):
            trusted_file.read(str(path), 5, "the file", required=True)
    assert len(os.listdir("/proc/self/fd")) == len(before)
