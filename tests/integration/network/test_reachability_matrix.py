"""Reachability: one table for every kind of network, both families, and after a flush.

A place is a container (``a1``), the host, the machine outside, or a port that the host publishes
for a container at one of the host's addresses (``b1@host``, ``b1@loopback``, ``b1@gateway``: the
gateway of the sender's network).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from jaula.kernel.netlink import in_netns
from jaula.kernel.poll import readable
from jaula.kernel.rtnetlink import Rtnetlink, add_default_route
from jaula.network import PortRequest
from jaula.network.network_config import check_pools
from jaula.spec.network_record import Pool

from .conftest import (
    BRIEF,
    HOST_OUTER,
    HOST_OUTER6,
    OUTSIDE,
    OUTSIDE6,
    Box,
    Topology,
    connected,
    join,
    listen,
    network,
    run_nft,
    talks,
)

PORT = 8000
PUBLISHED = {"a1": 18001, "b1": 18002}

YES, NO = (True, True), (False, False)
ONLY_4 = (True, False)

MATRIX: dict[str, dict[str, tuple[bool, bool]]] = {
    # to each place: by IPv4, by IPv6
    "a1": {
        "a2": YES,
        "b1": NO,
        "bridge1": NO,
        "inner1": NO,
        "wire1": NO,
        "host": YES,
        "outside": YES,
        "b1@host": YES,
        "b1@gateway": YES,
        "a1@host": YES,
    },
    "bridge1": {
        "bridge2": ONLY_4,
        "a1": NO,
        "inner1": NO,
        "host": ONLY_4,
        "outside": ONLY_4,
        "b1@host": ONLY_4,
    },
    "inner1": {
        "inner2": YES,
        "a1": NO,
        "bridge1": NO,
        "wire1": NO,
        "host": NO,
        "outside": NO,
        "b1@host": NO,
        "b1@gateway": NO,
    },
    "wire1": {
        "wire2": YES,
        "outside": YES,
        "host": NO,
        "a1": NO,
        "inner1": NO,
        "b1@host": NO,
    },
    "host": {
        "a1": YES,
        "bridge1": ONLY_4,
        "inner1": YES,
        "wire1": NO,
        "outside": YES,
        "b1@host": YES,
        "b1@loopback": ONLY_4,
    },
    "outside": {
        "host": YES,
        "a1": NO,
        "bridge1": NO,
        "inner1": NO,
        "wire1": YES,
        "b1@host": YES,
        "a1@host": YES,
    },
}


Row = tuple[str, str, int]
"""Source, place, and family: 0 for IPv4, 1 for IPv6."""

ANY = ("0.0.0.0", "::")
"""The address of a server, for each family."""


def name(place: str) -> str:
    """Return the container or machine that serves a place."""
    return place.partition("@")[0]


@dataclass
class Town:
    """Two containers on each kind of network, the host, and a machine outside."""

    topology: Topology
    boxes: dict[str, Box]
    gateways: dict[str, tuple[str, str]]

    def netns(self, place: str) -> int:
        if place == "outside":
            return self.topology.outside
        return self.topology.host if place == "host" else self.boxes[place].net

    def addresses(self, source: str, place: str) -> tuple[str, str]:
        """Return the IPv4 and IPv6 address; '' for none."""
        if place == "outside":
            return OUTSIDE, OUTSIDE6
        if place in ("host", "loopback", "gateway"):
            return {
                "host": (HOST_OUTER, HOST_OUTER6),
                "loopback": ("127.0.0.1", "::1"),
                "gateway": self.gateways.get(source[:-1], ("", "")),
            }[place]
        endpoint = self.boxes[place].endpoint
        return endpoint.ipv4, endpoint.ipv6

    def target(self, source: str, place: str, family: int) -> tuple[str, int]:
        """Return address and port of a place; the address is '' if the place has none."""
        where = place.partition("@")[2]
        address = self.addresses(source, where or place)[family]
        return address, PUBLISHED[name(place)] if where else PORT

    def reaches(self, source: str, place: str, family: int, *, wanted: bool) -> bool:
        address, port = self.target(source, place, family)
        if not address:
            return False
        tries = (
            3 if wanted else 1
        )  # the first packets on a busy machine may wait for neighbour discovery
        with listen(self.netns(name(place)), ANY[family], PORT) as server:
            return any(
                talks(self.netns(source), (address, port), server, timeout=0.4) is not None
                for _ in range(tries)
            )

    def reached(self, rows: list[Row]) -> set[Row]:
        """Return the rows whose place is reached, of rows whose place must not be.

        The attempts are made at once, since each lasts until its time-out.
        """
        attempts = {row: (self.netns(row[0]), self.target(*row)) for row in rows}
        with ExitStack() as stack:
            for server, family in {(name(place), family) for _, place, family in rows}:
                stack.enter_context(listen(self.netns(server), ANY[family], PORT))
            return connected({row: to for row, to in attempts.items() if to[1][0]}, timeout=BRIEF)

    def leave(self, source: str) -> None:
        """Add routes by the gateway in a container of an internal network: they must not help."""
        for gateway in self.gateways[source[:-1]]:
            with Rtnetlink(self.netns(source)) as inside:
                inside.send(add_default_route(gateway))


@pytest.fixture
def town(topology: Topology) -> Town:
    wire = check_pools(
        [
            Pool("198.51.100.0/24", OUTSIDE, "198.51.100.64/26"),
            Pool("2001:db8::/64", OUTSIDE6, "2001:db8::4000/116"),
        ],
        [],
        ipv6=True,
    )
    boxes, gateways = {}, {}
    with in_netns(topology.host):
        topology.manager.watch()
        topology.manager.define(network("a", ipv6=True))
        topology.manager.define(network("b", ipv6=True))
        made = topology.manager.define(network("inner", ipv6=True, internal=True))
        topology.manager.define(
            network("wire", bridge="", driver="macvlan", parent="up0", mode="bridge", ipv6=True,
                    pools=wire)
        )  # fmt: skip
    for kind in ("a", "b", "bridge", "inner", "wire"):
        boxes[f"{kind}1"], boxes[f"{kind}2"] = join(topology, kind), join(topology, kind)
        endpoint = boxes[f"{kind}1"].endpoint
        gateways[kind] = endpoint.gateway, endpoint.gateway6
    assert made.ipv4_pool is not None
    assert made.ipv6_pool is not None
    gateways["inner"] = made.ipv4_pool.gateway, made.ipv6_pool.gateway
    with in_netns(topology.host):
        for published, port in PUBLISHED.items():
            request = PortRequest(PORT, host_port=port)
            topology.manager.publish(boxes[published].endpoint, [request])
    result = Town(topology, boxes, gateways)
    result.leave("inner1")
    return result


def wrong(town: Town) -> list[str]:
    """Return the rows of the table that do not hold."""
    expected = {
        (source, place, family): reached[family]
        for source, places in MATRIX.items()
        for place, reached in places.items()
        for family in (0, 1)
    }
    refused = town.reached([row for row, reached in expected.items() if not reached])
    return [
        f"{source} -> {place}, IPv{(4, 6)[family]}: {'not ' if reached else ''}reached"
        for (source, place, family), reached in expected.items()
        if (
            not town.reaches(source, place, family, wanted=True)
            if reached
            else (source, place, family) in refused
        )
    ]


def test_the_whole_table_before_and_after_the_firewall_was_flushed(town: Town) -> None:
    assert wrong(town) == []
    run_nft(town.topology.host, "flush", "ruleset")
    with in_netns(town.topology.host):
        watch = town.topology.manager.watch()
        assert readable(5, watch), "the engine is told"
        assert town.topology.manager.repair()
    assert wrong(town) == []


def test_without_rules_containers_reach_each_other(town: Town) -> None:
    """The refusals above are caused by the rules."""
    run_nft(town.topology.host, "flush", "ruleset")
    assert town.reaches("a1", "b1", 0, wanted=True)
    assert town.reaches("a1", "b1", 1, wanted=True)
    assert town.reaches("outside", "a1", 0, wanted=True)
    assert town.reaches("outside", "a1", 1, wanted=True)
    assert not town.reaches("outside", "b1@host", 0, wanted=False)
