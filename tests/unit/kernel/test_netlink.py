"""The wire format of rtnetlink: requests, and truncated answers."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.kernel import netlink, rtnetlink


def test_an_attribute_is_padded_but_its_length_is_not() -> None:
    assert netlink.attribute(3, b"lo\0") == b"\x07\0\x03\0lo\0\0"
    assert netlink.attribute(4, struct.pack("=I", 1500))[:4] == b"\x08\0\x04\0"


def test_a_nested_attribute_carries_its_flag() -> None:
    assert netlink.nest(18, netlink.attribute(1, b"veth\0"))[2:4] == b"\x12\x80"


@pytest.mark.parametrize("name", ["", "sixteen_letters_", "a/b", "a\0b"])
def test_a_name_that_no_interface_can_have_is_refused(name: str) -> None:
    with pytest.raises(OSError, match="not an interface name"):
        rtnetlink.delete_link(name)


@pytest.mark.parametrize("mac", ["", "02:42", "02:42:ac:11:00:0g", "02:42:ac:11:00:02:03", "x"])
def test_a_malformed_mac_is_refused(mac: str) -> None:
    with pytest.raises(ValueError):
        rtnetlink.mac_bytes(mac)


def test_a_request_has_its_type_and_flags() -> None:
    assert rtnetlink.add_address(3, "172.30.0.2", 20).about == "add address 172.30.0.2/20"
    assert b"\xac\x1e\x0f\xff" in rtnetlink.add_address(3, "172.30.0.2", 20).body  # broadcast


def test_a_truncated_message_is_an_error() -> None:
    with pytest.raises(OSError, match="truncated"):
        list(netlink._messages(struct.pack("=IHHII", 400, 16, 0, 1, 0)))


@given(st.binary(max_size=200))
def test_any_bytes_end_as_attributes(data: bytes) -> None:
    for payload in netlink.attributes(data).values():
        assert len(payload) <= len(data)


def test_the_own_namespace_is_readable_without_privileges() -> None:
    with rtnetlink.Rtnetlink() as own:
        links = own.links()
        own.addresses()
        own.routes()
        assert any(link.name == "lo" for link in links)
        lo = own.link("lo")
        assert lo is not None
        assert lo.index == 1
        assert own.link("jlt-none") is None
