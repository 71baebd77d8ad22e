"""The text of /etc/hosts, /etc/resolv.conf and /etc/hostname, and the lines of legacy links."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.network.etc_files import (
    FALLBACK_SERVERS,
    hostname,
    hosts,
    link_line,
    parse_extra_host,
    remove_link_line,
    resolv_conf,
    set_link_address,
)


def test_hosts_names_localhost_extra_hosts_and_the_container() -> None:
    text = hosts(
        "web",
        domain="example.org",
        address="172.30.0.2",
        extra=["db:10.0.0.7", "six=[fd00::7]", "up:host-gateway"],
        linked=["172.30.0.9\tstore host\n"],
        gateway="172.30.0.1",
    )
    lines = text.splitlines()
    assert lines[0] == "127.0.0.1\tlocalhost"
    assert lines[-5:] == [
        "10.0.0.7\tdb",
        "fd00::7\tsix",
        "172.30.0.1\tup",
        "172.30.0.9\tstore host",
        "172.30.0.2\tweb.example.org web",
    ]


@pytest.mark.parametrize(
    "entry",
    ["", "db", "db:", ":10.0.0.1", "db:10.0.0.999", "db:x", "a b:10.0.0.1", "a\n:10.0.0.1",
     "db:10.0.0.1\n1.1.1.1 evil", "-x:10.0.0.1", "db:fe80::1%eth0", "é:10.0.0.1"],
)  # fmt: skip
def test_a_malformed_extra_host_is_refused(entry: str) -> None:
    with pytest.raises(InvalidRequest, match="add-host"):
        parse_extra_host(entry)


def test_host_gateway_needs_a_gateway() -> None:
    with pytest.raises(InvalidRequest, match="host-gateway"):
        hosts("web", extra=["up:host-gateway"])


HOST = """# made by something
nameserver 127.0.0.53
nameserver 192.0.2.1 # first
nameserver fd00::1
search example.org lan ; comment
options edns0 trust-ad
"""


def test_the_hosts_servers_are_used_except_those_on_loopback() -> None:
    assert resolv_conf(HOST) == (
        "nameserver 192.0.2.1\nsearch example.org lan\noptions edns0 trust-ad\n"
    )


def test_user_settings_replace_the_hosts() -> None:
    made = resolv_conf(HOST, dns=["10.0.0.1", "fd00::9"], search=["corp"], options=["ndots:2"])
    assert made == "nameserver 10.0.0.1\nnameserver fd00::9\nsearch corp\noptions ndots:2\n"


def test_a_single_dot_means_no_search_list() -> None:
    assert "search" not in resolv_conf(HOST, search=["."])


@pytest.mark.parametrize("text", ["", "nameserver 127.0.0.1\n", "nameserver\nnameserver x\n"])
def test_public_servers_are_the_fallback(text: str) -> None:
    assert resolv_conf(text) == "".join(f"nameserver {a}\n" for a in FALLBACK_SERVERS)


@pytest.mark.parametrize("word", ["", "a b", "a\nnameserver 1.1.1.1", "\t", "a\x00"])
def test_a_word_that_would_start_a_new_line_is_refused(word: str) -> None:
    with pytest.raises(InvalidRequest):
        resolv_conf("", search=[word])
    with pytest.raises(InvalidRequest):
        resolv_conf("", options=[word])
    with pytest.raises(InvalidRequest):
        resolv_conf("", dns=[word])
    with pytest.raises(InvalidRequest):
        hostname(word)


@given(st.text())
def test_any_host_text_results_in_valid_lines(text: str) -> None:
    for line in resolv_conf(text).splitlines():
        assert line.split()[0] in ("nameserver", "search", "options")


NAMES = ("db", "0462e88d4a0c")
LINE = b"10.0.0.2\tdb 0462e88d4a0c store\n"
FILE = b"127.0.0.1\tlocalhost\n" + LINE + b"10.0.0.3\tme\n"


def test_a_link_line_has_alias_host_name_and_name() -> None:
    assert link_line("10.0.0.2", *NAMES, "store").encode() == LINE
    assert link_line("10.0.0.2", "store", "host", "store") == "10.0.0.2\tstore host\n"


@pytest.mark.parametrize("alias", ["", "a b", "a\tb", "a\n1.2.3.4 b", "-a", "ä"])
def test_an_alias_that_is_invalid_in_a_hosts_file_is_refused(alias: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid alias in link"):
        link_line("10.0.0.2", alias, "host", "store")


def test_only_the_address_of_the_link_line_changes() -> None:
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
def test_lines_that_the_container_added_stay(other: bytes) -> None:
    assert set_link_address(other, NAMES, "10.0.0.77") == other
    assert remove_link_line(other + FILE + other, NAMES) == other + FILE.replace(LINE, b"") + other


def test_only_the_first_of_two_link_lines_changes() -> None:
    assert remove_link_line(LINE + LINE, NAMES) == LINE
    assert set_link_address(LINE + LINE, NAMES, "1.1.1.1") == b"1.1.1.1" + LINE[8:] + LINE


def test_a_missing_final_newline_stays_missing() -> None:
    assert set_link_address(LINE[:-1], NAMES, "1.1.1.1") == b"1.1.1.1" + LINE[8:-1]
    assert remove_link_line(b"a\n" + LINE[:-1], NAMES) == b"a\n"


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_other_content_of_the_file_is_preserved(before: bytes, after: bytes) -> None:
    before += b"\n"
    if b"db" in before:
        return
    text = before + LINE + after
    assert remove_link_line(text, NAMES) == before + after
    assert set_link_address(text, NAMES, "10.0.0.77") == before + b"10.0.0.77" + LINE[8:] + after


@given(
    st.lists(st.sampled_from([b"db", b"\t", b"\n", b"\r", b" ", b"0462e88d4a0c", b"\xff", b"#"]))
)
def test_any_file_content_is_accepted(parts: list[bytes]) -> None:
    text = b"".join(parts)
    assert len(remove_link_line(text, NAMES)) <= len(text)
    assert remove_link_line(set_link_address(text, NAMES, "1.1.1.1"), NAMES) == remove_link_line(
        text, NAMES
    )
