"""The blob device of a lazy layer: it serves verified contents, and nothing else."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.indexed_layers import gzip_member, sha256
from jaula.errors import InvalidRequest, Unavailable
from jaula.features.lazy.blob import ByteRanges, LazyBlob, decompress_chunk
from jaula.features.lazy.metadata import Extent
from jaula.images.registry.toc import Chunk
from jaula.storage.compression import zstd_module

PARTS = (b"first" * 1000, b"second" * 900, os.urandom(70_000))


class Source:
    """A registry with one blob of three chunks."""

    def __init__(self) -> None:
        self.blob = b""
        self.extents = []
        position = 0
        for number, part in enumerate(PARTS):
            member = gzip_member(part)
            chunk = Chunk(len(self.blob), len(member), 0, len(part), sha256(part))
            self.extents.append(Extent(position, chunk, b"f%d" % number))
            self.blob += member
            position += (len(part) + 4095) // 4096 * 4096
        self.size = position
        self.requests: list[tuple[int, int]] = []
        self.fail = False
        self.edit: Callable[[bytes], bytes] = lambda data: data

    def fetch(self, offset: int, length: int) -> bytes:
        self.requests.append((offset, length))
        if self.fail:
            raise Unavailable("no network")
        return self.edit(self.blob[offset : offset + length])


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def reports() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def blob(source: Source, reports: list[tuple[str, str]], tmp_path: Path) -> Iterator[LazyBlob]:
    file = os.open(tmp_path / "blob", os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, len(source.blob))
    yield LazyBlob(
        file,
        len(source.blob),
        source.extents,
        source.fetch,
        lambda path, reason: reports.append((path, reason)),
    )
    os.close(file)


def device(source: Source) -> bytes:
    out = bytearray(source.size)
    for extent, part in zip(source.extents, PARTS, strict=True):
        out[extent.offset : extent.offset + len(part)] = part
    return bytes(out)


def test_the_device_has_all_files_and_zeros_between_them(source: Source, blob: LazyBlob) -> None:
    assert blob.read(0, source.size) == device(source)
    for offset in range(0, source.size, 3571):
        size = min(5000, source.size - offset)
        assert blob.read(offset, size) == device(source)[offset : offset + size]


def test_one_request_fetches_what_follows_too(source: Source, blob: LazyBlob) -> None:
    blob.read(0, source.size)
    assert source.requests == [(0, len(source.blob))]


def test_what_was_fetched_needs_no_network(source: Source, blob: LazyBlob) -> None:
    blob.store(0, source.blob)
    source.fail = True
    assert blob.read(0, source.size) == device(source)
    assert blob.gap(0, len(source.blob)) is None
    assert blob.digest() == sha256(source.blob)


def test_contents_are_decompressed_once_while_they_are_read(
    source: Source, blob: LazyBlob, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def count(data: bytes, chunk: Chunk) -> bytes:
        calls.append(chunk)
        return decompress_chunk(data, chunk)

    monkeypatch.setattr("jaula.features.lazy.blob.decompress_chunk", count)
    for _ in range(3):
        blob.read(0, 100)
    blob.trim()
    blob.read(0, 100)
    assert len(calls) == 1
    blob.trim()
    blob.trim()
    blob.read(0, 100)
    assert len(calls) == 2


def test_a_hole_is_never_served(source: Source, blob: LazyBlob, tmp_path: Path) -> None:
    """The file loses a block that was written, as after a crash."""
    blob.store(0, source.blob)
    with (tmp_path / "blob").open("r+b") as file:
        file.seek(source.extents[2].chunk.offset + 4096)
        file.write(bytes(4096))
    offset = source.extents[2].offset
    assert blob.read(offset, len(PARTS[2])) == PARTS[2]
    assert len(source.requests) == 1


@pytest.mark.parametrize("position", [0, 5, 30, 1000])
def test_changed_bytes_are_an_error_of_the_read(
    source: Source, blob: LazyBlob, reports: list[tuple[str, str]], position: int
) -> None:
    start = source.extents[2].chunk.offset

    def edit(data: bytes) -> bytes:
        changed = bytearray(data)
        if len(changed) > start + position:
            changed[start + position] ^= 1
        elif len(changed) > position:
            changed[position] ^= 1
        return bytes(changed)

    source.edit = edit
    with pytest.raises(OSError) as error:
        blob.read(source.extents[2].offset, 100)
    assert error.value.errno == errno.EIO
    assert reports[0][0] == "/f2"
    source.edit = lambda data: data
    assert blob.read(source.extents[2].offset, 100) == PARTS[2][:100]


def test_a_dead_network_is_an_error_of_the_read(
    source: Source, blob: LazyBlob, reports: list[tuple[str, str]]
) -> None:
    source.fail = True
    with pytest.raises(OSError, match="no network") as error:
        blob.read(0, 10)
    assert error.value.errno == errno.EIO
    assert reports == [("/f0", "no network")]
    assert blob.active == 0


@pytest.mark.parametrize("compress", [gzip_member, lambda data: zstd_module().compress(data)])
def test_a_chunk_may_begin_inside_its_member(compress: Callable[[bytes], bytes]) -> None:
    data = b"header" + PARTS[0] + b"padding"
    chunk = Chunk(0, 0, 6, len(PARTS[0]), sha256(PARTS[0]))
    assert decompress_chunk(compress(data), chunk) == PARTS[0]


@pytest.mark.parametrize(
    "data", [b"", b"\x1f\x8b", gzip_member(b"short"), gzip_member(PARTS[1]), PARTS[0]]
)
def test_other_content_is_not_a_chunk(data: bytes) -> None:
    chunk = Chunk(0, 0, 0, len(PARTS[0]), sha256(b"another"))
    with pytest.raises(InvalidRequest):
        decompress_chunk(data, chunk)


def test_a_bomb_is_read_up_to_the_size_of_its_chunk() -> None:
    bomb = gzip_member(bytes(200 << 20), 9)
    chunk = Chunk(0, len(bomb), 0, 10, sha256(bytes(10)))
    assert decompress_chunk(bomb, chunk) == bytes(10)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12))
def test_byte_ranges_are_a_set_of_bytes(ranges: list[tuple[int, int]]) -> None:
    present = ByteRanges()
    expected: set[int] = set()
    for begin, length in ranges:
        present.add(begin, begin + length)
        expected.update(range(begin, begin + length))
    for begin in range(0, 80, 3):
        for end in range(begin + 1, 85, 5):
            asked = set(range(begin, end))
            assert present.contains(begin, end) == (asked <= expected)
            gap = present.gap(begin, end)
            missing = sorted(asked - expected)
            if gap is None:
                assert not missing
            else:
                assert gap[0] == missing[0]
                assert set(range(*gap)) <= set(missing)
                assert gap[1] == end or gap[1] in expected


def test_a_chunk_of_another_layer_is_not_fetched(
    source: Source, reports: list[tuple[str, str]], tmp_path: Path
) -> None:
    asked = []

    def stored(digest: str, size: int) -> bytes | None:
        asked.append((digest, size))
        return PARTS[1] if digest == sha256(PARTS[1]) else None

    with open(tmp_path / "blob", "w+b") as file:
        blob = LazyBlob(
            file.fileno(),
            len(source.blob),
            source.extents,
            source.fetch,
            lambda path, reason: reports.append((path, reason)),
            stored=stored,
        )
        second = source.extents[1]
        assert blob.read(second.offset, second.chunk.size) == PARTS[1]
        assert source.requests == []
        assert asked == [(sha256(PARTS[1]), len(PARTS[1]))]
        third = source.extents[2]
        assert blob.read(third.offset, third.chunk.size) == PARTS[2]
        assert len(source.requests) == 1
    assert reports == []


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_what_a_former_process_has_fetched_is_found_around_a_hole(
    source: Source, blob: LazyBlob, lost: int
) -> None:
    """A chunk that is absent hides no later one."""
    chunks = [extent.chunk for extent in source.extents]
    for number, chunk in enumerate(chunks):
        if number != lost:
            blob.store(chunk.offset, source.blob[chunk.offset : chunk.offset + chunk.length])
    blob.forget()
    blob.find_present()
    assert blob.missing() == chunks[lost].length
    begin, end = blob.gap(0, len(source.blob)) or (0, 0)
    assert (begin, end - begin) == (chunks[lost].offset, chunks[lost].length)
