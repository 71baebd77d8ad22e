"""The line of a link in a hosts file that a container may have written to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.network.etc_hosts import link_line, remove_link_line, set_link_address

NAMES = ("db", "0462e88d4a0c")
LINE = b"10.0.0.2\tdb 0462e88d4a0c store\n"
FILE = b"127.0.0.1\tlocalhost\n" + LINE + b"10.0.0.3\tme\n"


def test_a_line_has_the_alias_the_host_name_and_the_name() -> None:
    assert link_line("10.0.0.2", *NAMES, "store").encode() == LINE
    assert link_line("10.0.0.2", "store", "host", "store") == "10.0.0.2\tstore host\n"


@pytest.mark.parametrize("alias", ["", "a b", "a\tb", "a\n1.2.3.4 b", "-a", "ä"])
def test_an_alias_that_could_not_stand_there_is_refused(alias: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid alias in link"):
        link_line("10.0.0.2", alias, "host", "store")


def test_only_the_address_of_the_links_line_changes() -> None:
    assert set_link_address(FILE, NAMES, "10.0.0.77") == FILE.replace(b"10.0.0.2\t", b"10.0.0.77\t")
    assert remove_link_line(FILE, NAMES) == FILE.replace(LINE, b"")


@pytest.mark.parametrize(
    "other",
    [
        b"10.0.0.9\tdb\n",
        b"10.0.0.9\tdb.example 0462e88d4a0c\n",
        b"10.0.0.9 db 0462e88d4a0c\n",
        b"10.0.0.9\tmine db 0462e88d4a0c\n",
        b"#\xff\x00\r\n",
        b"",
    ],
)
def test_lines_of_the_containers_own_stay(other: bytes) -> None:
    assert set_link_address(other, NAMES, "10.0.0.77") == other
    assert remove_link_line(other + FILE + other, NAMES) == other + FILE.replace(LINE, b"") + other


def test_of_two_such_lines_the_first_is_the_links() -> None:
    assert remove_link_line(LINE + LINE, NAMES) == LINE
    assert set_link_address(LINE + LINE, NAMES, "1.1.1.1") == b"1.1.1.1" + LINE[8:] + LINE


def test_a_line_without_an_end_has_none_afterwards() -> None:
    assert set_link_address(LINE[:-1], NAMES, "1.1.1.1") == b"1.1.1.1" + LINE[8:-1]
    assert remove_link_line(b"a\n" + LINE[:-1], NAMES) == b"a\n"


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_whatever_a_container_wrote_around_it_stays(before: bytes, after: bytes) -> None:
    before += b"\n"
    if b"db" in before:
        return
    text = before + LINE + after
    assert remove_link_line(text, NAMES) == before + after
    assert set_link_address(text, NAMES, "10.0.0.77") == before + b"10.0.0.77" + LINE[8:] + after


@given(
    st.lists(st.sampled_from([b"db", b"\t", b"\n", b"\r", b" ", b"0462e88d4a0c", b"\xff", b"#"]))
)
def test_any_file_can_be_read(parts: list[bytes]) -> None:
    text = b"".join(parts)
    assert len(remove_link_line(text, NAMES)) <= len(text)
    assert remove_link_line(set_link_address(text, NAMES, "1.1.1.1"), NAMES) == remove_link_line(
        text, NAMES
    )
