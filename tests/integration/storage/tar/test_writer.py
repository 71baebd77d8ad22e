"""Archive a tree and extract it again."""

from __future__ import annotations

import io
import os
import socket
import stat
from pathlib import Path

from jaula.storage.layers.layer_store import LayerStore
from jaula.storage.tar.tar_writer import write_tree


def archive(top: Path) -> bytes:
    out = io.BytesIO()
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        write_tree(descriptor, out.write)
    finally:
        os.close(descriptor)
    return out.getvalue()


def make(top: Path) -> None:
    (top / "b/c").mkdir(parents=True)
    (top / "b").chmod(0o2711)
    (top / "b/c/file").write_text("text")
    os.chown(top / "b/c/file", 3_000_000_000, 7)
    os.link(top / "b/c/file", top / "a-link")
    (top / ("n" * 200)).symlink_to("t" * 200)
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(top / "fifo")
    os.setxattr(top / "b/c/file", "user.note", b"\0\xff")
    (top / os.fsdecode(b"\xff\xfe")).write_text("no UTF-8")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(top / "socket"))


def test_an_archived_tree_is_extracted_unchanged(tmp_path: Path, layers: LayerStore) -> None:
    make(tmp_path / "tree")
    data = archive(tmp_path / "tree")
    back = Path(layers.path(layers.extract(io.BytesIO(data)).diff_id))
    file = (back / "b/c/file").stat()
    assert (file.st_uid, file.st_gid, file.st_nlink) == (3_000_000_000, 7, 2)
    assert (back / "a-link").read_text() == "text"
    assert os.getxattr(back / "b/c/file", "user.note") == b"\0\xff"
    assert stat.S_IMODE((back / "b").stat().st_mode) == 0o2711
    assert os.readlink(back / ("n" * 200)) == "t" * 200
    assert (back / "null").stat().st_rdev == os.makedev(1, 3)
    assert not (back / "socket").exists()
    assert archive(back) == data


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    make(tmp_path / "tree")
    assert archive(tmp_path / "tree") == archive(tmp_path / "tree")
