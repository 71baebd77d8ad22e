"""Results of every version of the protocol are one value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.features.kubernetes.cni import cni_version
from jaula.features.kubernetes.cni.cni_result import DNS, Interface, IPConfig, Result, Route, decode

FULL = Result(
    interfaces=(
        Interface(name="cni0", mac="02:00:00:00:00:01"),
        Interface(name="eth0", mac="02:00:00:00:00:02", mtu=1400, sandbox="/proc/7/ns/net"),
    ),
    ips=(
        IPConfig(address="10.1.0.5/16", gateway="10.1.0.1", interface=1),
        IPConfig(address="fd00::5/64", gateway="fd00::1", interface=1),
    ),
    routes=(Route(dst="0.0.0.0/0", gw="10.1.0.1", mtu=1300, table=0), Route(dst="::/0")),
    dns=DNS(nameservers=("10.1.0.1",), domain="a", search=("b",), options=("c",)),
)


@pytest.mark.parametrize("name", ["1.0.0", "1.1.0"])
def test_a_result_is_encoded_and_decoded_without_a_loss(name: str) -> None:
    assert decode(FULL.encode(name), "0.1.0") == FULL


@pytest.mark.parametrize("name", ["0.3.0", "0.3.1", "0.4.0"])
def test_addresses_had_a_family(name: str) -> None:
    document = json.loads(FULL.encode(name))
    assert [ip["version"] for ip in document["ips"]] == ["4", "6"]
    assert "mtu" not in document["interfaces"][1]
    assert document["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "::/0"}]
    assert decode(FULL.encode(name), name).ips == FULL.ips


@pytest.mark.parametrize("name", ["0.1.0", "0.2.0"])
def test_results_had_one_address_of_each_family(name: str) -> None:
    document = json.loads(FULL.encode(name))
    assert document["ip4"] == {
        "ip": "10.1.0.5/16",
        "gateway": "10.1.0.1",
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
    }
    assert document["ip6"]["ip"] == "fd00::5/64"
    result = decode(FULL.encode(name), name)
    assert result.addresses("eth0") == ("10.1.0.5", "fd00::5")
    assert result.dns == FULL.dns
    assert json.loads(Result().encode(name)) == {"cniVersion": name}


def test_addresses_of_other_interfaces_are_not_the_pods() -> None:
    assert FULL.addresses("eth0") == ("10.1.0.5", "fd00::5")
    assert FULL.addresses("cni0") == ()
    assert Result(ips=(IPConfig(address="10.0.0.1/8"),)).addresses("eth0") == ("10.0.0.1",)


def test_the_version_of_the_request_is_the_default() -> None:
    data = b'{"ip4": {"ip": "10.0.0.1/8"}, "dns": null}'
    assert decode(data, "0.2.0").ips == (IPConfig(address="10.0.0.1/8"),)
    assert decode(b'{"cniVersion": "", "ips": [{"address": "10.0.0.1/8"}]}', "1.0.0").ips
    assert decode(b"null", "1.0.0") == Result()
    assert decode(b"{}\n", "1.0.0") == Result()


def test_null_and_unknown_members_are_dropped() -> None:
    data = b"""{"cniVersion": "0.3.1", "interfaces": null, "private": 1, "dns": {},
        "ips": [{"version": "4", "address": "10.0.0.1/8", "gateway": null, "interface": -1}]}"""
    assert decode(data, "0.3.1") == Result(ips=(IPConfig(address="10.0.0.1/8"),))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a result"),
        (b"done", "not a result"),
        (b"{}{}", "trailing"),
        (b"[]", "not a JSON object"),
        (b'{"cniVersion": "7.0.0"}', "unknown cniVersion '7.0.0'"),
        (b'{"cniVersion": 1}', "Expected `str`"),
        (b'{"ips": {}}', "Expected `array`"),
        (b'{"ips": [{}]}', "address"),
        (b'{"ips": [{"address": "10.0.0.1"}]}', "ADDRESS/PREFIX"),
        (b'{"ips": [{"address": "10.0.0.1/255.0.0.0"}]}', "ADDRESS/PREFIX"),
        (b'{"ips": [{"address": "fe80::1%eth0/64"}]}', "ADDRESS/PREFIX"),
        (b'{"ips": [{"address": "10.0.0.1/8", "gateway": "x"}]}', "gateway 'x'"),
        (b'{"ips": [{"address": "10.0.0.1/8", "interface": 0}]}', "the result has 0 interfaces"),
        (b'{"routes": [{"dst": "default"}]}', "destination 'default'"),
        (b"[" * 100_000, "recursion"),
        (b'{"\xff": 1}', "can't decode byte 0xff"),
        (b'{"ips": [{"address": "\xff"}]}', "can't decode byte 0xff"),
    ],
)
def test_a_malformed_result_is_one_error(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        decode(data, "1.0.0")


@given(st.binary(max_size=100), st.sampled_from(cni_version.SUPPORTED))
def test_any_bytes_are_a_result_or_one_error(data: bytes, name: str) -> None:
    try:
        decode(data, name)
    except InvalidRequest:
        return


_VALUES: Any = st.none() | st.integers() | st.text(max_size=4) | st.just("10.0.0.1/8")
_ROWS = st.lists(
    st.dictionaries(st.sampled_from(["address", "interface", "name", "dst", "gw"]), _VALUES),
    max_size=3,
)


@given(
    st.dictionaries(st.sampled_from(["interfaces", "ips", "routes", "ip4"]), _ROWS | _VALUES),
    st.sampled_from(cni_version.SUPPORTED),
)
def test_a_decoded_result_can_be_encoded_in_every_version(document: Any, name: str) -> None:
    try:
        result = decode(json.dumps(document).encode(), name)
    except InvalidRequest:
        return
    for other in cni_version.SUPPORTED:
        decode(result.encode(other), other).addresses("eth0")
