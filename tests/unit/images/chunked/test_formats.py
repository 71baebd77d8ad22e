"""Layers as eStargz and zstd:chunked, read by the documents of the formats."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.chunked_layers import (
    assemble,
    contents,
    expected_entries,
    metadata,
    read_estargz,
    read_zstd_chunked,
    sha256,
)
from jaula.errors import InvalidRequest
from jaula.images.chunked.entries import time_text
from jaula.images.chunked.estargz import write_estargz
from jaula.images.chunked.zstd_chunked import write_zstd_chunked
from jaula.storage.compression import zstd_module
from jaula.storage.tar.raw_reader import RawTarReader


class Made(NamedTuple):
    blob: bytes
    annotations: dict[str, str]
    diff_id: str


def nothing() -> None:
    return None


def gzip_member(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


def zstd_chunked(archive: bytes, check: Callable[[], None] = nothing) -> Made:
    out, content = io.BytesIO(), hashlib.sha256()
    reader = RawTarReader(io.BytesIO(archive), tap=content.update)
    with ThreadPoolExecutor(2) as threads:
        compress = zstd_module().compress
        annotations = write_zstd_chunked(reader, out, compress, threads, check)
    return Made(out.getvalue(), annotations, "sha256:" + content.hexdigest())


def estargz(archive: bytes, check: Callable[[], None] = nothing) -> Made:
    out = io.BytesIO()
    with ThreadPoolExecutor(2) as threads:
        made = write_estargz(RawTarReader(io.BytesIO(archive)), out, gzip_member, threads, check)
    return Made(out.getvalue(), made.annotations, made.diff_id)


Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, data: bytes = b"", **facts: object) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in facts.items():
        setattr(info, key, value)
    return info, data


def tar_of(*members: Member, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


NOISE = random.Random(5).randbytes(700_001)  # more than a chunk of zstd:chunked
ALL_KINDS = (
    member("usr/", type=tarfile.DIRTYPE, mode=0o755, mtime=1_700_000_000),
    member("usr/empty"),
    member("usr/text", b"text\n", uid=3_000_000, gid=12, mode=0o4755),
    member("usr/noise", NOISE, mtime=1_700_000_000.25),
    member("usr/zeros", bytes(1 << 20)),
    member("usr/" + "n" * 150, b"x" * 512),
    member("usr/hard", type=tarfile.LNKTYPE, linkname="usr/text"),
    member("usr/soft", type=tarfile.SYMTYPE, linkname="text"),
    member("dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    member("dev/loop", type=tarfile.BLKTYPE, devmajor=7, devminor=130),
    member("run/pipe", type=tarfile.FIFOTYPE),
    member("usr/capable", b"x", pax_headers={"SCHILY.xattr.user.a": "välue", "atime": "12.5"}),
    member("usr/äöü", b"name"),
)


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_zstd_chunked_is_the_tar_byte_for_byte(format: int) -> None:
    archive = tar_of(*ALL_KINDS, format=format)
    made = zstd_chunked(archive)
    tar, entries, tar_split = read_zstd_chunked(made.blob, made.annotations)
    assert tar == archive and made.diff_id == sha256(archive)
    assert metadata(entries) == expected_entries(archive)
    files = contents(made.blob, entries)
    assert files == {info.name: data for info, data in ALL_KINDS if info.isreg()}
    assert assemble(tar_split, files) == archive
    large = [entry for entry in entries if entry["name"] == "usr/noise"]
    assert [entry["type"] for entry in large] == ["reg", "chunk"]
    assert large[0]["endOffset"] > large[1]["offset"] > large[0]["offset"]
    zeros = [entry for entry in entries if entry["name"] == "usr/zeros"]
    assert {entry["chunkType"] for entry in zeros} == {"zeros"}
    if format == tarfile.PAX_FORMAT:
        assert large[0]["modtime"] == "2023-11-14T22:13:20.25Z"
        (capable,) = (entry for entry in entries if entry["name"] == "usr/capable")
        assert capable["accesstime"] == "1970-01-01T00:00:12.5Z"


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_estargz_adds_the_landmark_and_the_table_to_the_tar(format: int) -> None:
    archive = tar_of(*ALL_KINDS, member("usr/large", NOISE * 7), format=format)
    made = estargz(archive)
    tar, entries = read_estargz(made.blob, made.annotations)
    assert made.diff_id == sha256(tar)
    expected = expected_entries(tar)
    assert expected[0]["name"] == ".no.prefetch.landmark"
    assert expected[-1]["name"] == "stargz.index.json"
    assert metadata(entries) == expected[:-1]
    assert expected[1:-1] == expected_entries(archive)
    files = contents(made.blob, entries)
    assert files.pop(".no.prefetch.landmark") == b"\x0f"
    assert files.pop("usr/large") == NOISE * 7
    assert files == {info.name: data for info, data in ALL_KINDS if info.isreg()}
    large = [entry for entry in entries if entry["name"] == "usr/large"]
    assert [entry.get("chunkSize") for entry in large] == [1 << 22, None]
    assert all("." not in entry.get("modtime", "") for entry in entries)


def test_a_layer_is_converted_to_estargz_twice() -> None:
    once = estargz(tar_of(*ALL_KINDS))
    twice = estargz(gzip.decompress(once.blob))
    assert twice == once


def test_a_tar_without_its_end_or_with_a_long_one() -> None:
    archive = tar_of(member("a", b"1" * 100), member("b", b"2" * 512))
    end = archive.rstrip(b"\0")
    end += bytes(-len(end) % 512)
    for form in (end, end + bytes(512), end + bytes(1024), archive + bytes(1 << 21)):
        made = zstd_chunked(form)
        tar, entries, tar_split = read_zstd_chunked(made.blob, made.annotations)
        assert tar == form
        assert assemble(tar_split, contents(made.blob, entries)) == form
        assert estargz(form) == estargz(archive)


def test_an_empty_archive() -> None:
    for archive in (b"", bytes(1024), bytes(10240)):
        made = zstd_chunked(archive)
        tar, entries, tar_split = read_zstd_chunked(made.blob, made.annotations)
        assert (tar, entries) == (archive, []) and assemble(tar_split, {}) == archive


def _type_7() -> bytes:
    return tar_of(member("a", type=tarfile.CONTTYPE))


def _global_header() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", pax_headers={"comment": "x"}) as tar:
        tar.addfile(tarfile.TarInfo("a"))
    return buffer.getvalue()


def _gnu_times() -> bytes:
    archive = bytearray(tar_of(member("a"), format=tarfile.GNU_FORMAT))
    archive[345:357] = b"%011o\0" % 77
    archive[148:156] = b"%06o\0 " % (sum(archive[:148]) + sum(archive[156:512]) + 8 * 32)
    return bytes(archive)


def _sized(type: bytes) -> bytes:
    info, _ = member("a", type=type, linkname="b")
    info.size = 512
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


@pytest.mark.parametrize(
    ("archive", "text"),
    [
        (_sized(tarfile.DIRTYPE), "not a regular file"),
        (_sized(tarfile.LNKTYPE), "not a regular file"),
        (tar_of(member("a"), member("./a")), "exists twice"),
        (tar_of(member("d/", type=tarfile.DIRTYPE), member("d", b"x")), "exists twice"),
        (tar_of(member("\udcff"), format=tarfile.GNU_FORMAT), "not UTF-8"),
        (
            tar_of(member("a", type=tarfile.SYMTYPE, linkname="\udcff"), format=tarfile.GNU_FORMAT),
            "not UTF-8",
        ),
        (tar_of(member("a", mtime=300_000_000_000)), "out of range"),
        (_type_7(), "type or header"),
        (_global_header(), "type or header"),
        (_gnu_times(), "times of access"),
        (tar_of(member("a", b"x" * 2000))[:1000], "truncated"),
        (b"x" * 1024, "a block is no header"),
    ],
)
def test_a_layer_that_a_table_cannot_describe_is_refused(archive: bytes, text: str) -> None:
    for write in (zstd_chunked, estargz):
        with pytest.raises(InvalidRequest, match=text):
            write(archive)


def test_the_work_ends_when_the_check_raises() -> None:
    archive = tar_of(*(member(str(number), NOISE) for number in range(20)))
    for write in (zstd_chunked, estargz):
        calls = 0

        def check() -> None:
            nonlocal calls
            calls += 1
            if calls == 30:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write(archive, check)


@pytest.mark.parametrize(
    ("nanoseconds", "precise", "rounded"),
    [
        (0, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        (1_500_000_000, "1970-01-01T00:00:01.5Z", "1970-01-01T00:00:02Z"),
        (-1, "1969-12-31T23:59:59.999999999Z", "1970-01-01T00:00:00Z"),
        (1_020_000_000, "1970-01-01T00:00:01.02Z", "1970-01-01T00:00:01Z"),
    ],
)
def test_times(nanoseconds: int, precise: str, rounded: str) -> None:
    assert time_text(nanoseconds, b"x", fraction=True) == precise
    assert time_text(nanoseconds, b"x", fraction=False) == rounded


_NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=120
).filter(lambda name: name not in (".", ".."))


@settings(max_examples=40)
@given(
    st.dictionaries(_NAMES, st.binary(max_size=3000), max_size=12),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_any_files(files: dict[str, bytes], format: int) -> None:
    archive = tar_of(*(member(name, data) for name, data in files.items()), format=format)
    made = zstd_chunked(archive)
    tar, entries, tar_split = read_zstd_chunked(made.blob, made.annotations)
    assert tar == archive and contents(made.blob, entries) == files
    assert assemble(tar_split, files) == archive
    made = estargz(archive)
    _, entries = read_estargz(made.blob, made.annotations)
    found = contents(made.blob, entries)
    reserved = {"stargz.index.json", ".prefetch.landmark", ".no.prefetch.landmark"}
    assert {k: v for k, v in found.items() if k not in reserved} == {
        k: v for k, v in files.items() if k not in reserved
    }
