"""Statement I11: a corpus of hostile layers changes nothing outside and is bounded.

Each case is extracted next to a canary tree that the archive attacks (CVE-2014-9356, 2017-14992,
2021-20291, 2021-32760, 2025-47290). It is refused, or extracted inside the layer. The canary stays
unchanged, and a refusal leaves no files.
"""

from __future__ import annotations

import io
import lzma
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jaula.config import Paths
from jaula.errors import InvalidRequest, Unavailable
from jaula.storage.layers.layer_store import LayerStore
from jaula.storage.tar.tar_reader import Limits

Tar = Callable[..., bytes]
UP = "../" * 12

REFUSED: dict[str, tuple[tuple[object, ...], ...]] = {
    "a name that climbs": ((f"{UP}CANARY/etc/passwd", "evil"),),
    "a name that climbs in the middle": (("a/../../../CANARY/x", "evil"),),
    "a name that is two dots": (("..", "dir"),),
    "a hard link that climbs": (("l", "hard", f"{UP}CANARY/etc/shadow"), ("l", "evil")),
    "a hard link to what is not there": (("l", "hard", "/CANARY/etc/shadow"),),
    "a hard link through a link": (
        ("out", "link", "/CANARY/etc"),
        ("l", "hard", "out/shadow"),
    ),
    "a hard link to a directory": (("d", "dir"), ("l", "hard", "d")),
    "a hard link to itself": (("l", "x"), ("l", "hard", "l")),
    "a whiteout of two dots": (("a", "dir"), ("a/.wh...", "")),
    "a whiteout of one dot": (("a/.wh..", ""),),
    "a whiteout of nothing": (("a/.wh.", ""),),
    "a file in place of the root": ((".", "evil"),),
    "a link in place of the root": (("./", "link", "/CANARY"),),
    "a directory below a file": (("a", "x"), ("a/b", "y")),
    "a file below a device": (("n", "char", {"devmajor": 1, "devminor": 3}), ("n/x", "y")),
    "a name that is too long": (("n" * 256, "x"),),
    "a path that is too long": (("d/" * 3000 + "f", "x"),),
    "a link that leads nowhere": (("l", "link", ""),),
    "a link in a circle": (("a", "link", "b"), ("b", "link", "a"), ("a/x", "y")),
    "an owner out of range": (("f", "x", {"uid": 2**32}),),
    "a name with a zero byte in pax": (("f", "x", {"pax_headers": {"path": "a\0b"}}),),
    "an attribute no kernel takes": (("f", "x", {"pax_headers": {"SCHILY.xattr.nonsense": "v"}}),),
    "an attribute that is too long": (
        ("f", "x", {"pax_headers": {"SCHILY.xattr.user.a": "v" * 70_000}}),
    ),
    "a size by pax that is a lie": (("f", "x", {"pax_headers": {"size": "1000000"}}),),
}

CONTAINED: dict[str, tuple[tuple[object, ...], ...]] = {
    "an absolute name": (("/CANARY/etc/passwd", "mine"),),
    "an absolute name through pax": (("f", "x", {"pax_headers": {"path": "/CANARY/etc/passwd"}}),),
    "a link out, written through": (
        ("out", "link", "/CANARY/etc"),
        ("CANARY/etc", "dir"),
        ("out/passwd", "mine"),
    ),
    "a link to a file, replaced": (("p", "link", "/CANARY/etc/passwd"), ("p", "mine")),
    "a link that climbs, written through": (
        ("a", "dir"),
        ("a/out", "link", f"{UP}.."),
        ("a/out/passwd", "mine"),
    ),
    "links of links": (
        ("a", "link", "b"),
        ("b", "link", "/"),
        ("a/CANARY", "dir"),
        ("a/CANARY/f", "mine"),
    ),
    "a directory over a link out": (
        ("d", "link", "/CANARY/etc"),
        ("d", "dir", {"mode": 0o777, "uid": 1}),
        ("d/passwd", "mine"),
    ),
    "a whiteout in a link out": (
        ("out", "link", "/CANARY/etc"),
        ("CANARY/etc", "dir"),
        ("out/.wh.passwd", ""),
    ),
    "an opaque mark in a link out": (
        ("out", "link", "/CANARY/etc"),
        ("CANARY/etc", "dir"),
        ("out/.wh..wh..opq", ""),
    ),
    "facts of a link out": (
        ("l", "link", "/CANARY/etc/passwd", {"uid": 5, "mtime": 1, "mode": 0o666}),
    ),
    "a hard link to a link out": (
        ("l", "link", "/CANARY/etc/passwd"),
        ("h", "hard", "l"),
        ("h", "mine"),
    ),
    "a directory replaced while it is open": (
        ("d", "dir"),
        ("d/a", "1"),
        ("d", "link", "/other"),
        ("other", "dir"),
        ("d/b", "2"),
    ),
}


def fill(members: tuple[tuple[object, ...], ...], canary: Path) -> list[tuple[object, ...]]:
    """Return the case with the canary's path in it."""
    place = str(canary)[1:]

    def word(value: object) -> object:
        if isinstance(value, str):
            return value.replace("CANARY", place)
        if isinstance(value, dict):
            return {k: word(v) for k, v in value.items()}
        return value

    return [tuple(word(w) for w in member) for member in members]


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("mapped", [False, True])
def test_a_hostile_layer_is_refused_and_leaves_nothing(
    case: str, mapped: bool, layers: LayerStore, tar: Tar, canary: Path, tmp_path: Path
) -> None:
    data = tar(*fill(REFUSED[case], canary))
    with pytest.raises(InvalidRequest):
        unpack(layers, data, tmp_path if mapped else None)
    assert list((tmp_path / "root/layers").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "l.tar") == ["canary", "root"]


@pytest.mark.parametrize("case", CONTAINED)
@pytest.mark.parametrize("mapped", [False, True])
def test_a_hostile_entry_stays_inside_the_layer(
    case: str, mapped: bool, layers: LayerStore, tar: Tar, canary: Path, tmp_path: Path
) -> None:
    root = unpack(layers, tar(*fill(CONTAINED[case], canary)), tmp_path if mapped else None)
    assert any(root.iterdir())
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "l.tar") == ["canary", "root"]


def unpack(layers: LayerStore, data: bytes, mapped: Path | None) -> Path:
    if mapped is None:
        return Path(layers.path(layers.extract(io.BytesIO(data)).diff_id))
    (mapped / "l.tar").write_bytes(data)
    diff_id = "sha256:" + "ab" * 32
    with (mapped / "l.tar").open("rb") as file:
        return Path(layers.path(layers.extract_plain(file, diff_id).diff_id))


@pytest.mark.parametrize(
    "attribute", ["trusted.overlay.redirect", "trusted.overlay.metacopy", "user.overlay.opaque"]
)
def test_attributes_for_overlayfs_are_dropped(attribute: str, layers: LayerStore, tar: Tar) -> None:
    headers = {"pax_headers": {f"SCHILY.xattr.{attribute}": "/etc"}}
    data = tar(("d", "dir", headers), ("f", "x", headers))
    root = unpack(layers, data, None)
    assert os.listxattr(root / "d") == os.listxattr(root / "f") == []


def test_set_user_id_is_kept_inside_the_closed_directory(layers: LayerStore, tar: Tar) -> None:
    root = unpack(layers, tar(("su", "x", {"mode": 0o6755})), None)
    assert stat.S_IMODE((root / "su").stat().st_mode) == 0o6755


@pytest.mark.parametrize("length", range(0, 3000, 97))
def test_a_truncated_layer_is_refused_or_whole(
    length: int, layers: LayerStore, tar: Tar, tmp_path: Path
) -> None:
    data = tar(("a", "x" * 600), ("b/c", "y" * 600))
    info = layers.extract(io.BytesIO(data))
    layers.remove(info.diff_id)
    with pytest.raises(InvalidRequest):
        layers.extract(io.BytesIO(data[:length]), info.diff_id)
    assert list((tmp_path / "root/layers").iterdir()) == []


def test_a_chain_of_replaced_directories_takes_no_quadratic_time(
    layers: LayerStore, tar: Tar
) -> None:
    members: list[tuple[object, ...]] = []
    for _ in range(400):
        members += [("d", "dir"), *[(f"d/{n}", "") for n in range(10)], ("d", "")]
    started = time.monotonic()
    unpack(layers, tar(*members), None)
    assert time.monotonic() - started < 10


def test_a_deep_tree_is_unpacked_and_removed(layers: LayerStore, tar: Tar) -> None:
    data = tar(("d/" * 1900 + "f", "x"))
    info = layers.extract(io.BytesIO(data))
    layers.remove(info.diff_id)
    assert layers.ids() == []


def test_an_endless_xz_is_bounded(paths: Paths, tmp_path: Path) -> None:
    small = LayerStore(paths, limits=Limits(bytes=16 << 20))
    header = tar_header_of_zeros(1 << 40)
    bomb = lzma.compress(header + bytes(64 << 20), preset=0)
    started = time.monotonic()
    with pytest.raises(InvalidRequest):
        small.extract(io.BytesIO(bomb))
    assert time.monotonic() - started < 10
    assert list((tmp_path / "root/layers").iterdir()) == []


def tar_header_of_zeros(size: int) -> bytes:
    import tarfile

    info = tarfile.TarInfo("zeros")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_a_full_disk_is_one_clear_error(tmp_path: Path, tar: Tar) -> None:
    from jaula.kernel import mounts

    mount = mounts.new_filesystem("tmpfs", [("size", "8m")])
    try:
        layers = LayerStore(Paths(Path(f"/proc/self/fd/{mount}/root"), tmp_path / "run"))
        with pytest.raises(Unavailable, match="No space left"):
            layers.extract(io.BytesIO(tar(("big", bytes(16 << 20)))))
        assert os.listdir(f"/proc/self/fd/{mount}/root/layers") == []
    finally:
        os.close(mount)
