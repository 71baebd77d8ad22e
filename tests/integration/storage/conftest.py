"""A layer store below ``tmp_path``, and archives to extract into it."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import loop_mount
from jaula.config import Paths
from jaula.storage.layers.layer_store import LayerStore

Tar = Callable[..., bytes]
KINDS = {
    "dir": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "hard": tarfile.LNKTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root", tmp_path / "run")


@pytest.fixture
def on_btrfs(tmp_path: Path) -> Iterator[Path]:
    """An empty btrfs file system."""
    with loop_mount.mounted(tmp_path, "mkfs.btrfs", "-q") as top:
        yield top


@pytest.fixture
def layers(paths: Paths) -> LayerStore:
    return LayerStore(paths)


@pytest.fixture
def tar() -> Tar:
    """``tar(("name", "content"), ("name", "link", "target"), ...)``; a dict of metadata last."""

    def make(*members: tuple[object, ...]) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as out:
            for passed in members:
                facts = passed[-1] if isinstance(passed[-1], dict) else {}
                words = [w for w in passed if not isinstance(w, dict)]
                info = tarfile.TarInfo(str(words[0]))
                info.mode, info.mtime = 0o644, 1_700_000_000
                content = b""
                if len(words) > 1 and words[1] in KINDS:
                    info.type = KINDS[str(words[1])]
                    info.linkname = str(words[2]) if len(words) > 2 else ""
                elif len(words) > 1:
                    content = words[1] if isinstance(words[1], bytes) else str(words[1]).encode()
                info.size = len(content)
                for key, value in facts.items():
                    setattr(info, key, value)
                out.addfile(info, io.BytesIO(content))
        return buffer.getvalue()

    return make


def snapshot(top: Path) -> dict[str, object]:
    """Return all metadata of a tree that an escape could change."""
    result: dict[str, object] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        facts = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(facts.st_mode) else b""
        result[str(path.relative_to(top))] = (
            facts.st_mode,
            facts.st_uid,
            facts.st_gid,
            facts.st_nlink,
            facts.st_mtime_ns,
            content,
            os.listxattr(path, follow_symlinks=False),
        )
    return result


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A tree outside the engine's directory that must not change in the test."""
    top = tmp_path / "canary"
    (top / "etc").mkdir(parents=True)
    (top / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (top / "etc" / "shadow").write_text("secret\n")
    (top / "etc" / "shadow").chmod(0o600)
    before = snapshot(top)
    yield top
    assert snapshot(top) == before
