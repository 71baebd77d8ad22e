"""Reachability of the default bridge: the matrix of statement I18."""

from __future__ import annotations

import os
import socket

import pytest

from jaula.kernel.netlink import in_netns
from jaula.network import PortRequest

from .conftest import (
    BRIEF,
    HOST_OUTER,
    HOST_SECOND,
    OUTSIDE,
    Box,
    Topology,
    listen,
    talks,
    talks_udp,
)


def publish(topology: Topology, box: Box, *requests: PortRequest) -> None:
    with in_netns(topology.host):
        topology.manager.publish(box.endpoint, requests)


def test_containers_of_one_bridge_reach_each_other_with_their_own_addresses(
    topology: Topology,
) -> None:
    one, two = topology.box(), topology.box()
    with listen(two.net, "0.0.0.0", 80) as server:
        assert talks(one.net, (two.address, 80), server) == one.address


def test_a_container_reaches_outside_as_the_host(topology: Topology) -> None:
    box = topology.box()
    with listen(topology.outside, OUTSIDE, 80) as server:
        assert talks(box.net, (OUTSIDE, 80), server) == HOST_OUTER


@pytest.mark.parametrize("bridge_netfilter", ["0", "1"])
def test_a_published_port_is_reached_from_everywhere(
    topology: Topology, bridge_netfilter: str
) -> None:
    setting = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    with in_netns(topology.host):
        if os.path.exists(setting):
            with open(setting, "w") as file:
                file.write(bridge_netfilter)
    box, other = topology.box(), topology.box()
    publish(topology, box, PortRequest(80, host_port=8080))
    with listen(box.net, "0.0.0.0", 80) as server:
        assert talks(topology.host, ("127.0.0.1", 8080), server) == box.endpoint.gateway
        assert talks(topology.host, (HOST_OUTER, 8080), server) is not None
        assert talks(topology.host, (HOST_SECOND, 8080), server) is not None
        assert talks(topology.host, (box.endpoint.gateway, 8080), server) is not None
        assert talks(topology.host, (box.address, 80), server) == box.endpoint.gateway
        assert talks(other.net, (HOST_OUTER, 8080), server) == box.endpoint.gateway
        assert talks(other.net, (box.endpoint.gateway, 8080), server) is not None
        assert talks(box.net, (HOST_OUTER, 8080), server) is not None
        assert talks(topology.outside, (HOST_OUTER, 8080), server) == OUTSIDE
        assert talks(topology.outside, (HOST_SECOND, 8080), server) == OUTSIDE


def test_a_published_udp_port_is_reached_from_everywhere(topology: Topology) -> None:
    box, other = topology.box(), topology.box()
    publish(topology, box, PortRequest(53, "udp", host_port=5353))
    with listen(box.net, "0.0.0.0", 53, socket.SOCK_DGRAM) as server:
        assert talks_udp(topology.host, ("127.0.0.1", 5353), server) is not None
        assert talks_udp(topology.host, (HOST_OUTER, 5353), server) is not None
        assert talks_udp(other.net, (HOST_OUTER, 5353), server) is not None
        assert talks_udp(topology.outside, (HOST_OUTER, 5353), server) == OUTSIDE


def test_a_port_on_one_address_is_not_reached_by_another(topology: Topology) -> None:
    box, other = topology.box(), topology.box()
    publish(
        topology,
        box,
        PortRequest(80, host_ip="127.0.0.1", host_port=8080),
        PortRequest(80, host_ip=HOST_SECOND, host_port=8081),
    )
    with listen(box.net, "0.0.0.0", 80) as server:
        assert talks(topology.host, ("127.0.0.1", 8080), server) is not None
        for sender, address in (
            (topology.host, HOST_OUTER),
            (topology.outside, HOST_OUTER),
            (other.net, HOST_OUTER),
            (other.net, box.endpoint.gateway),
        ):
            assert talks(sender, (address, 8080), server, timeout=BRIEF) is None
            assert talks(sender, (address, 8081), server, timeout=BRIEF) is None
        assert talks(topology.outside, (HOST_SECOND, 8081), server) == OUTSIDE
        assert talks(topology.host, (HOST_SECOND, 8081), server) is not None


def test_outside_cannot_reach_a_port_that_is_not_published(topology: Topology) -> None:
    box = topology.box()
    publish(topology, box, PortRequest(80, host_port=8080))
    with listen(box.net, "0.0.0.0", 81) as server, listen(box.net, "0.0.0.0", 80) as published:
        assert talks(topology.host, (box.address, 81), server) is not None
        assert talks(topology.outside, (box.address, 81), server, timeout=BRIEF) is None
        assert talks(topology.outside, (box.address, 80), published, timeout=BRIEF) is None
