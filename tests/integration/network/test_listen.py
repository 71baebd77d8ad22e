"""Listen lists in the kernel: which new flows reach a container, from whom, and what passes."""

from __future__ import annotations

import errno
import socket
import time

import pytest

from jaula.kernel.netlink import in_netns
from jaula.network import PortRequest

from .conftest import (
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
from .test_egress import bridged_packets_reach_the_ip_hooks

QUICK = 0.5  # seconds within which a refusal must arrive
UDP = socket.SOCK_DGRAM


def restricted(topology: Topology, *items: str, name: str = "bridge", **options: object) -> Box:
    return join(topology, name, listen=items, **options)


def is_refused(net: int, target: tuple[str, int], number: int | None = None) -> bool:
    """Return whether a connection fails, with ``number`` at once."""
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    start = time.monotonic()
    with client(net, family=family, timeout=QUICK) as near:
        try:
            near.connect(target)
        except OSError as error:
            return number in (None, error.errno) and time.monotonic() - start < 2 * QUICK
    return False


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("hooks", [False, True], ids=["bridged", "br_netfilter"])
def test_other_containers_reach_the_listed_ports_only(
    topology: Topology, hooks: bool, version: int
) -> None:
    bridged_packets_reach_the_ip_hooks(topology, hooks)
    with in_netns(topology.host):
        topology.manager.define(network("six", ipv6=True))
    box = restricted(topology, "tcp:80", "udp:53", name="six")
    peer = join(topology, "six")
    address = box.endpoint.ipv6 if version == 6 else box.address
    with (
        listen(box.net, address, 80) as web,
        listen(box.net, address, 81),
        listen(box.net, address, 53, UDP) as dns,
        listen(box.net, address, 54, UDP) as other,
    ):
        assert talks(peer.net, (address, 80), web) is not None
        assert is_refused(peer.net, (address, 81))
        assert talks_udp(peer.net, (address, 53), dns) is not None
        assert talks_udp(peer.net, (address, 54), other) is None
    with listen(peer.net, "0.0.0.0", 81) as free:
        assert talks(box.net, (peer.address, 81), free) == box.address


@pytest.mark.parametrize("version", [4, 6])
def test_the_host_reaches_the_listed_ports_only(topology: Topology, version: int) -> None:
    with in_netns(topology.host):
        topology.manager.define(network("six", ipv6=True))
    box = restricted(topology, "tcp:80", "udp:53", name="six")
    address = box.endpoint.ipv6 if version == 6 else box.address
    with (
        listen(box.net, address, 80) as web,
        listen(box.net, address, 81),
        listen(box.net, address, 53, UDP) as dns,
        listen(box.net, address, 54, UDP) as other,
    ):
        assert talks(topology.host, (address, 80), web) is not None
        assert is_refused(topology.host, (address, 81), errno.ECONNREFUSED)
        assert talks_udp(topology.host, (address, 53), dns) is not None
        assert talks_udp(topology.host, (address, 54), other) is None


def test_a_published_port_needs_the_port_of_the_container(topology: Topology) -> None:
    box = restricted(topology, "tcp:80")
    with in_netns(topology.host):
        ports = [PortRequest(80, host_port=8080), PortRequest(81, host_port=8081)]
        topology.manager.publish(box.endpoint, ports)
    with listen(box.net, "0.0.0.0", 80) as web, listen(box.net, "0.0.0.0", 81):
        assert talks(topology.outside, (HOST_OUTER, 8080), web) == OUTSIDE
        assert is_refused(topology.outside, (HOST_OUTER, 8081), errno.ECONNREFUSED)


@pytest.mark.parametrize("hooks", [False, True], ids=["bridged", "br_netfilter"])
def test_a_client_gets_replies(topology: Topology, hooks: bool) -> None:
    bridged_packets_reach_the_ip_hooks(topology, hooks)
    with in_netns(topology.host):
        topology.manager.define(network("six", ipv6=True))
    box, peer = restricted(topology, name="six"), join(topology, "six")
    for address in (peer.address, peer.endpoint.ipv6):
        with listen(peer.net, address, 80) as web, listen(peer.net, address, 53, UDP) as dns:
            assert talks(box.net, (address, 80), web) is not None
            assert _answers(box.net, (address, 53), dns)
    for address in (OUTSIDE, OUTSIDE6):
        with (
            listen(topology.outside, address, 80) as web,
            listen(topology.outside, address, 53, UDP) as dns,
        ):
            assert talks(box.net, (address, 80), web) is not None
            assert _answers(box.net, (address, 53), dns)


def _answers(net: int, target: tuple[str, int], server: socket.socket) -> bool:
    """Return whether a datagram is answered."""
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    with client(net, UDP, family=family, timeout=3) as near:
        near.sendto(b"q", target)
        server.settimeout(3)
        _, source = server.recvfrom(10)
        server.sendto(b"a", source)
        return near.recv(10) == b"a"


def test_port_0_are_the_ports_that_the_kernel_selects(topology: Topology) -> None:
    box, none = restricted(topology, "tcp:0"), restricted(topology)
    for each, reached in ((box, True), (none, False)):
        with listen(each.net, "0.0.0.0", 0) as server:
            port = server.getsockname()[1]
            assert is_refused(topology.host, (each.address, port)) is not reached
    with listen(box.net, "0.0.0.0", 80):
        assert is_refused(topology.host, (box.address, 80))


def test_both_lists_of_one_container(topology: Topology) -> None:
    box = restricted(topology, "tcp:80", egress=(f"tcp:{OUTSIDE}:443",))
    with (
        listen(box.net, "0.0.0.0", 80) as web,
        listen(box.net, "0.0.0.0", 81),
        listen(topology.outside, OUTSIDE, 443) as server,
    ):
        assert talks(topology.host, (box.address, 80), web) is not None
        assert is_refused(topology.host, (box.address, 81))
        assert talks(box.net, (OUTSIDE, 443), server) == HOST_OUTER


def test_an_endpoint_that_was_created_in_advance_gets_its_lists(topology: Topology) -> None:
    box = topology.box()
    with in_netns(topology.host):
        claimed = topology.manager.claim(
            box.endpoint, "f" * 64, "web", egress=(f"tcp:{OUTSIDE}:443",), listen=("tcp:80",)
        )
    assert (claimed.container_name, claimed.listen) == ("web", ("tcp:80",))
    with (
        listen(box.net, "0.0.0.0", 80) as web,
        listen(box.net, "0.0.0.0", 81),
        listen(topology.outside, OUTSIDE, 443) as server,
        listen(topology.outside, OUTSIDE, 444),
    ):
        assert talks(topology.host, (box.address, 80), web) is not None
        assert is_refused(topology.host, (box.address, 81))
        assert talks(box.net, (OUTSIDE, 443), server) == HOST_OUTER
        assert is_refused(box.net, (OUTSIDE, 444))
    with in_netns(topology.host):
        topology.manager.detach(claimed)
    assert "_listen" not in run_nft(topology.host, "list", "tables")


def test_rules_end_with_the_endpoint(topology: Topology) -> None:
    one, two = restricted(topology, "tcp:80"), restricted(topology)
    with in_netns(topology.host):
        topology.manager.detach(one.endpoint, delete_interface=True)
    rules = run_nft(topology.host, "list", "ruleset")
    assert one.endpoint.endpoint_id[:16] not in rules
    assert two.endpoint.endpoint_id[:16] in rules
    with in_netns(topology.host):
        topology.manager.detach(two.endpoint, delete_interface=True)
    assert "_listen" not in run_nft(topology.host, "list", "tables")


def test_a_flush_by_another_program_is_repaired(topology: Topology) -> None:
    box = restricted(topology, "tcp:80")
    with in_netns(topology.host):
        topology.manager.watch()
        topology.manager.repair()
        run_nft(topology.host, "flush", "ruleset")
        assert topology.manager.repair() is True
    with listen(box.net, "0.0.0.0", 81), listen(box.net, "0.0.0.0", 80) as web:
        assert is_refused(topology.host, (box.address, 81))
        assert talks(topology.host, (box.address, 80), web) is not None
