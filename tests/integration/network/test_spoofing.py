"""Spoofing: packets that a container with CAP_NET_RAW sends are dropped."""

from __future__ import annotations

import re
import socket

import pytest

from jaula.kernel.netlink import in_netns
from jaula.kernel.rtnetlink import Rtnetlink
from jaula.network import PortRequest
from jaula.network.firewall.bridge_rules import table_name

from .conftest import (
    HOST_OUTER,
    OUTSIDE,
    Topology,
    arp_frame,
    listen,
    raw,
    received,
    run_nft,
    udp_frame,
)

OTHER_MAC = "02:42:0a:00:00:09"


def gateway_mac(topology: Topology) -> str:
    with Rtnetlink(topology.host) as host:
        link = host.link(topology.config.bridge)
    assert link is not None
    return link.mac


def arrives(server: socket.socket) -> bool:
    server.settimeout(0.3)
    try:
        return bool(server.recv(64))
    except TimeoutError:
        return False


def test_a_container_cannot_send_to_the_loopback_of_the_host(topology: Topology) -> None:
    box = topology.box()
    frame = udp_frame(
        gateway_mac(topology), box.endpoint.mac, box.address, "127.0.0.1", 5353, b"to loopback"
    )
    with (
        listen(topology.host, "127.0.0.1", 5353, socket.SOCK_DGRAM) as server,
        raw(box.net, "eth0") as out,
    ):
        out.send(frame)
        assert not arrives(server)
        run_nft(topology.host, "flush", "chain", "ip", "jaula_jltbr0", "guard")
        out.send(frame)
        assert arrives(server)  # so the rule drops it, not the kernel


def test_a_port_published_on_loopback_is_not_reachable_from_a_neighbour(topology: Topology) -> None:
    box = topology.box()
    with in_netns(topology.host):
        topology.manager.publish(box.endpoint, [PortRequest(53, "udp", "127.0.0.1", 5353)])
    with Rtnetlink(topology.host) as host:
        link = host.link("up0")
    assert link is not None
    frame = udp_frame(link.mac, OTHER_MAC, OUTSIDE, "127.0.0.1", 5353, b"neighbour")
    with (
        listen(box.net, "0.0.0.0", 53, socket.SOCK_DGRAM) as server,
        raw(topology.outside, "eth0") as out,
    ):
        out.send(frame)
        assert not arrives(server)


@pytest.mark.parametrize("forged", ["mac", "address"])
def test_a_container_cannot_send_from_another_address(topology: Topology, forged: str) -> None:
    box, victim, other = topology.box(), topology.box(), topology.box()
    mac = OTHER_MAC if forged == "mac" else box.endpoint.mac
    address = victim.address if forged == "address" else box.address
    with raw(box.net, "eth0") as out, raw(other.net, "eth0") as heard:
        honest = (other.endpoint.mac, box.endpoint.mac, box.address, other.address, 9)
        out.send(udp_frame(*honest, b"an honest packet"))
        assert received(heard, b"an honest packet")
        out.send(udp_frame(other.endpoint.mac, mac, address, other.address, 9, b"a forged packet"))
        assert not received(heard, b"a forged packet")


def test_a_container_cannot_answer_arp_for_another(topology: Topology) -> None:
    box, victim, other = topology.box(), topology.box(), topology.box()
    with raw(box.net, "eth0") as out, raw(other.net, "eth0") as heard:
        honest = arp_frame(box.endpoint.mac, box.address, other.address)
        out.send(honest)
        assert received(heard, honest)
        forged = arp_frame(box.endpoint.mac, victim.address, other.address)
        out.send(forged)
        assert not received(heard, forged)


def test_no_ipv6_leaves_a_container(topology: Topology) -> None:
    box, other = topology.box(), topology.box()
    advertisement = (
        bytes.fromhex("333300000001")
        + bytes.fromhex(box.endpoint.mac.replace(":", ""))
        + b"\x86\xdd\x60\0\0\0\0\x10\x3a\xff"
        + socket.inet_pton(socket.AF_INET6, "fe80::1")
        + socket.inet_pton(socket.AF_INET6, "ff02::1")
        + bytes.fromhex("86000000400007080000000000000000")
    )
    with (
        raw(box.net, "eth0") as out,
        raw(other.net, "eth0") as heard,
        raw(topology.host, topology.config.bridge) as host_heard,
    ):
        out.send(advertisement)
        assert not received(heard, advertisement[54:])
        assert not received(host_heard, advertisement[54:])


def test_interfaces_of_containers_and_of_the_bridge_have_no_ipv6_address(
    topology: Topology,
) -> None:
    box = topology.box()
    for namespace in (box.net, topology.host):
        with Rtnetlink(namespace) as table:
            names = {link.index: link.name for link in table.links()}
            result = [
                (names[row.index], row.address)
                for row in table.addresses()
                if row.family == socket.AF_INET6 and names[row.index] not in ("lo", "up0")
            ]
        assert result == []


def test_a_detached_interface_cannot_send(topology: Topology) -> None:
    box, other = topology.box(), topology.box()
    with raw(box.net, "eth0") as out, raw(other.net, "eth0") as heard:
        frame = arp_frame(box.endpoint.mac, box.address, other.address)
        out.send(frame)
        assert received(heard, frame)
        with in_netns(topology.host):
            topology.manager.detach(box.endpoint)
        out.send(frame)
        assert not received(heard, frame)


def test_the_host_still_reaches_outside(topology: Topology) -> None:
    topology.box()
    with listen(topology.outside, OUTSIDE, 9, socket.SOCK_DGRAM) as server:
        with in_netns(topology.host):
            out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with out:
            out.sendto(b"x", (OUTSIDE, 9))
            assert server.recvfrom(8)[1][0] == HOST_OUTER


def elements(topology: Topology) -> list[str]:
    listing = run_nft(topology.host, "list", "table", "bridge", table_name("jltbr0"))
    return sorted(re.findall(r'"jl\w+" \. [0-9a-f:]{17} \. [0-9a-f.:]+', listing))


def test_elements_that_are_added_and_loaded_are_the_same(topology: Topology) -> None:
    boxes = [topology.box(), topology.box()]
    added = elements(topology)
    assert len(added) == len(boxes)
    with in_netns(topology.host):
        assert topology.manager.restore([box.endpoint for box in boxes]) == []
    assert elements(topology) == added
    with in_netns(topology.host):
        topology.manager.detach(boxes[0].endpoint)
    left = elements(topology)
    assert len(left) == 1
    assert boxes[1].address in left[0]


def test_a_start_and_an_end_load_a_table_that_is_missing(topology: Topology) -> None:
    first = topology.box()
    run_nft(topology.host, "delete", "table", "bridge", table_name("jltbr0"))
    second = topology.box()
    assert len(elements(topology)) == 2
    run_nft(topology.host, "delete", "table", "bridge", table_name("jltbr0"))
    with in_netns(topology.host):
        topology.manager.detach(first.endpoint)
    (left,) = elements(topology)
    assert second.address in left
