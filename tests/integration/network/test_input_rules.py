"""Published ports and the host's firewall: input rules apply to containers' ports."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec
import pytest

from jaula.kernel.netlink import in_netns
from jaula.network import NetworkManager, PortRequest
from jaula.network.firewall import bridge_rules
from jaula.network.firewall.nft_command import FirewallError, Libnftables

from .conftest import (
    BRIEF,
    HOST_OUTER,
    HOST_OUTER6,
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
from .host_rules import FIREWALLS

OPEN, CLOSED = 8080, 9090


@pytest.fixture
def box(topology: Topology) -> Iterator[Box]:
    """Return a container with two published ports of each protocol, in both families."""
    with in_netns(topology.host):
        topology.manager.define(network("six", ipv6=True))
    made = join(topology, "six")
    publish(topology, made)
    return made


def publish(topology: Topology, made: Box) -> None:
    with in_netns(topology.host):
        topology.manager.publish(
            made.endpoint,
            [
                PortRequest(80, protocol, host_port=port)
                for port in (OPEN, CLOSED)
                for protocol in ("tcp", "udp")
            ],
        )


def reached(
    topology: Topology, made: Box, port: int, *, sender: int | None = None
) -> dict[str, str | None]:
    """Return the sender's address that the container saw, by protocol and family, or None."""
    source = topology.outside if sender is None else sender
    result: dict[str, str | None] = {}
    for family, every, host in (("4", "0.0.0.0", HOST_OUTER), ("6", "::", HOST_OUTER6)):
        with listen(made.net, every, 80) as tcp:
            result[f"tcp{family}"] = talks(source, (host, port), tcp, timeout=BRIEF)
        with listen(made.net, every, 80, socket.SOCK_DGRAM) as udp:
            result[f"udp{family}"] = talks_udp(source, (host, port), udp)
    return result


EVERYTHING = {"tcp4": OUTSIDE, "udp4": OUTSIDE, "tcp6": OUTSIDE6, "udp6": OUTSIDE6}
NOTHING = dict.fromkeys(EVERYTHING)


def test_without_host_rules_ports_are_open_and_senders_keep_their_address(
    topology: Topology, box: Box
) -> None:
    assert reached(topology, box, OPEN) == EVERYTHING


@pytest.mark.parametrize("kind", FIREWALLS)
def test_a_port_is_reachable_if_the_hosts_firewall_accepts_it(
    topology: Topology, box: Box, kind: str
) -> None:
    with in_netns(topology.host):
        FIREWALLS[kind](OPEN)
    assert reached(topology, box, OPEN) == EVERYTHING
    assert reached(topology, box, CLOSED) == NOTHING
    with in_netns(topology.host):
        FIREWALLS[kind](0)
    assert reached(topology, box, OPEN) == NOTHING


@pytest.mark.parametrize("kind", FIREWALLS)
def test_datagrams_that_are_never_answered_keep_arriving(
    topology: Topology, box: Box, kind: str
) -> None:
    """Even if the host forwards established connections only; Docker's ports behave alike."""
    with in_netns(topology.host):
        FIREWALLS[kind](OPEN)
    for every, host in (("0.0.0.0", HOST_OUTER), ("::", HOST_OUTER6)):
        with (
            listen(box.net, every, 80, socket.SOCK_DGRAM) as server,
            client(topology.outside, socket.SOCK_DGRAM, family=server.family) as near,
        ):
            for number in range(3):
                near.sendto(b"%d" % number, (host, OPEN))
                assert server.recv(16) == b"%d" % number


@pytest.mark.parametrize("kind", FIREWALLS)
def test_the_hosts_own_programs_always_reach_ports(topology: Topology, box: Box, kind: str) -> None:
    with in_netns(topology.host):
        FIREWALLS[kind](0)
    with listen(box.net, "0.0.0.0", 80) as server:
        assert talks(topology.host, ("127.0.0.1", OPEN), server) is not None
        assert talks(topology.host, (HOST_OUTER, OPEN), server) is not None


def test_input_rules_apply_to_containers_of_other_networks(topology: Topology, box: Box) -> None:
    other = topology.box()
    with listen(box.net, "0.0.0.0", 80) as server:
        assert talks(other.net, (HOST_OUTER, OPEN), server) is not None
        with in_netns(topology.host):
            FIREWALLS["nftables"](OPEN)
        assert talks(other.net, (HOST_OUTER, OPEN), server) is not None
        assert talks(other.net, (HOST_OUTER, CLOSED), server, timeout=BRIEF) is None


def test_a_rejected_port_is_refused_at_once_and_a_banned_sender_is_dropped(
    topology: Topology, box: Box
) -> None:
    run_nft(topology.host, "add table inet own")
    run_nft(topology.host, "add set inet own banned { type ipv4_addr; flags timeout; }")
    run_nft(topology.host, "add chain inet own in { type filter hook input priority 0; }")
    run_nft(topology.host, "add rule inet own in ip saddr @banned drop")
    run_nft(topology.host, f"add rule inet own in tcp dport {CLOSED} reject with tcp reset")
    with client(topology.outside) as near, pytest.raises(ConnectionRefusedError):
        near.connect((HOST_OUTER, CLOSED))
    with listen(box.net, "0.0.0.0", 80) as server:
        assert talks(topology.outside, (HOST_OUTER, OPEN), server) == OUTSIDE
        run_nft(topology.host, f"add element inet own banned {{ {OUTSIDE} }}")
        assert talks(topology.outside, (HOST_OUTER, OPEN), server, timeout=BRIEF) is None
        run_nft(topology.host, f"delete element inet own banned {{ {OUTSIDE} }}")
        assert talks(topology.outside, (HOST_OUTER, OPEN), server) == OUTSIDE


def test_rules_see_the_hosts_port_and_interface_and_count_one_packet_a_connection(
    topology: Topology, box: Box
) -> None:
    run_nft(topology.host, "add table ip own")
    run_nft(
        topology.host, "add chain ip own in { type filter hook input priority 0; policy drop; }"
    )
    run_nft(
        topology.host, f"add rule ip own in iif up0 tcp dport {OPEN} ct state new counter accept"
    )
    with listen(box.net, "0.0.0.0", 80) as server:
        for _ in range(3):
            assert talks(topology.outside, (HOST_OUTER, OPEN), server) == OUTSIDE
    assert "counter packets 3 " in run_nft(topology.host, "list", "chain", "ip", "own", "in")


def test_a_port_with_notrack_is_still_reachable(topology: Topology, box: Box) -> None:
    run_nft(topology.host, "add table inet own")
    run_nft(topology.host, "add chain inet own pre { type filter hook prerouting priority -310; }")
    run_nft(topology.host, f"add rule inet own pre tcp dport {OPEN} notrack")
    assert reached(topology, box, OPEN) == EVERYTHING


def test_a_first_datagram_larger_than_the_bridges_mtu_arrives(topology: Topology) -> None:
    with in_netns(topology.host):
        topology.manager.define(network("small", mtu=1280))
    made = join(topology, "small")
    publish(topology, made)
    with (
        listen(made.net, "0.0.0.0", 80, socket.SOCK_DGRAM) as server,
        client(topology.outside, socket.SOCK_DGRAM) as near,
    ):
        near.sendto(b"x" * 4000, (HOST_OUTER, OPEN))
        assert len(server.recv(8192)) == 4000


def test_without_the_tables_nothing_is_translated(topology: Topology, box: Box) -> None:
    table = bridge_rules.table_name(bridge_of(topology))
    for family in ("ip", "ip6"):
        run_nft(topology.host, "delete", "table", family, table)
    assert reached(topology, box, OPEN) == NOTHING


def bridge_of(topology: Topology) -> str:
    tables = run_nft(topology.host, "list", "tables", "ip6").split()
    return tables[2].removeprefix("jaula_")


def test_past_the_firewall_ports_ignore_the_input_rules(topology: Topology) -> None:
    """Like Docker's ports: in a network with the option, or for a whole engine."""
    with in_netns(topology.host):
        topology.manager.define(network("open", ipv6=True, past_firewall=True))
        FIREWALLS["nftables"](0)
        run_nft(topology.host, "flush chain inet filter forward")
        run_nft(topology.host, "chain inet filter forward { policy accept; }")
    made = join(topology, "open")
    publish(topology, made)
    assert reached(topology, made, OPEN) == EVERYTHING


def test_an_engine_can_publish_past_the_firewall_by_default(topology: Topology) -> None:
    topology.manager.close()
    with in_netns(topology.host):
        topology.manager = NetworkManager(
            topology.config.paths,
            msgspec.structs.replace(topology.config, publish_past_firewall=True),
        )
    made = topology.box()
    publish(topology, made)
    run_nft(topology.host, "add table inet own")
    run_nft(
        topology.host, "add chain inet own in { type filter hook input priority 0; policy drop; }"
    )
    with listen(made.net, "0.0.0.0", 80) as server:
        assert talks(topology.outside, (HOST_OUTER, OPEN), server) == OUTSIDE


def test_an_internal_network_reaches_no_port_at_its_gateway(topology: Topology, box: Box) -> None:
    with in_netns(topology.host):
        topology.manager.define(network("vault", internal=True))
        gateway = str(topology.manager.ensure("vault").gateway)
    inner = join(topology, "vault")
    with listen(box.net, "0.0.0.0", 80) as server:
        assert talks(inner.net, (gateway, OPEN), server, timeout=BRIEF) is None


def test_a_kernel_that_refuses_writes_to_the_header_hands_ports_over(
    topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux 6.18.44 refuses them in a user namespace: the ports are open, without a warning."""
    run = Libnftables.run

    def refuse(self: Libnftables, commands: str, *, json: bool = False) -> str:
        if "frag-off set" in commands:
            raise FirewallError("operation not permitted")
        return run(self, commands, json=json)

    monkeypatch.setattr(Libnftables, "run", refuse)
    made = topology.box()
    publish(topology, made)
    with listen(made.net, "0.0.0.0", 80) as server:
        assert talks(topology.outside, (HOST_OUTER, OPEN), server) is not None
    with in_netns(topology.host):
        assert not [line for line in topology.manager.warnings() if "reachable" in line]


def test_without_dup_ports_are_closed_to_outside(
    topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a kernel without ``dup`` the ports are closed and a warning is logged."""
    run = Libnftables.run

    def refuse(self: Libnftables, commands: str, *, json: bool = False) -> str:
        if "dup to" in commands:
            raise FirewallError("no such file or directory")
        return run(self, commands, json=json)

    monkeypatch.setattr(Libnftables, "run", refuse)
    made = topology.box()
    publish(topology, made)
    with listen(made.net, "0.0.0.0", 80) as server:
        assert talks(topology.host, ("127.0.0.1", OPEN), server) is not None
        assert talks(topology.host, (HOST_OUTER, OPEN), server) is not None
        assert talks(topology.outside, (HOST_OUTER, OPEN), server, timeout=BRIEF) is None
    with in_netns(topology.host):
        assert any(
            "are reachable from this host only" in line for line in topology.manager.warnings()
        )
