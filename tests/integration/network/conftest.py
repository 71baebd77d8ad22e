"""Network fixtures: a host namespace with an engine's network, and a machine outside it.

A socket belongs to the network namespace in which it was opened. So a test enters a namespace to
open a socket and then uses it from anywhere. The namespace of the test process is never changed.
"""

from __future__ import annotations

import errno
import os
import secrets
import selectors
import socket
import struct
import subprocess
import time
from collections.abc import Hashable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from jaula.config import EngineConfig, Paths
from jaula.kernel.namespaces import (
    CLONE,
    create_namespaces,
    open_namespace,
    setns,
    unshare,
)
from jaula.kernel.netlink import in_netns
from jaula.kernel.rtnetlink import (
    Rtnetlink,
    add_address,
    add_default_route,
    add_veth,
    mac_bytes,
    set_link,
)
from jaula.network import NetworkManager, endpoint_config
from jaula.spec.endpoint_record import Endpoint
from jaula.spec.network_record import NetworkRecord

HOST_OUTER, OUTSIDE = "198.51.100.1", "198.51.100.2"  # TEST-NET-2
HOST_SECOND = "198.51.100.3"
BRIEF = 0.8  # seconds of an attempt that is expected to fail
HOST_OUTER6, OUTSIDE6 = "2001:db8::1", "2001:db8::2"

Key = TypeVar("Key", bound=Hashable)


def new_namespace() -> int:
    home = open_namespace("thread-self", "net")
    try:
        unshare(CLONE.NEWNET)
        made = open_namespace("thread-self", "net")
    finally:
        setns(home, CLONE.NEWNET)
        os.close(home)
    with Rtnetlink(made) as inside:
        inside.send(set_link("lo", up=True))
    return made


@dataclass
class Box:
    """A container that consists of its namespaces only."""

    id: str
    net: int
    user: int
    endpoint: Endpoint

    @property
    def address(self) -> str:
        return self.endpoint.ipv4


@dataclass
class Topology:
    """The host's namespace, the outside machine's, and a manager on the host."""

    host: int
    outside: int
    manager: NetworkManager
    config: EngineConfig
    boxes: list[Box] = field(default_factory=list)

    def box(self, **options: str) -> Box:
        base = 500000 + 65536 * len(self.boxes)
        made = create_namespaces(CLONE.NEWNET, [(0, base, 65536)], [(0, base, 65536)])
        container_id = secrets.token_hex(32)
        with in_netns(self.host):
            endpoint = self.manager.attach("bridge", container_id, made["net"], **options)
        box = Box(container_id, made["net"], made["user"], endpoint)
        self.boxes.append(box)
        return box

    def new_manager(self) -> NetworkManager:
        """Return the manager of a new engine, after the last one was killed."""
        self.manager.close()
        with in_netns(self.host):
            self.manager = NetworkManager(self.config.paths, self.config)
        return self.manager


@pytest.fixture
def topology(tmp_path: Path) -> Iterator[Topology]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    host, outside = new_namespace(), new_namespace()
    with Rtnetlink(host) as near, Rtnetlink(outside) as far:
        near.send(add_veth("up0", mtu=1400, peer_name="eth0", peer_netns=outside))
        link, other = near.link("up0"), far.link("eth0")
        assert link is not None
        assert other is not None
        for netns, name in ((host, "up0"), (outside, "eth0")):
            with in_netns(netns):
                endpoint_config.write_sysctl(f"ipv6/conf/{name}/accept_dad", "0")  # usable at once
        near.send(
            set_link(link.index, up=True),
            add_address(link.index, HOST_OUTER, 24),
            add_address(link.index, HOST_SECOND, 24),
            add_address(link.index, HOST_OUTER6, 64),
        )
        far.send(
            set_link(other.index, up=True),
            add_address(other.index, OUTSIDE, 24),
            add_default_route(HOST_OUTER),
            add_address(other.index, OUTSIDE6, 64),
            add_default_route(HOST_OUTER6),
        )
        near.send(add_default_route(OUTSIDE))
    paths = Paths(tmp_path / "root", tmp_path / "run")
    config = EngineConfig(paths=paths, bridge="jltbr0", address_pool="172.30.0.0/15")
    with in_netns(host):
        manager = NetworkManager(paths, config)
    made = Topology(host, outside, manager, config)
    yield made
    with in_netns(host):
        made.manager.teardown(force=True)
        made.manager.close()
    for fd in (host, outside, *(fd for box in made.boxes for fd in (box.net, box.user))):
        os.close(fd)


def listen(netns: int, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    family = _family(address)
    with in_netns(netns):
        server = socket.socket(family, kind)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    if kind == socket.SOCK_STREAM:
        server.listen(16)
    server.settimeout(2)
    return server


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def client(
    netns: int,
    kind: int = socket.SOCK_STREAM,
    timeout: float = 0.8,
    family: int = socket.AF_INET,
) -> socket.socket:
    with in_netns(netns):
        made = socket.socket(family, kind)
    made.settimeout(timeout)
    return made


def talks(
    netns: int, target: tuple[str, int], server: socket.socket, *, timeout: float = 3
) -> str | None:
    """Connect and exchange a line with ``server``. Return the peer address it saw, or None.

    A neighbour solicitation that is lost is sent again after a second. A test that expects no
    connection passes :data:`BRIEF` as ``timeout``.
    """
    with client(netns, timeout=timeout, family=_family(target[0])) as near:
        try:
            near.connect(target)
        except OSError:
            return None
        far, seen = server.accept()
        with far:
            far.settimeout(2)
            far.sendall(b"hello\n")
            assert near.recv(16) == b"hello\n"
            near.sendall(b"bye\n")
            assert far.recv(16) == b"bye\n"
        return str(seen[0])


def connected(
    attempts: Mapping[Key, tuple[int, tuple[str, int]]], *, timeout: float = 3
) -> set[Key]:
    """Connect to all targets at once. Return the attempts that a server answered in time.

    An attempt is a namespace and a target. The kernel establishes a connection without accept(2),
    so a table of targets that must not be reached waits for one time-out.
    """
    result: set[Key] = set()
    with ExitStack() as stack, selectors.DefaultSelector() as pending:
        for key, (netns, target) in attempts.items():
            near = stack.enter_context(client(netns, timeout=0, family=_family(target[0])))
            problem = near.connect_ex(target)
            if problem == 0:
                result.add(key)
            elif problem == errno.EINPROGRESS:
                pending.register(near, selectors.EVENT_WRITE, key)
        end = time.monotonic() + timeout
        while pending.get_map() and (left := end - time.monotonic()) > 0:
            for ready, _ in pending.select(left):
                near = ready.fileobj  # type: ignore[assignment]
                pending.unregister(near)
                if near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    result.add(ready.data)
    return result


def talks_udp(netns: int, target: tuple[str, int], server: socket.socket) -> str | None:
    """Do the same with datagrams."""
    with client(netns, socket.SOCK_DGRAM, family=_family(target[0])) as near:
        try:
            near.sendto(b"ping", target)
        except OSError:
            return None
        server.settimeout(0.4)
        try:
            data, seen = server.recvfrom(16)
        except TimeoutError:
            return None
        assert data == b"ping"
        server.sendto(b"pong", seen)
        answer, source = near.recvfrom(16)
        assert answer == b"pong"
        assert source[:2] == target
        return str(seen[0])


def network(name: str, **options: object) -> NetworkRecord:
    """Return the record of a network with its own bridge."""
    identity = secrets.token_hex(32)
    fields: dict[str, object] = {"created": 0, "bridge": f"jlt-{identity[:8]}", **options}
    return NetworkRecord(name=name, id=identity, **fields)  # type: ignore[arg-type]


def join(topology: Topology, name: str, **options: object) -> Box:
    """Return another container in a defined network."""
    base = 500000 + 65536 * len(topology.boxes)
    made = create_namespaces(CLONE.NEWNET, [(0, base, 65536)], [(0, base, 65536)])
    container_id = secrets.token_hex(32)
    with in_netns(topology.host):
        endpoint = topology.manager.attach(name, container_id, made["net"], **options)  # type: ignore[arg-type]
    box = Box(container_id, made["net"], made["user"], endpoint)
    topology.boxes.append(box)
    return box


def run_nft(netns: int, *words: str) -> str:
    """Run the nft program in a namespace."""
    with in_netns(netns):
        done = subprocess.run(("nft", *words), capture_output=True, text=True, check=True)
    return done.stdout


def raw(netns: int, interface: str, protocol: int = 0x0003) -> socket.socket:
    """Return a packet socket on an interface, as a container with CAP_NET_RAW can open it."""
    with in_netns(netns):
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
        made.bind((interface, protocol))
    made.settimeout(0.3)
    return made


def received(listener: socket.socket, content: bytes) -> bool:
    """Return whether a frame that contains ``content`` arrives before the socket's timeout."""
    try:
        while True:
            if content in listener.recv(65536):
                return True
    except TimeoutError:
        return False


def udp_frame(
    to_mac: str, from_mac: str, source: str, target: str, port: int, payload: bytes
) -> bytes:
    """Return an Ethernet frame with an IPv4 UDP datagram (RFC 791, RFC 768)."""
    datagram = struct.pack(">HHHH", 40000, port, 8 + len(payload), 0) + payload
    head = struct.pack(
        ">BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(datagram), 7, 0, 64, socket.IPPROTO_UDP, 0),
        *(socket.inet_aton(source), socket.inet_aton(target)),
    )
    total = sum(struct.unpack(">10H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack(">H", ~total & 0xFFFF) + head[12:]
    return mac_bytes(to_mac) + mac_bytes(from_mac) + b"\x08\x00" + head + datagram


def arp_frame(sender_mac: str, sender_ip: str, target_ip: str) -> bytes:
    """Return a broadcast ARP request (RFC 826)."""
    mac = mac_bytes(sender_mac)
    return (
        b"\xff" * 6
        + mac
        + b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01"
        + mac
        + socket.inet_aton(sender_ip)
        + bytes(6)
        + socket.inet_aton(target_ip)
    )
