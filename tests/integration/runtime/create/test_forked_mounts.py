"""Trees of mounts that are id-mapped mount by mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaula.kernel import mountinfo, mounts, namespaces
from jaula.kernel.mountinfo import MountInfo
from jaula.kernel.namespaces import CLONE
from jaula.runtime.create import forked_mounts

FIRST = 1_800_000_000
ROWS = [(0, FIRST, 65536)]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """Yield a shared tree: a tmpfs with a covered one, proc, and a tmpfs on a directory of that."""
    places = [
        ("", "tmpfs"),
        ("mapped", "tmpfs"),
        ("mapped", "tmpfs"),
        ("kernel", "proc"),
        ("kernel/sys", "tmpfs"),
    ]
    made = []
    try:
        for place, fstype in places:
            (tmp_path / place).mkdir(exist_ok=True)
            subprocess.run(["mount", "-t", fstype, "x", str(tmp_path / place)], check=True)
            made.append(tmp_path / place)
            if fstype == "tmpfs":
                (tmp_path / place / "file").write_text("")
        subprocess.run(["mount", "--make-rshared", str(tmp_path)], check=True)
        yield tmp_path
    finally:
        for mounted in reversed(made):
            subprocess.run(["umount", str(mounted)], check=True)


def mounted_below(tree: Path) -> list[MountInfo]:
    """Return the mounts of the tree; other tests mount elsewhere meanwhile."""
    return [mount for mount in mountinfo.read() if mount.target.startswith(str(tree))]


def test_every_mount_that_can_have_an_id_map_gets_one(tree: Path) -> None:
    before = mounted_below(tree)
    user = namespaces.create_namespaces(CLONE(0), ROWS, ROWS)["user"]
    source = mounts.clone_tree(str(tree), recursive=True)
    with pytest.raises(OSError, match="mount_setattr"):
        mounts.idmap(source, user, recursive=True)
    result = forked_mounts.map_what_can_be(source, user)
    owners = {
        path: os.stat(f"/proc/self/fd/{result}/{path}").st_uid
        for path in ("file", "mapped/file", "kernel/uptime", "kernel/sys/file")
    }
    for fd in (user, source, result):
        os.close(fd)
    assert owners == {
        "file": FIRST,
        "mapped/file": FIRST,
        "kernel/uptime": 0,
        "kernel/sys/file": FIRST,
    }
    assert mounted_below(tree) == before


def test_an_error_in_the_child_is_raised_here() -> None:
    def make() -> int:
        return os.open("/no/such/file", os.O_PATH)

    with pytest.raises(FileNotFoundError):
        forked_mounts.tree_from_child(make)


def test_the_end_of_the_child_is_an_error() -> None:
    with pytest.raises(ChildProcessError, match="died"):
        forked_mounts.tree_from_child(lambda: os.kill(os.getpid(), 9) or 0)  # type: ignore[func-returns-value]
