"""Reachability between networks, the host and a machine outside, by TCP."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from jaula.errors import Conflict, InvalidRequest, JaulaError, NotAuthorized
from jaula.kernel.netlink import in_netns
from jaula.kernel.rtnetlink import (
    Rtnetlink,
    add_address,
    add_default_device_route,
    add_default_route,
)
from jaula.network import PortRequest
from jaula.network.firewall import bridge_rules
from jaula.network.network_config import check_pools
from jaula.spec.network_record import Pool

from .conftest import (
    BRIEF,
    HOST_OUTER,
    OUTSIDE,
    Box,
    Topology,
    client,
    connected,
    join,
    listen,
    network,
    run_nft,
    talks,
)

PORT = 8000


@dataclass
class Town:
    """Two containers on each kind of network, each kind in its own network."""

    topology: Topology
    boxes: dict[str, Box]

    def address(self, place: str) -> str:
        if place == "outside":
            return OUTSIDE
        return HOST_OUTER if place == "host" else self.boxes[place].address

    def netns(self, place: str) -> int:
        if place == "outside":
            return self.topology.outside
        return self.topology.host if place == "host" else self.boxes[place].net


@pytest.fixture
def town(topology: Topology) -> Town:
    kinds = {"a": {}, "b": {}, "inner": {"internal": True}, "apart": {"icc": False}}
    kinds["bare"] = {"masquerade": False}
    boxes = {}
    with in_netns(topology.host):
        for kind, options in kinds.items():
            topology.manager.define(network(kind, **options))
    for kind in (*kinds, "bridge"):
        boxes[f"{kind}1"], boxes[f"{kind}2"] = join(topology, kind), join(topology, kind)
    return Town(topology, boxes)


YES, NO = True, False
REACH = [
    ("a1", "a2", YES),  # the same network
    ("a1", "b1", NO),  # another network
    ("a1", "bridge1", NO),
    ("bridge1", "a1", NO),
    ("bridge1", "bridge2", YES),
    ("a1", "outside", YES),
    ("b1", "outside", YES),
    ("a1", "host", YES),
    ("host", "a1", YES),
    ("outside", "a1", NO),
    ("inner1", "inner2", YES),
    ("inner1", "outside", NO),
    ("inner1", "host", NO),
    ("inner1", "a1", NO),
    ("a1", "inner1", NO),
    ("host", "inner1", YES),
    ("outside", "inner1", NO),
    ("apart1", "apart2", NO),
    ("apart1", "outside", YES),
    ("apart1", "a1", NO),
    ("bare1", "bare2", YES),
    ("bare1", "outside", YES),  # with its own address: the machine outside has a route back
    ("outside", "bare1", NO),
]


def test_reachability_between_networks(town: Town) -> None:
    gateway = town.boxes["inner1"].address.rpartition(".")[0] + ".1"
    with Rtnetlink(town.netns("inner1")) as inside:  # its root can add routes: that must not help
        inside.send(add_default_route(gateway))
    refused = [(source, target) for source, target, reached in REACH if not reached]
    with ExitStack() as stack:
        for target in {target for _, target in refused}:
            stack.enter_context(listen(town.netns(target), "0.0.0.0", PORT))
        wrong = connected(
            {(s, t): (town.netns(s), (town.address(t), PORT)) for s, t in refused}
        )  # at once, since each lasts until its time-out
    assert wrong == set()
    for source, target, reached in REACH:
        if not reached:
            continue
        with listen(town.netns(target), "0.0.0.0", PORT) as server:
            seen = talks(town.netns(source), (town.address(target), PORT), server)
        assert seen is not None, (source, target)
        if target == "outside":
            own = town.address(source)
            assert seen == (own if source.startswith("bare") else HOST_OUTER)


def test_a_published_port_is_reached_by_all_but_internal_networks(town: Town) -> None:
    box = town.boxes["a1"]
    with in_netns(town.topology.host):
        town.topology.manager.publish(box.endpoint, [PortRequest(PORT, host_port=18080)])
    with listen(box.net, "0.0.0.0", PORT) as server:
        for source in ("outside", "host", "a2", "b1", "bridge1"):
            seen = talks(town.netns(source), (HOST_OUTER, 18080), server)
            assert seen is not None, source
        assert talks(town.netns("inner1"), (HOST_OUTER, 18080), server, timeout=BRIEF) is None


def test_an_internal_network_reaches_no_other_through_the_gateway_address(town: Town) -> None:
    box = town.boxes["a1"]
    with in_netns(town.topology.host):
        town.topology.manager.publish(box.endpoint, [PortRequest(PORT, host_port=18081)])
        gateway = str(town.topology.manager.ensure("inner").gateway)
    with listen(box.net, "0.0.0.0", PORT) as server:
        assert talks(town.netns("inner1"), (gateway, 18081), server, timeout=BRIEF) is None
    with listen(town.topology.host, gateway, 18082) as server:
        assert talks(town.netns("inner1"), (gateway, 18082), server) is not None


def test_published_ports_without_icc_are_reachable_from_other_networks(
    town: Town,
) -> None:
    box = town.boxes["apart1"]
    with in_netns(town.topology.host):
        town.topology.manager.publish(box.endpoint, [PortRequest(PORT, host_port=18083)])
    with listen(box.net, "0.0.0.0", PORT) as server:
        assert talks(town.netns("a1"), (HOST_OUTER, 18083), server) is not None
        assert talks(town.netns("outside"), (HOST_OUTER, 18083), server) is not None
        assert talks(town.netns("apart2"), (HOST_OUTER, 18083), server, timeout=BRIEF) is None


def test_a_container_in_two_networks_is_reachable_in_both_and_does_not_route(
    town: Town,
) -> None:
    middle = town.boxes["a1"]
    with in_netns(town.topology.host):
        second = town.topology.manager.attach(
            "b", middle.id, middle.net, interface="eth1", default_route=False
        )
    with listen(middle.net, "0.0.0.0", PORT) as server:
        assert talks(town.netns("b1"), (second.ipv4, PORT), server) is not None
        assert talks(town.netns("a2"), (middle.address, PORT), server) is not None
    with listen(town.netns("b1"), "0.0.0.0", PORT) as server:
        assert talks(middle.net, (town.address("b1"), PORT), server) == second.ipv4
        assert talks(town.netns("a2"), (town.address("b1"), PORT), server) is None
    with in_netns(town.topology.host):
        with pytest.raises(NotAuthorized, match="already exists in network b"):
            town.topology.manager.attach("b", middle.id, middle.net, interface="eth2")
        town.topology.manager.detach(second, delete_interface=True)
    with Rtnetlink(middle.net) as inside:
        assert [link.name for link in inside.links()] == ["lo", "eth0"]


def test_another_containers_address_cannot_be_spoofed(town: Town) -> None:
    thief, victim = town.boxes["a1"], town.boxes["a2"]
    with Rtnetlink(thief.net) as inside:
        link = inside.link("eth0")
        assert link is not None
        inside.send(add_address(link.index, victim.address, 32))
    with client(thief.net) as near, listen(town.topology.host, "0.0.0.0", PORT) as server:
        near.bind((victim.address, 0))
        server.settimeout(0.5)
        with pytest.raises(OSError, match=r"timed out|unreachable"):
            near.connect((str(town.topology.manager.ensure("a").gateway), PORT))


# -- IPv6 --------------------------------------------------------------------------------------


def talks6(source: int, target: str, server_ns: int) -> bool:
    with in_netns(server_ns):
        server = socket.create_server(("::", PORT), family=socket.AF_INET6)
    with in_netns(source):
        near = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    near.settimeout(3)
    with server, near:
        try:
            near.connect((target, PORT))
        except OSError:
            return False
    return True


def test_ipv6_reaches_the_same_network_and_nothing_else(topology: Topology) -> None:
    with in_netns(topology.host):
        made = [
            topology.manager.define(network(name, ipv6=True, internal=name == "in"))
            for name in ("six", "other", "in")
        ]
        topology.manager.define(network("four"))
    assert all(str(m.ipv6_pool.subnet).startswith("fd") for m in made if m.ipv6_pool)
    first, second = join(topology, "six"), join(topology, "six")
    other, inner, inner2, four = (join(topology, n) for n in ("other", "in", "in", "four"))
    assert first.endpoint.ipv6
    assert first.endpoint.gateway6
    assert not inner.endpoint.gateway6
    assert talks6(first.net, second.endpoint.ipv6, second.net)
    assert talks6(second.net, first.endpoint.ipv6, first.net)
    assert talks6(first.net, first.endpoint.gateway6, topology.host)
    assert talks6(topology.host, first.endpoint.ipv6, first.net)
    assert not talks6(first.net, other.endpoint.ipv6, other.net)
    assert not talks6(inner.net, first.endpoint.ipv6, first.net)
    assert not talks6(first.net, inner.endpoint.ipv6, inner.net)
    assert talks6(inner.net, inner2.endpoint.ipv6, inner2.net)
    with in_netns(four.net), open("/proc/sys/net/ipv6/conf/eth0/disable_ipv6") as file:
        assert file.read().strip() == "1"
    with in_netns(first.net), open("/proc/sys/net/ipv6/conf/eth0/accept_ra") as file:
        assert file.read().strip() == "0"


def test_ipv6_leaves_by_the_hosts_address(topology: Topology) -> None:
    with in_netns(topology.host):
        topology.manager.define(network("six", ipv6=True))
    box = join(topology, "six")
    with in_netns(topology.outside):
        server = socket.create_server(("::", PORT), family=socket.AF_INET6)
    with in_netns(box.net):
        near6 = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    near6.settimeout(2)
    with server, near6:
        near6.connect(("2001:db8::2", PORT))
        _, seen = server.accept()
    assert seen[0] == "2001:db8::1"


def test_a_network_without_ipv4_forwards_and_accepts_none(topology: Topology) -> None:
    with in_netns(topology.host):
        made = topology.manager.define(network("six", ipv4=False, ipv6=True))
    assert made.ipv4_pool is None
    first, second = join(topology, "six"), join(topology, "six")
    assert (first.endpoint.ipv4, first.endpoint.gateway) == ("", "")
    assert first.endpoint.mac != second.endpoint.mac
    assert talks6(first.net, second.endpoint.ipv6, second.net)
    assert talks6(topology.host, first.endpoint.ipv6, first.net)
    with Rtnetlink(first.net) as inside:
        link = inside.link("eth0")
        assert link is not None
        assert not [a for a in inside.addresses() if a.index == link.index and "." in a.address]
        # root of the container has CAP_NET_ADMIN in its namespace
        inside.send(
            add_address(link.index, "198.18.0.2", 24),
            add_default_device_route(link.index, socket.AF_INET),
        )
    with Rtnetlink(second.net) as inside:
        link = inside.link("eth0")
        assert link is not None
        inside.send(add_address(link.index, "198.18.0.3", 24))
    for target, netns in (("198.18.0.3", second.net), (HOST_OUTER, topology.host)):
        with listen(netns, "0.0.0.0", PORT) as server:
            assert not talks(first.net, (target, PORT), server)
    tables = run_nft(topology.host, "list", "tables")
    assert f"table ip {bridge_rules.table_name(made.bridge)}" in tables
    with in_netns(topology.host):
        assert [str(n) for n in topology.manager.address_usage("six")] == [
            made.ipv6_pool.subnet if made.ipv6_pool else ""
        ]
        topology.manager.detach(first.endpoint, delete_interface=True)
        topology.manager.detach(second.endpoint, delete_interface=True)
        topology.manager.undefine("six")
    assert made.bridge not in run_nft(topology.host, "list", "tables")


def test_a_network_without_ipv4_is_restored(topology: Topology) -> None:
    with in_netns(topology.host):
        made = topology.manager.define(network("six", ipv4=False, ipv6=True))
    first, second = join(topology, "six"), join(topology, "six")
    manager = topology.new_manager()
    with in_netns(topology.host):
        manager.keep_firewall_rules()
        assert manager.define(made) == made
        assert manager.restore([first.endpoint, second.endpoint]) == []
    assert talks6(first.net, second.endpoint.ipv6, second.net)
    third = join(topology, "six")
    assert third.endpoint.ipv6 not in (first.endpoint.ipv6, second.endpoint.ipv6)


# -- create and remove -------------------------------------------------------------------------


def test_requested_subnets_ranges_gateways_and_reserved_addresses_are_used(
    topology: Topology,
) -> None:
    pools = check_pools(
        [Pool("10.77.0.0/24", "10.77.0.254", "10.77.0.8/30", {"printer": "10.77.0.9"})],
        [],
        ipv6=False,
    )
    with in_netns(topology.host):
        made = topology.manager.define(network("asked", pools=pools, mtu=1300))
    assert made.pools == pools
    first = join(topology, "asked")
    assert first.address == "10.77.0.8"
    assert first.endpoint.gateway == "10.77.0.254"
    assert join(topology, "asked").address == "10.77.0.10"
    assert join(topology, "asked", ip="10.77.0.100").address == "10.77.0.100"
    last = join(topology, "asked", mac="02:00:00:00:00:07").endpoint
    assert (last.ipv4, last.mac) == ("10.77.0.11", "02:00:00:00:00:07")
    with Rtnetlink(first.net) as inside:
        link = inside.link("eth0")
        assert link is not None
        assert link.mtu == 1300
    with pytest.raises(NotAuthorized):
        join(topology, "asked", ip="10.77.0.9")
    with pytest.raises(InvalidRequest):
        join(topology, "asked", ip="10.78.0.1")
    with pytest.raises(JaulaError, match="no available IPv4 address"):
        join(topology, "asked")


def test_networks_get_their_own_subnets_until_the_pool_is_exhausted(topology: Topology) -> None:
    made = []
    with in_netns(topology.host):
        topology.manager.ensure()
        for number in range(31):  # a /15 holds 32 of /20, and one is the default network's
            made.append(topology.manager.define(network(f"n{number}")))
        with pytest.raises(JaulaError, match="no free subnet in"):
            topology.manager.define(network("one-more"))
        subnets = topology.manager.subnets()
        assert len(set(subnets)) == 32
        with Rtnetlink() as links:
            assert sum(link.name.startswith("jlt-") for link in links.links()) == 31
        for one in made:
            topology.manager.undefine(one.name)
        with Rtnetlink() as links:
            assert not [link.name for link in links.links() if link.name.startswith("jlt-")]
        topology.manager.define(network("again"))


def test_a_network_with_endpoints_is_not_removed(topology: Topology) -> None:
    with in_netns(topology.host):
        topology.manager.define(network("full"))
    box = join(topology, "full")
    with in_netns(topology.host):
        with pytest.raises(Conflict, match="active endpoints"):
            topology.manager.undefine("full")
        topology.manager.detach(box.endpoint)
        topology.manager.undefine("full")


def test_the_next_engine_adopts_networks_and_endpoints(topology: Topology) -> None:
    with in_netns(topology.host):
        made = topology.manager.define(network("kept", ipv6=True))
    first, second = join(topology, "kept"), join(topology, "kept")
    manager = topology.new_manager()
    with in_netns(topology.host):
        assert manager.define(made) == made
        assert manager.restore([first.endpoint, second.endpoint]) == []
        assert manager.sweep({first.id, second.id}) == []
    with listen(second.net, "0.0.0.0", PORT) as server:
        assert talks(first.net, (second.address, PORT), server) is not None
    assert talks6(first.net, second.endpoint.ipv6, second.net)
    third = join(topology, "kept")
    assert third.address not in (first.address, second.address)
    with listen(third.net, "0.0.0.0", PORT) as server:
        assert talks(first.net, (third.address, PORT), server) is not None


def test_flushed_tables_of_every_network_are_restored(topology: Topology) -> None:
    with in_netns(topology.host):
        topology.manager.define(network("one", ipv6=True))
        topology.manager.define(network("two", internal=True))
    box = join(topology, "two")
    with in_netns(topology.host):
        topology.manager.watch()
        run_nft(topology.host, "flush", "ruleset")
        assert topology.manager.repair() is True
        assert topology.manager.repair() is False
    assert run_nft(topology.host, "list", "tables").count("table ip6") == 1
    with listen(topology.outside, "0.0.0.0", PORT) as server, Rtnetlink(box.net) as inside:
        inside.send(add_default_route(box.address.rpartition(".")[0] + ".1"))
        assert talks(box.net, (OUTSIDE, PORT), server, timeout=BRIEF) is None


def test_remains_of_an_interrupted_creation_are_removed(topology: Topology) -> None:
    with in_netns(topology.host):
        made = topology.manager.define(network("half", ipv6=True))
    manager = topology.new_manager()
    with in_netns(topology.host):
        assert manager.has_interface(made.bridge)
        manager.clear(made)
        assert not manager.has_interface(made.bridge)
        assert made.bridge not in run_nft(topology.host, "list", "tables")
        manager.clear(made)


def test_the_hosts_own_namespace_is_not_touched(topology: Topology) -> None:
    """Other tests create links there at the same time, so the names are compared."""
    with in_netns(topology.host):
        before = {link.name for link in Rtnetlink().links()}
        made = topology.manager.define(network("elsewhere"))
        added = {link.name for link in Rtnetlink().links()} - before
    assert made.bridge in added
    assert not added & {link.name for link in Rtnetlink().links()}


def test_the_first_connection_by_ipv6_waits_for_no_second_solicitation(topology: Topology) -> None:
    with in_netns(topology.host):
        topology.manager.define(network("six", ipv6=True))
    before = join(topology, "six")
    for _ in range(12):
        box = join(topology, "six")
        with (
            listen(before.net, before.endpoint.ipv6, PORT) as server,
            client(box.net, timeout=5, family=socket.AF_INET6) as near,
        ):
            near.connect((before.endpoint.ipv6, PORT))
            far, _ = server.accept()
            far.close()
        with in_netns(box.net), open("/proc/thread-self/net/snmp6") as file:
            counters = dict(line.split() for line in file)
        assert counters["Icmp6OutNeighborSolicits"] == "1"
        before = box
