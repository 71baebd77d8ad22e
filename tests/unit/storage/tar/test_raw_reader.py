"""The raw reader: its bytes are those of the archive, whatever the archive is."""

from __future__ import annotations

import io
import mmap
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.storage.tar.raw_reader import RawTarReader


def archive(*members: tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


def member(name: str, **facts: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in facts.items():
        setattr(info, key, value)
    return info


def parts(reader: RawTarReader) -> list[bytes]:
    """Return raw bytes and contents in turn, and the end."""
    found = []
    for _ in reader:
        found += [reader.take_raw(), b"".join(bytes(chunk) for chunk in reader.data())]
    return [*found, reader.take_raw(), *(bytes(chunk) for chunk in reader.tail())]


MEMBERS = (
    member("d/" * 60 + "n" * 150, size=1000),
    member("empty"),
    member("directory", type=tarfile.DIRTYPE),
    member("aligned", size=1024, pax_headers={"SCHILY.xattr.user.a": "b", "mtime": "1.5"}),
    member("link", type=tarfile.SYMTYPE, linkname="t" * 300),
)


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("end", [b"", bytes(512), bytes(1024), bytes(4096), bytes(1 << 21)])
def test_the_parts_are_the_archive(format: int, end: bytes) -> None:
    whole = archive(*MEMBERS, format=format)
    data = whole[: len(whole.rstrip(b"\0")) // 512 * 512 + 512] + end
    found = parts(RawTarReader(io.BytesIO(data)))
    assert b"".join(found) == data
    assert found[1] == b"x" * 1000 and found[7] == b"x" * 1024
    assert found[2].startswith(bytes(24)) and len(found[2]) == 24 + 512  # padding, header


def test_the_parts_of_a_mapped_file_are_the_archive() -> None:
    data = archive(*MEMBERS)
    mapped = mmap.mmap(-1, len(data))
    mapped.write(data)
    reader = RawTarReader(mapped)
    found = b"".join(parts(reader))
    reader.close()
    assert found == data


def test_the_headers_of_the_present_entry() -> None:
    reader = RawTarReader(io.BytesIO(archive(*MEMBERS)))
    seen = {}
    for entry in reader:
        seen[entry.name.decode()[:3]] = (reader.records, reader.extended_types, reader.header[:3])
        assert len(reader.header) == 512
    assert seen["ali"] == ({b"SCHILY.xattr.user.a": b"b", b"mtime": b"1.5"}, b"x", b"ali")
    assert seen["emp"] == ({}, b"", b"emp")


def test_data_of_an_entry_without_contents_is_limited() -> None:
    info = member("d", type=tarfile.DIRTYPE)
    info.size = 4 << 20
    data = info.tobuf(tarfile.GNU_FORMAT) + bytes(4 << 20)
    with pytest.raises(InvalidRequest, match="not a regular file has 4194304 bytes"):
        parts(RawTarReader(io.BytesIO(data)))
    info.size = 700
    data = info.tobuf(tarfile.GNU_FORMAT) + b"y" * 700 + bytes(324)
    assert b"".join(parts(RawTarReader(io.BytesIO(data)))) == data


@given(st.binary(max_size=1500), st.integers(0, 5000), st.binary(max_size=20))
def test_hostile_bytes(head: bytes, cut: int, patch: bytes) -> None:
    valid = archive(*MEMBERS)
    for data in (head, valid[:cut], valid[:cut] + patch + valid[cut + len(patch) :]):
        try:
            found = b"".join(parts(RawTarReader(io.BytesIO(data))))
        except InvalidRequest:
            continue
        assert found == data[: len(found)]
        assert len(found) == len(data)
