"""Disconnect the network of a sandbox during a migration: the host ends of its interfaces go down.

At the source no packet leaves the pod or reaches it from the stop of its containers on. At the
target the pod has its address before its containers are there, while the other pod still runs. So
it must not announce the address, and not answer packets for connections that are not restored yet.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaula.engine.userns import join
from jaula.features.checkpoint.runtime import restore_network
from jaula.kernel import nftables
from jaula.kernel.rtnetlink import Rtnetlink, set_link

if TYPE_CHECKING:
    from jaula.engine.model.container import Container

_SILENT = "jaula-silent"  # table that drops every packet
_NO_FAMILY = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.ENOENT)  # a kernel without nftables' arp


def silence(netns: int) -> None:
    """Drop every packet of a network namespace that has no interface yet.

    :raises OSError: when the kernel refuses.
    """
    nftables.add_drop_table(netns, _SILENT)
    try:
        nftables.add_arp_table(netns, _SILENT)
    except OSError as error:
        if error.errno not in _NO_FAMILY:
            raise


def hold(netns: int) -> None:
    """Cut off a network namespace from the host, and let sockets be restored in it.

    :raises RuntimeFailure: when an interface has no host end that could be set down.
    """
    restore_network.disconnect(netns)
    restore_network.hold(netns)
    nftables.delete_tables(netns, _SILENT)


def set_ports(sandbox: Container, *, up: bool) -> None:
    """Set the host ends of a running sandbox's interfaces up or down.

    :raises Conflict: when it has exited.
    """
    with _namespace(sandbox) as netns:
        ends = _host_ends(netns)
        with Rtnetlink() as host:
            host.send(*(set_link(index, up=up) for index in ends))


def connect(sandbox: Container) -> None:
    """Let the packets of a sandbox pass that was held, and announce its addresses.

    :raises Conflict: when it has exited.
    """
    with _namespace(sandbox) as netns:
        ends = _host_ends(netns)
        nftables.delete_tables(netns, _SILENT)
        nftables.delete_tables(netns, _SILENT, nftables.NFPROTO_ARP)
        restore_network.unlock_all(netns)
        restore_network.connect(netns, ends)
        restore_network.announce(netns, ends)


@contextlib.contextmanager
def _namespace(sandbox: Container) -> Iterator[int]:
    netns = join.open_namespaces(sandbox, ("network",))["network"]
    try:
        yield netns
    finally:
        os.close(netns)


def _host_ends(netns: int) -> tuple[int, ...]:
    with Rtnetlink(netns) as inside:
        return tuple(link.parent for link in inside.links() if link.kind == "veth" and link.parent)
