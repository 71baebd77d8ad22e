"""Which routes and interfaces of a pod are those of the CNI plugins."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from jaula.features.verify.checks.pod_network import _is_inner, _wrong_end, expected_route
from jaula.kernel.rtnetlink import Link, Route

NETWORK: dict[str, Any] = {
    "Gateways": ["10.1.0.1", "fd00::1"],
    "Destinations": ["0.0.0.0/0", "192.168.0.0/16"],
}
REPORTED = ["10.1.0.5/24", "fd00::5/64"]


def route(destination: str, gateway: str = "", table: int = 254) -> Route:
    family = socket.AF_INET6 if ":" in destination + gateway else socket.AF_INET
    address, _, prefix = destination.partition("/")
    return Route(family, address, int(prefix or 0), gateway, 2, table)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (route("", "10.1.0.1"), True),
        (route("", "fd00::1"), True),
        (route("", "169.254.1.1"), True),  # a gateway on the link of the plugin
        (route("", "fe80::1"), True),
        (route(""), True),
        (route("", "10.1.0.77"), False),
        (route("10.1.0.0/24"), True),
        (route("fd00::/64"), True),
        (route("10.1.0.1/32"), True),  # to the gateway itself
        (route("192.168.0.0/16", "10.1.0.1"), True),
        (route("203.0.113.0/24", "10.1.0.1"), False),
        (route("10.0.0.0/8"), False),
        (route("fe80::/64"), True),
        (route("ff00::/8"), True),
        (route("10.1.0.5/32", table=255), True),
    ],
)
def test_a_route_is_expected_if_a_plugin_reported_it(given: Route, expected: bool) -> None:
    assert expected_route(given, REPORTED, NETWORK) is expected


def link(index: int, name: str, kind: str, *, parent: int = 0, master: int = 0) -> Link:
    return Link(index, name, 1, "", 1500, master, parent, kind, 6)


def test_a_virtual_link_leads_nowhere_and_a_veth_only_within() -> None:
    one, two = link(5, "a", "veth", parent=6), link(6, "b", "veth", parent=5)
    assert _is_inner(link(3, "x", "bridge"), [])
    assert _is_inner(one, [one, two])
    assert not _is_inner(one, [one])
    for kind in ("macvlan", "ipvlan", ""):
        assert not _is_inner(link(3, "x", kind), [])


@pytest.mark.parametrize(
    ("outer", "wrong"),
    [
        ([link(9, "veth0", "veth", parent=2, master=4), link(4, "cni0", "bridge")], ""),
        ([link(9, "other", "veth", parent=2, master=4)], "the other end of eth0 is not"),
        ([link(9, "veth0", "veth", parent=3, master=4)], "the other end of eth0 is not"),
        ([], "the other end of eth0 is not"),
        ([link(9, "veth0", "veth", parent=2), link(4, "cni0", "bridge")], "on the bridge none"),
        (
            [link(9, "veth0", "veth", parent=2, master=5), link(4, "cni0", "bridge"),
             link(5, "docker0", "bridge")],
            "on the bridge docker0, not cni0",
        ),
    ],
)  # fmt: skip
def test_the_end_on_the_host_is_the_one_that_was_reported(outer: list[Link], wrong: str) -> None:
    inner = link(2, "eth0", "veth", parent=9)
    texts = list(_wrong_end(inner, {each.index: each for each in outer}, ["cni0", "veth0"]))
    assert (wrong in texts[0]) if wrong else not texts
