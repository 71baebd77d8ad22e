"""Hash files of Berkeley DB: the library's own, and invalid ones."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from harness.rpm_bdb import made, written
from jaula.errors import InvalidRequest
from jaula.features.trust.sbom import rpm_bdb

ENTRIES = [(1, b"short"), (2, b"long" * 300), (3, b""), (4, b"longer" * 700)]
LIMITS = {"_MAX_PAIRS": "more than 3 entries", "_MAX_HEADER": "a header of more than 3 bytes"}


def keyed(entries: list[tuple[int, bytes]], order: str = "<") -> list[tuple[bytes, bytes]]:
    return [(struct.pack(order + "I", number), value) for number, value in entries]


def found(data: bytes | bytearray) -> list[bytes]:
    return sorted(rpm_bdb.blobs(bytes(data), "it"))


def values(entries: list[tuple[int, bytes]]) -> list[bytes]:
    return sorted(value for _, value in entries)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_a_file_of_the_library_is_read(tmp_path: Path, page_size: int, order: str) -> None:
    dice = random.Random(page_size)
    entries = [(n, dice.randbytes(dice.choice((9, 200, 5000)))) for n in range(1, 300)]
    counter = (0, struct.pack(order + "I", 299))
    path = written(tmp_path / "p", [counter, *entries], page_size=page_size, order=order)
    assert found(path.read_bytes()) == values(entries)


def test_removed_packages_are_not_read_although_their_data_remains(tmp_path: Path) -> None:
    entries = [(number, b"%04d" % number * 1000) for number in range(1, 60)]
    gone = [(number, None) for number in range(1, 50)]
    data = written(tmp_path / "p", [*entries, *gone]).read_bytes()
    assert b"0001" * 900 in data
    assert found(data) == values(entries[49:])


def test_a_rewritten_package_is_read_once(tmp_path: Path) -> None:
    entries = [(number, b"%04d" % number * 1000) for number in range(1, 30)]
    data = written(tmp_path / "p", [*entries, (7, b"other" * 1000)]).read_bytes()
    assert found(data) == values([*entries[:6], *entries[7:], (7, b"other" * 1000)])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("version", "type"), [(8, 2), (9, 13), (10, 13)])
@pytest.mark.parametrize("buckets", [1, 3, 8])
def test_every_version_is_read(order: str, version: int, type: int, buckets: int) -> None:
    entries = ENTRIES * 9
    data = made(keyed(entries, order), order=order, version=version, type=type, buckets=buckets)
    assert found(data) == values(entries)


def test_a_database_without_packages_has_none(tmp_path: Path) -> None:
    assert found(written(tmp_path / "p", []).read_bytes()) == []
    assert found(written(tmp_path / "q", [(0, b"\1\0\0\0")]).read_bytes()) == []


@pytest.mark.parametrize(
    ("meta", "told"),
    [
        ({12: b"\x62\x31\x05\0"}, "it is not a package database"),  # a b-tree
        ({16: b"\7"}, "version 7"),
        ({16: b"\x0b"}, "version 11"),
        ({20: b"\0\1"}, "pages of 256 bytes"),
        ({20: b"\1\2"}, "pages of 513 bytes"),
        ({20: b"\0\0\2"}, "pages of 131072 bytes"),
        ({20: b"\0\0"}, "pages of 0 bytes"),
        ({24: b"\1"}, "it is encrypted"),
        ({26: b"\1"}, "has checksums"),
        ({32: b"\1\0\0\0"}, "page 2 does not exist"),
        ({72: b"\xff\xff\xff\xff"}, "page 3 is used twice"),
        ({96: b"\0\0\0\0"}, "page 0 does not exist"),
        ({100: b"\0\0\0\0"}, "page 1 is used twice"),
        ({100: b"\xff\xff\xff\xff"}, "page 4294967296 does not exist"),
    ],
)
def test_an_invalid_first_page_is_refused(meta: dict[int, bytes], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        found(made(keyed(ENTRIES), meta=meta))


# Page 1 has the keys 1 and 3, page 2 has 2 and 4, whose values lie on pages 3 to 5 and 6 to 14.
@pytest.mark.parametrize(
    ("page", "place", "form", "number", "told"),
    [
        (1, 8, "<I", 9, "page 1 has another number or type"),
        (1, 25, "B", 7, "page 1 has another number or type"),
        (1, 16, "<I", 1, "page 1 is used twice"),
        (1, 16, "<I", 3, "page 3 has another number or type"),
        (1, 16, "<I", 99, "page 99 does not exist"),
        (1, 20, "<H", 3, "page 1 has 3 items"),
        (1, 20, "<H", 400, "page 1 has 400 items"),
        (1, 20, "<H", 244, "page 1 has 244 items"),
        (1, 26, "<H", 600, "page 1 has items"),
        (1, 28, "<H", 20, "page 1 has items"),
        (1, 28, "<H", 507, "page 1 has items"),
        (1, 507, "B", 3, "a key is not a package number"),
        (1, 501, "B", 2, "an item has type 2 and 6 bytes"),
        (1, 501, "B", 3, "an item has type 3 and 6 bytes"),
        (2, 499, "<I", 0, "page 0 does not exist"),
        (2, 499, "<I", 2, "page 2 is used twice"),
        (2, 499, "<I", 4, "page 0 does not exist"),
        (2, 503, "<I", 1199, "the length of a header is wrong"),
        (2, 503, "<I", 1 << 31, "a header of more than"),
        (2, 503, "<I", 1201, "page 0 does not exist"),
        (3, 16, "<I", 3, "page 3 is used twice"),
        (4, 16, "<I", 3, "page 3 is used twice"),
        (4, 22, "<H", 487, "page 4 states more data than fits"),
        (4, 22, "<H", 0, "page 0 does not exist"),
        (5, 16, "<I", 6, "the length of a header is wrong"),
        (5, 25, "B", 13, "page 5 has another number or type"),
    ],
)
def test_a_damaged_page_is_refused(
    page: int, place: int, form: str, number: int, told: str
) -> None:
    data = made(keyed(ENTRIES))
    struct.pack_into(form, data, page * 512 + place, number)
    with pytest.raises(InvalidRequest, match=told):
        found(data)


def test_a_page_of_zeros_is_an_empty_bucket() -> None:
    data = made(keyed(ENTRIES))
    data[512:1024] = bytes(512)
    assert found(data) == values([ENTRIES[1], ENTRIES[3]])
    data[512 + 100] = 1
    with pytest.raises(InvalidRequest, match="page 1 has another number or type"):
        found(data)


def test_a_page_of_zeros_within_a_chain_is_refused() -> None:
    data = made(keyed(ENTRIES * 20))
    following = struct.unpack_from("<I", data, 512 + 16)[0]
    assert following
    for page in (following, 3):
        damaged = bytearray(data)
        damaged[page * 512 : (page + 1) * 512] = bytes(512)
        with pytest.raises(InvalidRequest, match=f"page {page} has another number or type"):
            found(damaged)


def test_two_values_on_the_same_pages_are_refused() -> None:
    data = made(keyed(ENTRIES))
    struct.pack_into("<II", data, 2 * 512 + 482, 3, 1200)
    with pytest.raises(InvalidRequest, match="page 3 is used twice"):
        found(data)


def test_a_key_that_is_not_a_number_is_refused() -> None:
    for key in (b"", b"abc", b"abcde", b"k" * 600):
        with pytest.raises(InvalidRequest, match="a key is not a package number"):
            found(made([(key, b"v")]))


def test_a_file_that_ends_early_is_refused() -> None:
    data = made(keyed(ENTRIES))
    for end in range(0, len(data), 100):
        with pytest.raises(InvalidRequest, match=r"^it is (damaged: |no database)"):
            found(data[:end])


@pytest.mark.parametrize("limit", LIMITS)
def test_more_than_the_limit_is_refused(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpm_bdb, limit, 3)
    with pytest.raises(InvalidRequest, match=LIMITS[limit]):
        found(made(keyed(ENTRIES)))
