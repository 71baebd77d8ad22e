"""Egress lists in the kernel: what is allowed, refused and noted, and what a crash leaves."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable

import pytest

from jaula.errors import InvalidRequest
from jaula.kernel.netlink import in_netns
from jaula.kernel.poll import readable
from jaula.kernel.rtnetlink import Rtnetlink
from jaula.network import PortRequest
from jaula.network.firewall import egress_rules
from jaula.network.firewall.antispoof import AntiSpoof
from jaula.network.firewall.egress_rules import Refused
from jaula.network.ipam import link_local_address

from .conftest import (
    BRIEF,
    HOST_OUTER,
    OUTSIDE,
    OUTSIDE6,
    Box,
    Topology,
    client,
    join,
    listen,
    network,
    run_nft,
    talks,
    talks_udp,
)

QUICK = 0.5  # seconds within which a refusal must arrive


def restricted(topology: Topology, *items: str, name: str = "bridge", **options: object) -> Box:
    return join(topology, name, egress=items, **options)


def refusal(box: Box, target: tuple[str, int]) -> int:
    """Return the errno of a connection that is refused at once."""
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    start = time.monotonic()
    with client(box.net, family=family, timeout=3) as near, pytest.raises(OSError) as caught:
        near.connect(target)
    assert time.monotonic() - start < QUICK
    assert caught.value.errno is not None
    return caught.value.errno


def refused(topology: Topology, box: Box) -> dict[str, int]:
    return {row.destination: row.packets for row in topology.manager.refused_egress(box.id)}


def bridged_packets_reach_the_ip_hooks(topology: Topology, on: bool) -> None:
    with in_netns(topology.host):
        for name in ("iptables", "ip6tables"):
            try:
                with open(f"/proc/sys/net/bridge/bridge-nf-call-{name}", "w") as file:
                    file.write("1" if on else "0")
            except FileNotFoundError:
                if on:
                    pytest.skip("this kernel has no br_netfilter")


def test_only_the_listed_address_and_port_is_reachable(topology: Topology) -> None:
    box = restricted(topology, f"tcp:{OUTSIDE}:443")
    with listen(topology.outside, OUTSIDE, 443) as server, listen(topology.outside, OUTSIDE, 444):
        assert talks(box.net, (OUTSIDE, 443), server) == HOST_OUTER
        assert refusal(box, (OUTSIDE, 444)) == errno.ECONNREFUSED
        assert talks_udp(box.net, (OUTSIDE, 443), server) is None
        free = topology.box()
        with listen(topology.outside, OUTSIDE, 445) as other:
            assert talks(free.net, (OUTSIDE, 445), other) == HOST_OUTER
    assert refused(topology, box) == {f"tcp:{OUTSIDE}:444": 1, f"udp:{OUTSIDE}:443": 1}


@pytest.mark.parametrize(
    ("item", "allowed"),
    [
        ("tcp:198.51.100.0/24:443", True),
        ("tcp:198.51.100.0/30:400-500", True),
        (f"tcp:{OUTSIDE}:*", True),
        ("tcp:0.0.0.0/0:443", True),
        ("tcp:198.51.101.0/24:443", False),
        (f"tcp:{OUTSIDE}:444-500", False),
        (f"udp:{OUTSIDE}:443", False),
        ("tcp:example.org:443", False),
        ("tcp:[::]/0:443", False),
    ],
)
def test_networks_and_ranges_of_ports(topology: Topology, item: str, allowed: bool) -> None:
    box = restricted(topology, item)
    with listen(topology.outside, OUTSIDE, 443) as server:
        assert (talks(box.net, (OUTSIDE, 443), server) is not None) is allowed


def test_udp_and_an_empty_list(topology: Topology) -> None:
    box, none = restricted(topology, f"udp:{OUTSIDE}:53"), restricted(topology)
    with listen(topology.outside, OUTSIDE, 53, socket.SOCK_DGRAM) as server:
        assert talks_udp(box.net, (OUTSIDE, 53), server) == HOST_OUTER
        assert talks_udp(none.net, (OUTSIDE, 53), server) is None
    assert refusal(none, (OUTSIDE, 80)) == errno.ECONNREFUSED


def test_the_host_is_a_destination_as_any_other(topology: Topology) -> None:
    box = restricted(topology, f"tcp:{HOST_OUTER}:80")
    with listen(topology.host, "0.0.0.0", 80) as server:
        assert talks(box.net, (HOST_OUTER, 80), server) == box.address
        assert refusal(box, (box.endpoint.gateway, 80)) == errno.ECONNREFUSED


def test_ipv6(topology: Topology) -> None:
    with in_netns(topology.host):
        topology.manager.define(network("six", ipv6=True))
    box = restricted(topology, f"tcp:[{OUTSIDE6}]:443", name="six")
    with (
        listen(topology.outside, OUTSIDE6, 443) as server,
        listen(topology.outside, OUTSIDE6, 444),
        listen(topology.outside, OUTSIDE, 443),
    ):
        assert talks(box.net, (OUTSIDE6, 443), server) is not None
        assert refusal(box, (OUTSIDE6, 444)) == errno.ECONNREFUSED
        assert refusal(box, (OUTSIDE, 443)) == errno.ECONNREFUSED
    assert refused(topology, box)[f"tcp:[{OUTSIDE6}]:444"] == 1


@pytest.mark.parametrize("hooks", [False, True], ids=["bridged", "br_netfilter"])
def test_containers_of_the_same_network_are_destinations(topology: Topology, hooks: bool) -> None:
    bridged_packets_reach_the_ip_hooks(topology, hooks)
    peer = topology.box()
    box = restricted(topology, f"tcp:{peer.address}:80", f"udp:{peer.address}:53")
    with (
        listen(peer.net, "0.0.0.0", 80) as web,
        listen(peer.net, "0.0.0.0", 81),
        listen(peer.net, "0.0.0.0", 53, socket.SOCK_DGRAM) as dns,
        listen(peer.net, "0.0.0.0", 54, socket.SOCK_DGRAM) as other,
    ):
        assert talks(box.net, (peer.address, 80), web) == box.address
        assert talks_udp(box.net, (peer.address, 53), dns) == box.address
        assert talks_udp(box.net, (peer.address, 54), other) is None
        with client(box.net, timeout=QUICK) as near, pytest.raises(OSError):
            near.connect((peer.address, 81))
    assert set(refused(topology, box)) == {f"tcp:{peer.address}:81", f"udp:{peer.address}:54"}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("hooks", [False, True], ids=["bridged", "br_netfilter"])
def test_fragments_follow_the_first_one(topology: Topology, hooks: bool, version: int) -> None:
    bridged_packets_reach_the_ip_hooks(topology, hooks)
    with in_netns(topology.host):
        topology.manager.define(network("six", ipv6=True))
    peer = join(topology, "six")
    address = peer.endpoint.ipv6 if version == 6 else peer.address
    item = f"udp:{f'[{address}]' if version == 6 else address}:53"
    box = restricted(topology, item, name="six")
    family, kind = (socket.AF_INET6 if version == 6 else socket.AF_INET), socket.SOCK_DGRAM
    with (
        listen(peer.net, address, 53, kind) as allowed,
        listen(peer.net, address, 54, kind) as other,
        client(box.net, kind, family=family) as near,
    ):
        data = bytes(4000)  # three times the MTU
        near.sendto(data, (address, 53))
        assert allowed.recvfrom(8000)[0] == data
        near.sendto(data, (address, 54))
        other.settimeout(0.3)
        with pytest.raises(TimeoutError):
            other.recvfrom(8000)


@pytest.mark.parametrize("hooks", [False, True], ids=["bridged", "br_netfilter"])
def test_a_server_answers_whoever_connects_to_it(topology: Topology, hooks: bool) -> None:
    bridged_packets_reach_the_ip_hooks(topology, hooks)
    box, peer = restricted(topology), topology.box()
    with in_netns(topology.host):
        topology.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
    with (
        listen(box.net, "0.0.0.0", 80) as web,
        listen(box.net, "0.0.0.0", 53, socket.SOCK_DGRAM) as dns,
    ):
        assert talks(peer.net, (box.address, 80), web) == peer.address
        assert talks_udp(peer.net, (box.address, 53), dns) == peer.address
        assert talks(topology.outside, (HOST_OUTER, 8080), web) == OUTSIDE
        assert talks(topology.host, (box.address, 80), web) == box.endpoint.gateway


def test_a_name_opens_its_addresses_for_its_ports(topology: Topology) -> None:
    box = restricted(topology, "tcp:example.org:443", "tcp:other.example:444")
    with listen(topology.outside, OUTSIDE, 443) as server, listen(topology.outside, OUTSIDE, 444):
        refusal(box, (OUTSIDE, 443))
        topology.manager.allow_name(box.id, "example.net", {OUTSIDE: 60})
        refusal(box, (OUTSIDE, 443))
        for seconds in (60, 30, 60):  # an answer may repeat
            topology.manager.allow_name(box.id, "example.org", {OUTSIDE: seconds, OUTSIDE6: 60})
        assert talks(box.net, (OUTSIDE, 443), server) == HOST_OUTER
        refusal(box, (OUTSIDE, 444))


def test_an_address_of_a_name_expires_and_its_connection_stays(topology: Topology) -> None:
    box = restricted(topology, "tcp:example.org:443")
    topology.manager.allow_name(box.id, "example.org", {OUTSIDE: 1})
    with listen(topology.outside, OUTSIDE, 443) as server, client(box.net) as near:
        near.connect((OUTSIDE, 443))
        far, _ = server.accept()
        with far:
            deadline = time.monotonic() + 5
            while (
                talks(box.net, (OUTSIDE, 443), server, timeout=BRIEF)
                and time.monotonic() < deadline
            ):
                time.sleep(0.1)
            refusal(box, (OUTSIDE, 443))
            near.sendall(b"still here")
            assert far.recv(16) == b"still here"


def test_the_next_engine_restores_lists_and_addresses_of_names(topology: Topology) -> None:
    box, dead = restricted(topology, "tcp:example.org:443"), restricted(topology)
    topology.manager.allow_name(box.id, "example.org", {OUTSIDE: 600})
    with listen(topology.outside, OUTSIDE, 443) as server, listen(topology.outside, OUTSIDE, 444):
        manager = topology.new_manager()
        refusal(box, (OUTSIDE, 444))  # no engine runs
        assert talks(box.net, (OUTSIDE, 443), server) == HOST_OUTER
        with in_netns(topology.host):
            manager.keep_firewall_rules()
            assert manager.restore([box.endpoint]) == []
            manager.sweep({box.id})
        refusal(box, (OUTSIDE, 444))
        assert talks(box.net, (OUTSIDE, 443), server) == HOST_OUTER
    rules = run_nft(topology.host, "list", "ruleset")
    assert dead.endpoint.endpoint_id[:16] not in rules
    with in_netns(topology.host):
        manager.detach(box.endpoint)
    assert "_egress" not in run_nft(topology.host, "list", "tables")


def test_the_next_engine_removes_tables_without_containers(topology: Topology) -> None:
    restricted(topology)
    manager = topology.new_manager()
    with in_netns(topology.host):
        manager.keep_firewall_rules()
        assert manager.restore([]) == []
    assert "_egress" not in run_nft(topology.host, "list", "tables")


def test_a_flush_by_another_program_is_repaired(topology: Topology) -> None:
    box = restricted(topology, f"tcp:{OUTSIDE}:443")
    with in_netns(topology.host):
        watch = topology.manager.watch()
        topology.manager.repair()
        run_nft(topology.host, "flush", "ruleset")
        assert readable(2, watch)
        assert topology.manager.repair() is True
    with listen(topology.outside, OUTSIDE, 443) as server:
        assert talks(box.net, (OUTSIDE, 443), server) == HOST_OUTER
        refusal(box, (OUTSIDE, 444))


def test_lists_continue_after_an_undetected_flush(topology: Topology) -> None:
    box = restricted(topology, f"tcp:{OUTSIDE}:443")
    run_nft(topology.host, "flush", "ruleset")
    other = restricted(topology, f"tcp:{OUTSIDE}:444")
    with listen(topology.outside, OUTSIDE, 443) as server:
        assert talks(box.net, (OUTSIDE, 443), server) == HOST_OUTER
        refusal(other, (OUTSIDE, 443))
    run_nft(topology.host, "flush", "ruleset")
    with in_netns(topology.host):
        topology.manager.detach(box.endpoint)
    refusal(other, (OUTSIDE, 443))


@pytest.mark.parametrize("hooks", [False, True], ids=["bridged", "br_netfilter"])
def test_link_local_addresses_are_restricted_too(topology: Topology, hooks: bool) -> None:
    bridged_packets_reach_the_ip_hooks(topology, hooks)
    with in_netns(topology.host):
        topology.manager.define(network("six", ipv6=True))
    box, peer = restricted(topology, name="six"), join(topology, "six")
    free = join(topology, "six")
    address = str(link_local_address(peer.endpoint.mac))

    def connect(one: Box) -> int:
        with Rtnetlink(one.net) as inside:
            link = inside.link("eth0")
        assert link is not None
        with client(one.net, family=socket.AF_INET6) as near:
            return near.connect_ex((address, 80, 0, link.index))

    def until(condition: Callable[[], bool]) -> None:  # link-local addresses are tentative at first
        deadline = time.monotonic() + 15
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    with listen(peer.net, "::", 80):
        until(lambda: connect(free) == 0)
        until(lambda: connect(box) != 0 and f"tcp:[{address}]:80" in refused(topology, box))


def test_a_network_past_the_hosts_firewall_refuses_a_list(topology: Topology) -> None:
    with in_netns(topology.host):
        topology.manager.define(network("lan", driver="macvlan", parent="up0"))
        before = topology.manager.endpoints()
    with pytest.raises(InvalidRequest, match="cannot enforce the egress list"):
        restricted(topology, f"tcp:{OUTSIDE}:443", name="lan")
    assert topology.manager.endpoints() == before


def test_a_failed_attach_leaves_no_rules(
    topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: AntiSpoof, endpoint: object) -> bool:
        raise OSError(errno.EIO, "test")

    with monkeypatch.context() as patch:
        patch.setattr(AntiSpoof, "allow", fail)
        with pytest.raises(Exception, match="test"):
            restricted(topology)
    assert "_egress" not in run_nft(topology.host, "list", "tables")


def test_refused_destinations_are_sorted_by_packets(topology: Topology) -> None:
    box = restricted(topology)
    for port in (81, 82, 82):
        refusal(box, (OUTSIDE, port))
    assert topology.manager.refused_egress(box.id) == [
        Refused(f"tcp:{OUTSIDE}:82", 2),
        Refused(f"tcp:{OUTSIDE}:81", 1),
    ]


def test_a_container_cannot_fill_the_memory_of_refusals(topology: Topology) -> None:
    box = restricted(topology)
    with client(box.net, socket.SOCK_DGRAM) as near:
        for port in range(1, egress_rules.REFUSED * 2):
            try:
                near.sendto(b"x", (OUTSIDE, port))
            except OSError:
                continue  # the refusal of an earlier datagram
    assert 0 < len(topology.manager.refused_egress(box.id)) <= egress_rules.REFUSED
    assert refusal(box, (OUTSIDE, 80)) == errno.ECONNREFUSED


@pytest.mark.parametrize("hops", [255, 64, 1])
@pytest.mark.parametrize("items", [(), (f"tcp:[{OUTSIDE6}]:443",)], ids=["none", "listed"])
def test_no_message_of_neighbour_discovery_leaves_the_link(
    topology: Topology, hops: int, items: tuple[str, ...]
) -> None:
    """The options of such a message have room for data. Checksums are the kernel's."""
    with in_netns(topology.host):
        topology.manager.define(network("six", ipv6=True))
    box = restricted(topology, *items, name="six")
    kinds = (130, 131, 132, 133, 134, 135, 136, 137, 143)
    raw = (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    with in_netns(topology.outside):
        far = socket.socket(*raw)
    with in_netns(box.net):
        near = socket.socket(*raw)
    with far, near:
        near.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
        target = socket.inet_pton(socket.AF_INET6, OUTSIDE6)
        for kind in kinds:
            data = bytes([kind, 0, 0, 0, 0, 0, 0, 0]) + target + b"the data of the container"
            near.sendto(data, (OUTSIDE6, 0))
        deadline, received = time.monotonic() + BRIEF, []
        while (left := deadline - time.monotonic()) > 0:
            if readable(left, far):
                received.append(far.recv(2048))
        assert not [data for data in received if b"the data" in data]


def test_without_a_list_neighbour_discovery_is_not_routed_either(topology: Topology) -> None:
    with in_netns(topology.host):
        topology.manager.define(network("six", ipv6=True))
    box = join(topology, "six")
    raw = (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    with in_netns(topology.outside):
        far = socket.socket(*raw)
    with in_netns(box.net):
        near = socket.socket(*raw)
    with far, near:
        near.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
        target = socket.inet_pton(socket.AF_INET6, OUTSIDE6)
        for kind, text in ((135, b"discovery"), (128, b"echo")):
            near.sendto(bytes([kind, 0, 0, 0, 0, 0, 0, 0]) + target + text, (OUTSIDE6, 0))
        far.settimeout(5)
        while True:
            data = far.recv(2048)
            assert b"discovery" not in data
            if data[0] == 128 and b"echo" in data:
                break
