"""The TOC of eStargz and zstd:chunked layers: valid ones, and hostile ones."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.indexed_layers import IndexedLayer, estargz, sha256, zstd_chunked
from jaula.errors import InvalidRequest
from jaula.images.registry import toc
from jaula.images.registry.toc import EntryType, TocFormat
from jaula.spec.image_documents import ESTARGZ_DIGEST, ZSTD_CHUNKED_POSITION, Descriptor
from jaula.storage.compression import decompress_stream

Writer = Callable[..., IndexedLayer]
BIG = bytes(range(256)) * 40


def tar_of_files() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind in (("etc", tarfile.DIRTYPE), ("etc/empty", tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o755
            archive.addfile(info)
        info = tarfile.TarInfo("etc/big")
        info.size, info.mtime, info.uid, info.mode = len(BIG), 1_700_000_000, 42, 0o4711
        info.pax_headers = {"SCHILY.xattr.user.note": "hello"}
        archive.addfile(info, io.BytesIO(BIG))
        for name, kind, link in (
            ("etc/link", tarfile.SYMTYPE, "../x"),
            ("etc/hard", tarfile.LNKTYPE, "etc/big"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            archive.addfile(info)
        info = tarfile.TarInfo("null")
        info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 3
        archive.addfile(info)
    return out.getvalue()


def descriptor(layer: IndexedLayer) -> Descriptor:
    return msgspec.convert(layer.descriptor, Descriptor)


def read(layer: IndexedLayer) -> toc.Toc:
    described = descriptor(layer)
    if toc.format_of(described) is TocFormat.ESTARGZ:
        position = toc.estargz_position(described, layer.blob[-toc.ESTARGZ_FOOTER_SIZE :])
    else:
        position = toc.zstd_chunked_position(described)
    data = layer.blob[position.offset : position.offset + position.length]
    return toc.read(described, position, data)


@pytest.mark.parametrize("write", [estargz, zstd_chunked])
def test_a_toc_has_the_metadata_and_chunks_of_every_entry(write: Writer) -> None:
    layer = write(tar_of_files(), chunk_size=4096)
    files = {file.path: file for file in read(layer).files}
    assert list(files) == [
        b"etc",
        b"etc/empty",
        b"etc/big",
        b"etc/link",
        b"etc/hard",
        b"null",
    ]
    big = files[b"etc/big"]
    assert (big.mode, big.uid, big.size) == (0o4711, 42, len(BIG))
    assert big.mtime == 1_700_000_000 * 10**9
    assert big.xattrs == {"user.note": b"hello"}
    assert files[b"etc/link"].link == b"../x"
    assert files[b"etc/hard"].link == b"etc/big"
    assert files[b"etc/hard"].type is EntryType.HARD_LINK
    assert files[b"null"].device == (1, 3)
    content = b""
    for chunk in big.chunks:
        part = layer.blob[chunk.offset : chunk.offset + chunk.length]
        data = decompress_stream(io.BytesIO(part))[0].readall()[: chunk.size]
        assert sha256(data) == chunk.digest
        content += data
    assert content == BIG
    assert len(big.chunks) == 3


def test_a_layer_without_both_annotations_has_no_toc() -> None:
    layer = descriptor(zstd_chunked(tar_of_files()))
    assert toc.format_of(layer) is TocFormat.ZSTD_CHUNKED
    for key in layer.annotations:
        rest = {k: v for k, v in layer.annotations.items() if k != key}
        assert toc.format_of(msgspec.structs.replace(layer, annotations=rest)) is None
    bad = {ESTARGZ_DIGEST: "sha256:12"}
    assert toc.format_of(msgspec.structs.replace(layer, annotations=bad)) is None


@pytest.mark.parametrize("write", [estargz, zstd_chunked])
def test_a_toc_with_another_digest_is_refused(write: Writer) -> None:
    layer = write(tar_of_files())
    other = {k: v if ":1" in v else "sha256:" + "0" * 64 for k, v in layer.annotations.items()}
    with pytest.raises(InvalidRequest, match="the manifest says sha256:000"):
        read(layer._replace(annotations=other))


@pytest.mark.parametrize(
    "position", ["9:9:9:2", "0:9:9:1", "-1:9:9:1", f"{10**17}:5:5:1", "8:999999:5:1", "8:5:5"]
)
def test_a_position_outside_the_blob_is_refused(position: str) -> None:
    layer = descriptor(zstd_chunked(tar_of_files()))
    layer.annotations[ZSTD_CHUNKED_POSITION] = position
    with pytest.raises(InvalidRequest):
        toc.zstd_chunked_position(layer)


def test_a_footer_that_is_not_one_is_refused() -> None:
    layer = estargz(tar_of_files())
    footer = bytearray(layer.blob[-toc.ESTARGZ_FOOTER_SIZE :])
    for position, value in ((0, 0), (3, 0), (12, 0), (20, ord("g")), (33, 0)):
        broken = bytearray(footer)
        broken[position] = value
        with pytest.raises(InvalidRequest):
            toc.estargz_position(descriptor(layer), bytes(broken))
    with pytest.raises(InvalidRequest):
        toc.estargz_position(descriptor(layer), bytes(footer[:-1]))
    after = footer[:16] + b"f" * 16 + footer[32:]
    with pytest.raises(InvalidRequest):
        toc.estargz_position(descriptor(layer), bytes(after))


def parsed(*entries: dict[str, Any], version: int = 1) -> toc.Toc:
    document = json.dumps({"version": version, "entries": entries}).encode()
    return toc.parse(document, TocFormat.ESTARGZ, 1000)


GOOD = {"name": "f", "type": "reg", "size": 8, "digest": "sha256:" + "a" * 64, "offset": 10}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a/../../b"},
        {"name": "a\0b"},
        {"name": "x" * 256},
        {"name": "/".join("a" * 200)},
        {"name": "caf\ufffd"},
        {"name": "."},
        {"type": "socket"},
        {"size": -1},
        {"size": 2**63},
        {"size": 1 << 44},
        {"offset": 1000},
        {"offset": -1},
        {"digest": ""},
        {"digest": "sha512:" + "a" * 128},
        {"chunkSize": 4},
        {"chunkSize": 9},
        {"chunkOffset": 1},
        {"chunkType": "delta"},
        {"innerOffset": 1 << 40},
        {"uid": -1},
        {"uid": 2**32 - 1},
        {"modtime": "yesterday"},
        {"modtime": "2024-13-01T00:00:00Z"},
        {"xattrs": {"user.x": "?"}},
        {"xattrs": {"": "eA=="}},
    ],
)
def test_an_invalid_entry_is_refused(change: dict[str, Any]) -> None:
    assert parsed(GOOD).files[0].size == 8
    with pytest.raises(InvalidRequest):
        parsed(GOOD | change)


def test_a_chunk_without_a_file_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="does not follow a file"):
        parsed(GOOD | {"type": "chunk"})
    with pytest.raises(InvalidRequest, match="does not follow a file"):
        parsed({"name": "d", "type": "dir"}, GOOD | {"type": "chunk"})


def test_a_name_that_is_stated_twice_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="twice"):
        parsed(GOOD, GOOD | {"name": "./f"})


def test_a_chunk_of_many_without_its_own_digest_is_refused() -> None:
    more = {"name": "f", "type": "chunk", "offset": 20, "chunkOffset": 4, "chunkSize": 4}
    with pytest.raises(InvalidRequest, match="no sha256 digest"):
        parsed(GOOD | {"chunkSize": 4}, more)


def test_a_chunk_of_zeros_needs_no_bytes_of_the_blob() -> None:
    hole = {"name": "f", "type": "chunk", "chunkOffset": 8, "chunkSize": 92, "chunkType": "zeros"}
    own = {"size": 100, "chunkSize": 8, "chunkDigest": GOOD["digest"]}
    (file,) = parsed(GOOD | own, hole).files
    assert [chunk.length for chunk in file.chunks] == [990, 0]


def test_another_version_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="version 2"):
        parsed(GOOD, version=2)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("", 0),
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T01:00:01.5+01:00", 1_500_000_000),
        ("2024-02-29T12:00:00.123456789Z", 1709208000123456789),
        ("0001-01-01T00:00:00Z", -62135596800 * 10**9),
    ],
)
def test_times_are_those_of_rfc_3339(text: str, nanoseconds: int) -> None:
    assert toc.parse_time(text) == nanoseconds


@given(st.binary(max_size=300))
def test_any_bytes_are_a_toc_or_an_error(data: bytes) -> None:
    try:
        toc.parse(data, TocFormat.ESTARGZ, 1000)
    except InvalidRequest:
        pass


_VALUES = st.one_of(
    st.integers(-(2**70), 2**70), st.text(max_size=8), st.none(), st.sampled_from(list(EntryType))
)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from([f.encode_name for f in msgspec.structs.fields(toc.TocEntry)]),
            _VALUES,
        ).map(lambda change: GOOD | change),
        max_size=4,
    )
)
def test_any_entries_are_a_toc_or_an_error(entries: list[dict[str, Any]]) -> None:
    try:
        result = parsed(*entries)
    except InvalidRequest:
        return
    for file in result.files:
        assert sum(chunk.size for chunk in file.chunks) == file.size
        assert all(0 <= c.offset <= c.offset + c.length <= 1000 for c in file.chunks)


@pytest.mark.parametrize("write", [estargz, zstd_chunked])
def test_a_damaged_toc_is_an_error(write: Writer) -> None:
    layer = write(tar_of_files())
    described = descriptor(layer)
    position = (
        toc.estargz_position(described, layer.blob[-51:])
        if write is estargz
        else toc.zstd_chunked_position(described)
    )
    data = layer.blob[position.offset : position.offset + position.length]
    for cut in range(0, len(data), 7):
        with pytest.raises(InvalidRequest):
            toc.read(described, position, data[:cut])
