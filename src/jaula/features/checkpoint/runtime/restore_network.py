"""The network of a restored container: links, addresses and routes of its sandbox.

The engine configures the interfaces in a sandbox, as for every start. But CRIU creates the network
namespace of the container itself, since it must belong to the new user namespace. So the links move
there, with their addresses and default routes.

Facts about veth: while the host's end is down, the container's end keeps its addresses and routes
but has no carrier. So sockets can be restored to the addresses, and no packet arrives before the
container has been verified. The host's end stays a port of its bridge.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from jaula.errors import RuntimeFailure
from jaula.features.checkpoint.runtime.check_images import refuse
from jaula.kernel import nftables, process_calls
from jaula.kernel.namespaces import open_namespace
from jaula.kernel.netlink import Request, in_netns
from jaula.kernel.rtnetlink import (
    IF_OPER_UP,
    Address,
    Link,
    Route,
    Rtnetlink,
    add_address,
    add_default_device_route,
    add_default_route,
    set_link,
)

_SYSCTLS = "/proc/sys/net"
_OF_INTERFACE = ("accept_ra", "autoconf", "accept_redirects", "accept_dad", "disable_ipv6")
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_MAIN_TABLE = 254
_TCP_REPAIR = 19  # include/uapi/linux/tcp.h
_VETH = "veth"
_PARENTED = ("macvlan", "ipvlan")  # their other end is another interface of the host
_HOLD = "jaula-restore"  # table that drops packets until the container has been verified
_DNS = "jaula_dns"  # the engine's own table, which it makes again
_LOCK = "CRIU-"  # beginning of the name of the table with which CRIU holds packets back
_MOVED = "jaula-moved-"  # of the table that drops packets for one container of a joined namespace
_PING_GROUPS = "net.ipv4.ping_group_range"
_CARRIER_TIMEOUT = 0.5  # seconds
_BROADCAST = b"\xff" * 6
_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD  # EtherTypes


def loopback_up(netns: int) -> None:
    """Set the loopback interface of a new network namespace up."""
    with Rtnetlink(netns) as inside:
        inside.send(set_link("lo", up=True))


def move(source: int, target: int) -> tuple[int, ...]:
    """Move all interfaces between network namespaces; return the indexes of their host ends.

    The host ends are down afterwards. An interface without one is up, so a table of the firewall
    drops packets. :func:`connect` ends both.

    :raises RuntimeFailure: when an interface cannot be moved.
    """
    with Rtnetlink(source) as before, Rtnetlink() as host:
        links = _interfaces(before, (*_PARENTED, _VETH))
        addresses, routes = before.addresses(), before.routes()
        settings = {link.name: _read_settings(source, link.name) for link in links}
        if not links:
            return ()
        host_ends = tuple(link.parent for link in links if link.kind == _VETH)
        if len(host_ends) < len(links):
            nftables.add_drop_table(target, _HOLD)
        if host_ends:
            host.send(*(set_link(index, up=False) for index in host_ends))
        before.send(*(set_link(link.index, netns=target) for link in links))
    with in_netns(target):
        for name, values in settings.items():
            _write_settings(name, values)
        inside = Rtnetlink()
    with inside:
        inside.send(set_link("lo", up=True))
        for link in links:
            _configure(inside, link, addresses, routes)
    return host_ends


def hold(netns: int) -> None:
    """Send no TCP reset in a network namespace until :func:`connect`.

    So connections between two of its containers, one of which is restored before the other, stay.

    :raises OSError: when the kernel refuses.
    """
    nftables.add_reset_table(netns, _HOLD)


def check(pid: int) -> None:
    """Check that the network of process ``pid`` has nothing but what the engine makes at a start.

    :raises InvalidRequest: with the way out.
    """
    netns = open_namespace(pid, "net")
    try:
        with Rtnetlink(netns) as inside:
            links = [link for link in inside.links() if link.name != "lo"]
        # The other containers of the namespace may be moved at the same time.
        tables = [
            name
            for name in nftables.tables(netns)
            if name != _DNS and not name.startswith((_LOCK, _MOVED))
        ]
    finally:
        os.close(netns)
    for link in links:
        if link.kind not in (*_PARENTED, _VETH):
            raise refuse(
                f"the container has made the network interface {link.name}"
                f" ({link.kind or 'hardware'}), which a restore would lose",
                "let its programs remove it",
            )
    if tables:
        raise refuse(
            f"the container has the nftables table {tables[0]} of its own, which a restore would"
            " lose",
            "let its programs remove it",
        )


def disconnect(netns: int) -> tuple[int, ...]:
    """Set the host ends of all interfaces down; return their indexes for :func:`connect`.

    :raises RuntimeFailure: when an interface is not a veth.
    """
    with Rtnetlink(netns) as inside, Rtnetlink() as host:
        links = _interfaces(inside, (_VETH,))
        host.send(*(set_link(link.parent, up=False) for link in links))
    return tuple(link.parent for link in links)


def _interfaces(inside: Rtnetlink, kinds: Collection[str]) -> list[Link]:
    links = [link for link in inside.links() if link.name != "lo"]
    for link in links:
        if link.kind not in kinds:
            raise RuntimeFailure(
                f"interface {link.name} ({link.kind or 'hardware'}) cannot be restored",
                hint=f"only interfaces of these kinds are restored: {', '.join(sorted(kinds))}",
            )
    return links


def _configure(
    inside: Rtnetlink, link: Link, addresses: list[Address], routes: list[Route]
) -> None:
    found = inside.link(link.name)
    if found is None:
        raise RuntimeFailure(f"interface {link.name} has not arrived in the container")
    requests: list[Request] = [set_link(found.index, up=link.up)]
    added = []
    for address in addresses:
        link_local = address.family == socket.AF_INET6 and address.address.startswith("fe80:")
        if address.index == link.index and not link_local:
            requests.append(add_address(found.index, address.address, address.prefix))
            added.append(address)
    for route in routes:
        if route.index != link.index or route.prefix or route.table != _MAIN_TABLE:
            continue
        if route.gateway:
            requests.append(add_default_route(route.gateway))
        elif route.family in _FAMILIES:
            requests.append(add_default_device_route(found.index, route.family))
    inside.send(*requests)
    for address in added:
        if address.family == socket.AF_INET6:
            inside.await_local(address.address)


def connect(netns: int, host_ends: tuple[int, ...]) -> None:
    """Let packets of a network namespace pass from now on; ``host_ends`` is from :func:`move`."""
    nftables.delete_tables(netns, _HOLD)
    if host_ends:
        with Rtnetlink() as host:
            host.send(*(set_link(index, up=True) for index in host_ends))


def address_reuse(pids: Iterable[int]) -> dict[int, int]:
    """Return SO_REUSEADDR of the TCP sockets of processes, by inode."""
    return {
        inode: sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        for inode, sock in _tcp_sockets(pids)
    }


def lock(init: int) -> None:
    """Drop the packets of the network namespace of ``init`` until :func:`unlock`.

    In a namespace that it is in itself, CRIU holds back the packets of the connections that it
    saves, and no new connection to a listener: its client would have one that no image has.

    :raises OSError: when the kernel refuses.
    """
    netns = open_namespace(init, "net")
    try:
        nftables.add_drop_table(netns, f"{_MOVED}{init}")
    finally:
        os.close(netns)


def unlock(
    init: int, pids: Iterable[int], reuse: Mapping[int, int], run_ids: Iterable[str] = ("",)
) -> None:
    """Let connections of a container go on after CRIU was killed in a dump.

    CRIU's table of nftables outlives it, and so does the repair mode (TCP_REPAIR) of the sockets
    that it has read. ``reuse`` is the result of :func:`address_reuse` before the dump: the end of
    the repair mode resets that option.

    ``run_ids`` name CRIU's table in a network namespace that other containers share, which may be
    dumped too. The table of :func:`lock` is deleted too.
    """
    for inode, sock in _tcp_sockets(pids):
        if sock.getsockopt(socket.IPPROTO_TCP, _TCP_REPAIR):
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse.get(inode, 0))
    try:
        netns = open_namespace(init, "net")
    except (FileNotFoundError, ProcessLookupError):
        return
    try:
        for run_id in run_ids:
            nftables.delete_tables(netns, _LOCK + run_id)
        nftables.delete_tables(netns, f"{_MOVED}{init}")
    finally:
        os.close(netns)


def unlock_all(netns: int) -> None:
    """Delete the tables with which dumps have held back the packets of a network namespace.

    None of its containers is dumped any more: one whose helper was killed has left its tables.
    """
    for prefix in (_LOCK, _MOVED):
        nftables.delete_tables(netns, prefix)


def _tcp_sockets(pids: Iterable[int]) -> Iterator[tuple[int, socket.socket]]:
    """Yield the inode and a copy of each TCP socket of processes; it is closed at the next step."""
    seen = set()
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has exited
            pidfd = process_calls.pidfd_open(pid)
            try:
                for number in os.listdir(f"/proc/{pid}/fd"):
                    with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                        name = process_calls.fd_name(pid, number)
                        if name.startswith("socket:[") and name not in seen:
                            seen.add(name)
                            sock = _copy(pidfd, int(number))
                            if sock is not None and sock.proto == socket.IPPROTO_TCP:
                                with sock:
                                    yield int(name[8:-1]), sock
            finally:
                os.close(pidfd)


def _copy(pidfd: int, number: int) -> socket.socket | None:
    """Return a copy of a socket of another process; None if its number is another file's now."""
    try:
        return socket.socket(fileno=process_calls.pidfd_getfd(pidfd, number))
    except OSError as error:
        if error.errno in (errno.EBADF, errno.ENOTSOCK, errno.ESRCH):
            return None
        raise


def announce(netns: int, host_ends: tuple[int, ...]) -> None:
    """Send gratuitous ARP (RFC 5227, section 3) and neighbor advertisements for all addresses.

    Switches and neighbors learn that the container is behind another port now. Both opcodes are
    sent, since hosts differ in which one they accept. The host ends have been set up before.
    """
    _await_carrier(host_ends)
    with Rtnetlink(netns) as inside:
        links = {link.index: link for link in inside.links() if link.name != "lo"}
        addresses = inside.addresses()
    with in_netns(netns):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with sock:
        for address in addresses:
            link = links.get(address.index)
            if link is None or address.address.startswith("fe80:"):
                continue
            mac = bytes.fromhex(link.mac.replace(":", ""))
            for frame in _announcements(mac, address.address):
                with contextlib.suppress(OSError):  # a neighbor learns it from the next packet
                    sock.sendto(frame, (link.name, 0))


def _await_carrier(host_ends: tuple[int, ...]) -> None:
    end = time.monotonic() + _CARRIER_TIMEOUT
    with Rtnetlink() as host:
        while time.monotonic() < end:
            states = [link.operstate for link in host.links() if link.index in host_ends]
            if all(state == IF_OPER_UP for state in states):
                return
            time.sleep(0.001)


def _announcements(mac: bytes, address: str) -> list[bytes]:
    """Return the frames that announce one address. Pure."""
    if ":" not in address:
        own = socket.inet_aton(address)
        head = _BROADCAST + mac + struct.pack("!HHHBB", _ARP, 1, _IPV4, 6, 4)
        return [
            head + struct.pack("!H", opcode) + mac + own + _BROADCAST + own
            for opcode in (1, 2)  # request, reply
        ]
    own = socket.inet_pton(socket.AF_INET6, address)
    group = socket.inet_pton(socket.AF_INET6, "ff02::1")
    # RFC 4861, section 4.4: override, target address, target link-layer address
    body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + own + b"\x02\x01" + mac
    pseudo = own + group + struct.pack("!II", len(body), socket.IPPROTO_ICMPV6)
    total = sum(struct.unpack(f"!{(len(pseudo) + len(body)) // 2}H", pseudo + body))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    body = body[:2] + struct.pack("!H", checksum) + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), socket.IPPROTO_ICMPV6, 255) + own + group
    ethernet = b"\x33\x33" + group[-4:] + mac + struct.pack("!H", _IPV6)
    return [ethernet + head + body]


def _read_settings(netns: int, interface: str) -> dict[str, str]:
    values = {}
    with in_netns(netns):
        for name in _OF_INTERFACE:
            try:
                with open(f"{_SYSCTLS}/ipv6/conf/{interface}/{name}", encoding="ascii") as file:
                    values[name] = file.read().strip()
            except FileNotFoundError:
                continue
    return values


def _write_settings(interface: str, values: dict[str, str]) -> None:
    for name, value in values.items():
        write_sysctl(f"net.ipv6.conf.{interface}.{name}".replace(".", "/"), value)


def write_sysctls(netns: int, sysctls: dict[str, str], group: Callable[[int], int]) -> None:
    """Set the network sysctls of a spec in a network namespace.

    ``group`` returns the host's id of a group: the kernel reads groups with the writer's map.
    """
    with in_netns(netns):
        for name, value in sorted(sysctls.items()):
            if name == _PING_GROUPS:
                value = " ".join(str(group(int(number))) for number in value.split())
            if name.startswith("net."):
                write_sysctl(name.replace(".", "/"), value)


def write_sysctl(path: str, value: str) -> None:
    """Set a sysctl of the calling thread's namespaces.

    :raises RuntimeFailure: when the kernel refuses it.
    """
    try:
        fd = os.open(f"/proc/sys/{path}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno == errno.ENOENT and "/ipv6/" in path:
            return  # a kernel without IPv6
        raise RuntimeFailure(f"sysctl {path} = {value}: {error}") from error
