"""The tar reader: archives of other writers are read, damaged ones are refused."""

from __future__ import annotations

import io
import tarfile
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.storage.tar.pax import parse_records
from jaula.storage.tar.tar_entry import DIRECTORY, HARD_LINK, REGULAR, SYMLINK, TarEntry
from jaula.storage.tar.tar_reader import Limits, TarReader, parse_number


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


def entries(data: bytes, limits: Limits = Limits()) -> list[TarEntry]:  # noqa: B008
    return list(TarReader(io.BytesIO(data), limits=limits))


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_links_are_complete(format: int) -> None:
    name, target = "d/" * 100 + "n" * 200, "t" * 300
    result = entries(
        archive(
            member(name, size=3),
            member("link", type=tarfile.SYMTYPE, linkname=target),
            format=format,
        )
    )
    assert [(e.name, e.type, e.link) for e in result] == [
        (name.encode(), REGULAR, b""),
        (b"link", SYMLINK, target.encode()),
    ]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_owners_beyond_octal_are_read(format: int) -> None:
    (result,) = entries(archive(member("f", uid=3_000_000_000, gid=2_500_000), format=format))
    assert (result.uid, result.gid) == (3_000_000_000, 2_500_000)


def test_a_pax_time_keeps_its_nanoseconds() -> None:
    info = member("f")
    info.pax_headers = {"mtime": "1700000000.123456789"}
    (result,) = entries(archive(info))
    assert result.mtime == 1_700_000_000_123_456_789


def test_attributes_are_bytes() -> None:
    info = member("f")
    info.pax_headers = {"SCHILY.xattr.user.note": "value"}
    (result,) = entries(archive(info))
    assert result.xattrs == {"user.note": b"value"}


def test_a_ustar_prefix_is_joined() -> None:
    name = "p" * 120 + "/" + "n" * 80
    (result,) = entries(archive(member(name), format=tarfile.USTAR_FORMAT))
    assert result.name == name.encode()


def test_the_data_of_an_entry_can_be_read_or_skipped() -> None:
    data = archive(member("a", size=3_000_000), member("b", size=5))
    reader = TarReader(io.BytesIO(data))
    assert reader.next() is not None
    second = reader.next()
    assert second is not None
    assert reader.read(10, "b") == b"xxxxx"
    assert reader.next() is None


def test_the_tap_sees_every_byte_once() -> None:
    data = archive(member("a", size=2_500_000)) + b"\0" * 4096
    seen = bytearray()
    reader = TarReader(io.BytesIO(data), tap=seen.extend)
    assert len(list(reader)) == 1
    reader.drain()
    assert bytes(seen) == data
    assert reader.consumed == len(data)


def test_an_archive_without_its_end_is_accepted_at_an_entry() -> None:
    data = archive(member("a", size=512))
    assert len(entries(data[:1024])) == 1


@pytest.mark.parametrize("length", [1, 511, 513, 700, 1023])
def test_a_truncated_archive_is_refused(length: int) -> None:
    with pytest.raises(InvalidRequest, match="truncated"):
        entries(archive(member("a", size=512))[:length])


def test_a_wrong_checksum_is_refused() -> None:
    data = bytearray(archive(member("a")))
    data[0] ^= 1
    with pytest.raises(InvalidRequest, match="checksum"):
        entries(bytes(data))


def test_a_text_file_is_refused_as_no_archive() -> None:
    with pytest.raises(InvalidRequest, match="not a tar archive"):
        entries(b"root:x:0:0:root:/root:/bin/bash\n" * 40)


def test_a_signed_checksum_is_accepted() -> None:
    data = bytearray(archive(member("a"), format=tarfile.USTAR_FORMAT))
    data[0:1] = b"\xff"
    header = data[:512]
    header[148:156] = b" " * 8
    signed = sum(b - 256 if b > 127 else b for b in header)
    data[148:156] = b"%06o\0 " % signed
    assert entries(bytes(data))[0].name == b"\xff"


def test_a_header_that_claims_an_absurd_size_is_refused() -> None:
    info = member("a")
    info.pax_headers = {"size": str(2**62)}
    with pytest.raises(InvalidRequest, match="claims a size"):
        entries(archive(info))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", "-1"),
        ("uid", "4294967295"),
        ("gid", "99999999999999999999999"),
        ("mtime", "1e9"),
        ("mtime", "9" * 20),
        ("path", "a\0b"),
        ("GNU.sparse.major", "1"),
    ],
)
def test_a_pax_record_out_of_range_is_refused(key: str, value: str) -> None:
    info = member("a")
    info.pax_headers = {key: value}
    with pytest.raises(InvalidRequest):
        entries(archive(info))


@pytest.mark.parametrize(
    "data",
    [b"x", b"5 a\n", b"99 a=b\n", b"0 a=b\n", b"-6 a=b\n", b"6 a=bc", b"6 =bcd\n", b" 6 a=b\n"],
)
def test_a_malformed_pax_header_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="pax"):
        parse_records(data)


def test_a_pax_value_may_hold_anything() -> None:
    assert parse_records(b"12 k=a=b\nc\n\n") == {b"k": b"a=b\nc\n"}


def test_a_huge_extended_header_is_refused_before_it_is_read() -> None:
    header = bytearray(archive(member("a"), format=tarfile.GNU_FORMAT)[:512])
    header[124:136] = b"77777777777\0"
    header[156:157] = b"x"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(InvalidRequest, match="extended header claims"):
        entries(bytes(header) + bytes(1 << 20))


def test_the_number_of_extended_headers_is_limited() -> None:
    info = member("a")
    info.pax_headers = {"comment": "c"}
    pile = archive(info)[:1024] * 100
    with pytest.raises(InvalidRequest, match="in a row"):
        entries(pile + archive(member("a")))


def test_too_many_entries_are_refused() -> None:
    data = archive(*[member(f"f{n}") for n in range(11)])
    with pytest.raises(InvalidRequest, match="more than 10 entries"):
        entries(data, Limits(entries=10))


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="larger than"):
        entries(archive(*[member(f"f{n}", size=1 << 20) for n in range(3)]), Limits(bytes=2 << 20))


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="type 'S'"):
        entries(archive(member("a", type=b"S")))


def test_data_after_one_block_of_zeros_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="goes on"):
        entries(bytes(512) + archive(member("a")))


def test_old_directories_are_recognised_by_their_slash() -> None:
    (result,) = entries(archive(member("d/", type=tarfile.AREGTYPE), format=tarfile.USTAR_FORMAT))
    assert result.type == DIRECTORY


def test_a_hard_link_has_no_data_despite_its_size() -> None:
    data = bytearray(archive(member("l", type=tarfile.LNKTYPE, linkname="t"), member("f")))
    data[124:136] = b"00000001000\0"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    assert [e.type for e in entries(bytes(data))] == [HARD_LINK, REGULAR]


def test_numbers_are_octal_or_base_256() -> None:
    assert parse_number(b"0000644\0") == 0o644
    assert parse_number(b"   644 \0") == 0o644
    assert parse_number(b"\0" * 8) == 0
    assert parse_number(b"\x80" + bytes(3) + b"\xff" * 4) == 2**32 - 1
    assert parse_number(b"\xff" * 8) == -1
    for bad in (b"0x12\0\0\0\0", b"1_0\0\0\0\0\0", b"999\0\0\0\0\0", b"-1\0\0\0\0\0\0"):
        with pytest.raises(InvalidRequest):
            parse_number(bad)


@given(st.binary(max_size=4096))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        entries(data)
    except InvalidRequest:
        pass


@settings(max_examples=150)
@given(st.data())
def test_any_damage_to_an_archive_is_read_or_refused(data: st.DataObject) -> None:
    info = member("dir/file", size=700, uid=3_000_000_000)
    info.pax_headers = {"mtime": "1.5", "SCHILY.xattr.user.a": "b"}
    whole = bytearray(archive(info, member("l", type=tarfile.LNKTYPE, linkname="dir/file")))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        reader = TarReader(io.BytesIO(bytes(whole)))
        for _ in reader:
            for _ in reader.data():
                pass
    except InvalidRequest:
        pass


def test_memory_does_not_grow_with_the_archive() -> None:
    data = archive(member("a", size=30 << 20))
    tracemalloc.start()
    reader = TarReader(io.BytesIO(data))
    for _ in reader:
        for _ in reader.data():
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_the_padding_of_the_last_entry_may_be_optional() -> None:
    """As the docker command sends it where the Dockerfile is not in the context."""
    whole = archive(member("a", size=3), member("b", size=3))
    cut = whole[: 3 * 512 + 3]
    reader = TarReader(io.BytesIO(cut), padded=False)
    assert [reader.read(10, "it") for _ in reader] == [b"xxx", b"xxx"]
    for short, padded in ((cut, True), (cut[:-1], False)):
        with pytest.raises(InvalidRequest, match="truncated"):
            list(TarReader(io.BytesIO(short), padded=padded))
