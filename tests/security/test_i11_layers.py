"""I11: hostile layers change nothing outside, and are bounded in time and space.

Each row is an image archive to load. A tree next to the engine's root, the mounts and the files of
the engine stay unchanged. The answer is one error, or an image with the content of the archive
only.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import subprocess
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import containers, hostile_archives, leaks
from harness.engine import PrivateEngine, UnixConnection
from harness.hostile_archives import (
    BITING,
    HARMLESS,
    MIB,
    REFUSED,
    SECONDS,
    SECRET,
    error_of,
    fingerprint,
    load,
    make_canary,
)
from harness.layers import Member, digest, image, layer

NOWHERE = "sha256:" + "0" * 64


PACKED = (
    pytest.param(bytes, id="plain"),
    pytest.param(gzip.compress, id="gzip", marks=pytest.mark.slow),  # checked when it is unpacked
)


@pytest.fixture
def canary(engine: PrivateEngine, busybox: str) -> Iterator[Path]:
    """Yield a tree next to the engine's root; it, the engine's files and mounts must not change."""
    with hostile_archives.canary_tree(engine, busybox) as tree:
        yield tree


@pytest.mark.parametrize("pack", PACKED)
@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_layer_is_refused(
    engine: PrivateEngine, canary: Path, case: str, pack: Callable[[bytes], bytes]
) -> None:
    data = layer(REFUSED[case][1], canary)
    assert load(engine, image("hostile:1", (pack(data), digest(data))))
    assert engine.request("GET", "/images/hostile:1/json").status == 404


@pytest.mark.parametrize("pack", PACKED)
@pytest.mark.parametrize("case", HARMLESS)
def test_a_harmless_layer_stays_in_its_root(
    engine: PrivateEngine, canary: Path, case: str, pack: Callable[[bytes], bytes]
) -> None:
    below = layer([("etc/below", "x"), ("out", "dir"), ("d/deep", "x")])
    data = layer(HARMLESS[case][1], canary)
    layers = ((below, digest(below)), (pack(data), digest(data)))
    assert load(engine, image("hostile:1", *layers)) == ""
    try:
        name = containers.unique("hostile")
        reply = engine.request("POST", f"/containers/create?name={name}", {"Image": "hostile:1"})
        assert reply.status == 201, reply
        exported = engine.request("GET", f"/containers/{name}/export")
        assert exported.status == 200
        assert b"etc/below" in exported.body
        assert SECRET.encode() not in exported.body
        assert engine.request("POST", f"/containers/{name}/start").status >= 400
        assert engine.request("DELETE", f"/containers/{name}").status == 204
    finally:
        assert engine.request("DELETE", "/images/hostile:1?force=1").status == 200


@pytest.mark.parametrize("row", BITING, ids=lambda row: row[1][-1][0][-20:])
def test_a_careless_extractor_changes_the_canary(
    tmp_path: Path, row: tuple[str, tuple[Member, ...]]
) -> None:
    """Check the rows: these archives change the canary if no protection stops them."""
    canary = make_canary(tmp_path / "canary")
    before = fingerprint(canary)
    (tmp_path / "scratch").mkdir()
    with (
        tarfile.open(fileobj=io.BytesIO(layer(row[1], canary))) as archive,
        contextlib.suppress(OSError),
    ):
        archive.extractall(tmp_path / "scratch", filter="fully_trusted")
    assert fingerprint(canary) != before


# bombs


@pytest.fixture
def small(new_engine: Callable[..., PrivateEngine]) -> Iterator[PrivateEngine]:
    """Yield an engine on a disk of 96 MiB and 4000 files, which must be as empty afterwards."""
    engine = new_engine(start=False)
    disk = engine.root / "lib"
    disk.mkdir()
    options = "size=96m,nr_inodes=4000"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", disk], check=True)
    try:
        engine.start()
        assert load(engine, image("first:1", _whole(layer([("f", "x")])))) == ""
        make_canary(engine.root / "canary")
        before = fingerprint(engine.root / "lib") | fingerprint(engine.root / "canary")
        mounts = leaks.mounts(engine)
        yield engine
        assert fingerprint(engine.root / "lib") | fingerprint(engine.root / "canary") == before
        assert leaks.mounts(engine) == mounts
        assert load(engine, image("second:1", _whole(layer([("f", "y")])))) == ""
        assert _peak(engine) < 400 * MIB
        assert "Traceback" not in engine.log.read_text()
    finally:
        if engine.process is not None:
            engine.stop()
        subprocess.run(["umount", disk], check=True)


def _peak(engine: PrivateEngine) -> int:
    """Return the peak memory of the engine in bytes."""
    assert engine.process is not None
    return int(containers.status(engine.process.pid)["VmHWM"].split()[0]) * 1024


def _whole(data: bytes) -> tuple[bytes, str]:
    return data, digest(data)


def zeros(size: int = 200 << 30) -> bytes:
    """Return the header of a file of the maximum size of an archive, or larger."""
    info = tarfile.TarInfo("zeros")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def zstd(data: bytes) -> bytes:
    from backports import zstd as module

    return bytes(module.compress(data))


def large_dictionary() -> bytes:
    """Return an xz stream that needs four GiB of memory (xz file format 1.2, 3.1 and 5.3.1)."""
    data = bytearray(lzma.compress(layer([("f", "x")])))
    end = 12 + (data[12] + 1) * 4 - 4
    assert data[12:16][2:] == b"\x21\x01"
    data[16] = 40
    data[end : end + 4] = zlib.crc32(data[12:end]).to_bytes(4, "little")
    return bytes(data)


def large_window() -> bytes:
    """Return a zstd frame with a window of two GiB (RFC 8878, 3.1.1)."""
    return b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([21 << 3]) + b"\x01\x00\x00"


def layer_bomb(pack: Callable[[bytes], bytes]) -> bytes:
    packed = pack(zeros()) + pack(bytes(16 * MIB)) * 256
    return image("bomb:1", (packed, NOWHERE))


def archive_bomb(pack: Callable[[bytes], bytes]) -> bytes:
    return pack(zeros()) + pack(bytes(16 * MIB)) * 256


def many_files() -> bytes:
    return image("bomb:1", _whole(layer([(f"f{n}", "") for n in range(20_000)])))


BOMBS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "a gzip layer": ("CVE-2017-14992", lambda: layer_bomb(gzip.compress), "No space"),
    "a zstd layer": ("CVE-2017-14992", lambda: layer_bomb(zstd), "No space"),
    "an xz layer": ("CVE-2021-20291", lambda: layer_bomb(lzma.compress), "compressed with xz"),
    "a gzip archive": ("CVE-2017-14992", lambda: archive_bomb(gzip.compress), "No space"),
    "a zstd archive": ("CVE-2017-14992", lambda: archive_bomb(zstd), "No space"),
    "an xz archive": ("CVE-2021-20291", lambda: archive_bomb(lzma.compress), "No space"),
    "a file of a tebibyte": ("", lambda: zeros(1 << 40), "claims a size"),
    "a large xz dictionary": ("CVE-2021-20291", large_dictionary, "emory"),
    "a large zstd window": ("", large_window, "memory"),
    "a large window in a layer": (
        "",
        lambda: image("bomb:1", (large_window(), NOWHERE)),
        "memory",
    ),
    "more files than the disk holds": ("", many_files, "No space"),
    "more files than an archive has": (
        "",
        lambda: layer([(f"f{n}", "") for n in range(20_001)]),
        "more than 20000 entries",
    ),
    "more layers than an image has": (
        "",
        lambda: image("bomb:1", *[_whole(layer([("f", str(n))])) for n in range(501)]),
        "501 layers",
    ),
    "more images than an archive has": (
        "",
        lambda: image("bomb:1", _whole(layer([("f", "z")])), copies=1001),
        "1001 images",
    ),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_decompression_bomb_is_bounded(small: PrivateEngine, case: str) -> None:
    _, make, word = BOMBS[case]
    assert word in load(small, make())


@pytest.mark.slow
@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress], ids=["gzip", "xz"])
@pytest.mark.parametrize("cve", ["CVE-2021-20291"])
def test_an_endless_stream_is_closed(
    small: PrivateEngine, pack: Callable[[bytes], bytes], cve: str
) -> None:
    """The client sends for as long as the engine reads."""
    begin, piece = time.monotonic(), pack(bytes(16 * MIB))

    def endless() -> Iterator[bytes]:
        yield pack(zeros())
        while time.monotonic() - begin < SECONDS:
            yield piece

    connection = UnixConnection(str(small.socket))
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", "/images/load", endless(), {"Content-Type": "x-tar"})
        assert "No space" in error_of(small, connection.getresponse().read())
    finally:
        connection.close()
    assert time.monotonic() - begin < SECONDS
