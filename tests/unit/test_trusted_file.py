"""Configuration files are regular, and only the engine's user may write them."""

from __future__ import annotations

import os
import tempfile
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


@pytest.mark.skipif(os.geteuid() != 0, reason="the directories above belong to root")
def test_a_path_that_another_user_could_change_is_refused() -> None:
    with tempfile.TemporaryDirectory(dir="/var/lib") as name:  # no other user may write there
        top = Path(os.path.realpath(name))
        top.chmod(0o755)
        (top / "own").mkdir(mode=0o755)
        (top / "open").mkdir()
        (top / "open").chmod(0o777)
        (top / "sticky").mkdir()
        (top / "sticky").chmod(0o1777)
        (top / "link").symlink_to(top / "own")
        (top / "hers").mkdir()
        os.chown(top / "hers", 54321, 0)
        for good in ("own", "own/absent/below", "own/"):
            trusted_file.check_path(f"{top}/{good}", "the directory")
        for bad in ("open", "open/x", "sticky/x", "link", "link/x", "hers/x"):
            with pytest.raises(InvalidRequest, match="another user could change"):
                trusted_file.check_path(f"{top}/{bad}", "the directory")


@pytest.mark.parametrize("path", ["", "relative", "/a/../etc", "/a/./b", "/a//b", "/a\0b"])
def test_a_path_that_is_not_normal_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest, match="must be an absolute path"):
        trusted_file.check_path(path, "the directory")
