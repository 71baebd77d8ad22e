"""A durable write: content, name and directory reach the disk in this order, or nothing changes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from jaula.kernel import syncfs


@pytest.mark.parametrize("former", [None, b"former"])
def test_the_content_is_on_the_disk_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, former: bytes | None
) -> None:
    path, order = tmp_path / "file", []
    if former is not None:
        path.write_bytes(former)
    fsync, rename = os.fsync, os.rename

    def recorded_fsync(fd: int) -> None:
        order.append("directory" if os.path.isdir(f"/proc/self/fd/{fd}") else "content")
        fsync(fd)

    def recorded_rename(source: str, target: str) -> None:
        order.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    syncfs.write_durable(path, b"new", 0o640)
    assert order == ["content", "rename", "directory"]
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_failure_keeps_the_former_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "file"
    path.write_bytes(b"former")
    with monkeypatch.context() as failing:
        failing.setattr(os, call, fail)
        with pytest.raises(OSError, match="Input/output error"):
            syncfs.write_durable(path, b"new")
    assert path.read_bytes() == b"former"
    assert os.listdir(tmp_path) == ["file"]


def test_a_relative_path_is_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    syncfs.write_durable("file", b"")
    assert (tmp_path / "file").read_bytes() == b""
