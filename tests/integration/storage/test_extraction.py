"""Extract layers: all metadata of the archive is on disk afterwards."""

from __future__ import annotations

import gc
import gzip
import hashlib
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from jaula.config import Paths
from jaula.errors import InvalidRequest, NotFound
from jaula.storage.layers.layer_store import LayerStore
from jaula.storage.tar.tar_reader import Limits

Tar = Callable[..., bytes]


def unpack(layers: LayerStore, data: bytes) -> Path:
    return Path(layers.path(layers.extract(io.BytesIO(data)).diff_id))


def test_metadata_of_files_is_kept(layers: LayerStore, tar: Tar) -> None:
    facts = {"uid": 1000, "gid": 70000, "mode": 0o4755}
    xattrs = {"SCHILY.xattr.user.note": "n", "mtime": "1600000000.123456789"}
    root = unpack(
        layers,
        tar(
            ("./", "dir", {"mode": 0o711, "uid": 5, "mtime": 1_000_000_000}),
            ("bin", "dir", {"mode": 0o2775, "gid": 8, "mtime": 1_500_000_000}),
            ("bin/su", "program", facts | {"pax_headers": xattrs}),
            ("bin/also", "hard", "bin/su"),
            ("bin/sh", "link", "/bin/su", {"uid": 7}),
            ("dev/null", "char", {"devmajor": 1, "devminor": 3, "mode": 0o666}),
            ("dev/disk", "block", {"devmajor": 8, "devminor": 1}),
            ("run/fifo", "fifo", {"mode": 0o600}),
            ("tmp", "dir", {"mode": 0o1777}),
        ),
    )
    top = root.stat()
    assert (stat.S_IMODE(top.st_mode), top.st_uid, top.st_mtime) == (0o711, 5, 1_000_000_000)
    folder = (root / "bin").stat()
    assert (folder.st_mode, folder.st_gid) == (stat.S_IFDIR | 0o2775, 8)
    assert folder.st_mtime == 1_500_000_000
    program = (root / "bin/su").stat()
    assert (program.st_mode, program.st_uid, program.st_gid) == (stat.S_IFREG | 0o4755, 1000, 70000)
    assert program.st_mtime_ns == 1_600_000_000_123_456_789
    assert os.getxattr(root / "bin/su", "user.note") == b"n"
    assert (root / "bin/also").stat().st_ino == program.st_ino
    assert (root / "bin/sh").lstat().st_uid == 7
    assert os.readlink(root / "bin/sh") == "/bin/su"
    assert (root / "dev/null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISBLK((root / "dev/disk").stat().st_mode)
    assert stat.S_ISFIFO((root / "run/fifo").stat().st_mode)
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert stat.S_IMODE((root / "run").stat().st_mode) == 0o755


def test_file_capabilities_are_kept(layers: LayerStore, tar: Tar) -> None:
    value = "\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    headers = {"pax_headers": {"SCHILY.xattr.security.capability": value}}
    root = unpack(layers, tar(("ping", "program", headers | {"uid": 3})))
    assert os.getxattr(root / "ping", "security.capability") == value.encode("latin-1")


def test_the_diff_id_is_the_plain_tars_digest(paths: Paths, layers: LayerStore, tar: Tar) -> None:
    data = tar(("a", "b" * 5000))
    info = layers.extract(io.BytesIO(gzip.compress(data)))
    assert info.diff_id == "sha256:" + hashlib.sha256(data).hexdigest()
    assert (info.size, info.tar_size, info.states_root) == (5000, len(data), False)
    assert LayerStore(paths).info(info.diff_id) == info


def test_a_mapped_file_gives_the_same_layer(layers: LayerStore, tar: Tar, tmp_path: Path) -> None:
    data = tar(("a", "b" * 5000), ("d/e", "f"))
    first = layers.extract(io.BytesIO(data))
    layers.remove(first.diff_id)
    (tmp_path / "layer.tar").write_bytes(data)
    with (tmp_path / "layer.tar").open("rb") as file:
        assert layers.extract_plain(file, first.diff_id) == first
    assert (Path(layers.path(first.diff_id)) / "d/e").read_text() == "f"


def test_another_digest_than_expected_leaves_nothing(
    layers: LayerStore, tar: Tar, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match="digest"):
        layers.extract(io.BytesIO(tar(("a", "b"))), "sha256:" + "0" * 64)
    assert list((tmp_path / "root/layers").iterdir()) == []


def test_whiteouts_become_overlayfs_whiteouts(layers: LayerStore, tar: Tar) -> None:
    root = unpack(
        layers,
        tar(
            ("etc/.wh.gone", ""),
            ("opt", "dir"),
            ("opt/.wh..wh..opq", ""),
            ("opt/new", "x"),
            (".wh..wh.plnk", "dir"),
        ),
    )
    gone = (root / "etc/gone").lstat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    assert os.getxattr(root / "opt", "trusted.overlay.opaque") == b"y"
    assert (root / "opt/new").read_text() == "x"
    assert sorted(p.name for p in root.iterdir()) == ["etc", "opt"]


def test_a_whiteout_never_hides_files_of_the_same_layer(layers: LayerStore, tar: Tar) -> None:
    root = unpack(
        layers,
        tar(
            ("d/f", "kept"),
            (".wh.d", ""),
            ("a", "kept"),
            (".wh.a", ""),
            (".wh.b", ""),
            ("b", "dir"),
        ),
    )
    assert (root / "d/f").read_text() == "kept"
    assert (root / "a").read_text() == "kept"
    for hiding in ("d", "b"):
        assert os.getxattr(root / hiding, "trusted.overlay.opaque") == b"y"


def test_the_last_of_several_entries_of_a_name_wins(layers: LayerStore, tar: Tar) -> None:
    root = unpack(
        layers,
        tar(
            ("a", "dir"),
            ("a/b", "1"),
            ("a", "file now"),
            ("c", "link", "elsewhere"),
            ("c", "dir"),
            ("c/d", "2"),
            ("e", "1"),
            ("e", "2"),
            ("f", "dir", {"mode": 0o700}),
            ("f/g", "3"),
            ("f", "dir", {"mode": 0o755}),
        ),
    )
    assert (root / "a").read_text() == "file now"
    assert (root / "c/d").read_text() == "2"
    assert (root / "e").read_text() == "2"
    assert (root / "f/g").read_text() == "3"
    assert stat.S_IMODE((root / "f").stat().st_mode) == 0o755


def test_links_of_the_layer_are_followed_inside_it(layers: LayerStore, tar: Tar) -> None:
    root = unpack(
        layers,
        tar(("usr/lib", "dir"), ("lib", "link", "/usr/lib"), ("lib/libc.so", "code")),
    )
    assert (root / "usr/lib/libc.so").read_text() == "code"
    assert (root / "lib").is_symlink()


def test_more_directories_than_the_cache_are_extracted(layers: LayerStore, tar: Tar) -> None:
    gc.collect()  # what other tests left to the collector is not closed in between
    before = len(os.listdir("/proc/self/fd"))
    names = [f"d{n}/{'x' * 20}/f" for n in range(1500)]
    root = unpack(
        layers, tar(*[(name, "1") for name in names], *[(n + "2", "hard", n) for n in names])
    )
    assert all((root / (name + "2")).stat().st_nlink == 2 for name in names)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_existing_layer_is_kept(layers: LayerStore, tar: Tar) -> None:
    data = tar(("a", "b"))
    first = unpack(layers, data).stat()
    assert unpack(layers, data).stat().st_ino == first.st_ino


def test_a_removed_layer_does_not_exist(layers: LayerStore, tar: Tar) -> None:
    info = layers.extract(io.BytesIO(tar(("a", "b"))))
    layers.remove(info.diff_id)
    layers.remove(info.diff_id)
    assert not layers.has(info.diff_id)
    with pytest.raises(NotFound):
        layers.path(info.diff_id)


def test_leftovers_of_a_crash_are_removed(layers: LayerStore, tar: Tar, tmp_path: Path) -> None:
    info = layers.extract(io.BytesIO(tar(("a", "b"))))
    half = tmp_path / "root/layers/new-0123"
    (half / "fs/deep").mkdir(parents=True)
    assert layers.sweep() == ["new-0123"]
    assert layers.ids() == [info.diff_id]


def test_layers_are_closed_to_other_users(layers: LayerStore, tar: Tar, tmp_path: Path) -> None:
    unpack(layers, tar(("su", "x", {"mode": 0o4755})))
    assert stat.S_IMODE((tmp_path / "root/layers").stat().st_mode) == 0o700


def test_limits_hold_for_compressed_bombs(paths: Paths, tar: Tar, tmp_path: Path) -> None:
    small = LayerStore(paths, limits=Limits(bytes=1 << 20))
    bomb = gzip.compress(tar(("zeros", bytes(8 << 20))))
    with pytest.raises(InvalidRequest, match=r"size|larger"):
        small.extract(io.BytesIO(bomb))
    assert list((tmp_path / "root/layers").iterdir()) == []
