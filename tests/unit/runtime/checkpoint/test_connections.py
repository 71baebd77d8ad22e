"""Which connections of a restored container are tracked, and in which direction."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from jaula.features.checkpoint.runtime.connections import _address, _Socket, flows
from jaula.kernel.nfnetlink_conntrack import Flow

SUBNETS = [ipaddress.ip_network("10.1.0.0/24"), ipaddress.ip_network("fd00:1::/64")]
OWN = "10.1.0.2"


def row(port: int, peer: str, peer_port: int, state: str = "01", local: str = OWN) -> _Socket:
    return _Socket(local, port, peer, peer_port, state)


LISTENS = row(80, "0.0.0.0", 0, "0A", "0.0.0.0")


@pytest.mark.parametrize(
    ("rows", "published", "found"),
    [
        ([LISTENS, row(80, "10.1.0.1", 4000)], (), [Flow("10.1.0.1", 4000, OWN, 80)]),
        ([LISTENS, row(80, "192.0.2.7", 4000)], (), [Flow("192.0.2.7", 4000, OWN, 80)]),
        ([LISTENS, row(80, "192.0.2.7", 4000)], (80,), []),
        ([row(4000, "10.1.0.1", 5432)], (), [Flow(OWN, 4000, "10.1.0.1", 5432)]),
        ([row(4000, "192.0.2.7", 443)], (), []),  # translated
        ([LISTENS, row(80, "127.0.0.1", 4000)], (), []),
        ([LISTENS, row(80, "10.1.0.1", 4000, "06")], (), []),
        (
            [row(80, "fd00:1::9", 4000, local="fd00:1::2")],
            (),
            [Flow("fd00:1::2", 80, "fd00:1::9", 4000)],
        ),
    ],
)
def test_connections_that_the_host_does_not_translate_are_tracked(
    rows: list[_Socket], published: tuple[int, ...], found: list[Flow]
) -> None:
    assert list(flows(rows, published, SUBNETS)) == found


@pytest.mark.parametrize(
    ("text", "family", "address"),
    [
        ("0200010A:0050", socket.AF_INET, ("10.1.0.2", 80)),
        ("0000000000000000FFFF00000200010A:1F90", socket.AF_INET6, ("10.1.0.2", 8080)),
        ("000000FD000000000000000002000000:0001", socket.AF_INET6, ("fd00::2", 1)),
    ],
)
def test_addresses_of_proc_net_tcp(text: str, family: int, address: tuple[str, int]) -> None:
    assert _address(text, family) == address
