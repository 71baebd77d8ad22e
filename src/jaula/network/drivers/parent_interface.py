"""An interface of the host that a macvlan or ipvlan network lies on.

Follows Docker's drivers: a parent that is not there is made if its name says how, ``eth0.10`` being
the link for the frames with tag 10 on eth0 (IEEE 802.1Q), and a network without a parent gets a
dummy link that leads nowhere. What was made goes with the network. A parent that was there is
never changed.
"""

from __future__ import annotations

import errno

import msgspec

from jaula.errors import InvalidRequest, JaulaError, NotFound, Unsupported
from jaula.kernel.links import (
    add_dummy,
    add_ipvlan,
    add_macvlan,
    add_vlan,
    delete_link,
    set_link,
)
from jaula.kernel.netlink import Request
from jaula.kernel.rtnetlink import Rtnetlink
from jaula.spec.endpoint import Endpoint

MAX_VLAN_ID = 4094
_ABSENT = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.ENOTSUP)


class ParentPlan(msgspec.Struct, frozen=True):
    """What lies on the parent ``name``.

    ``made`` says that the parent came with the network, and ``dummy`` that it leads nowhere.
    ``driver`` is macvlan or ipvlan; ``mode`` and ``flag`` are its own. ``mtu`` 0 is the parent's.
    """

    name: str
    driver: str
    mode: str
    flag: str = "bridge"
    mtu: int = 0
    made: bool = False
    dummy: bool = False


def dummy_name(network_id: str) -> str:
    """The parent of a network that was given none."""
    return f"dm-{network_id[:12]}"


class ParentInterface:
    """The parent of one network, of the namespace of the thread that made this object."""

    def __init__(self, plan: ParentPlan) -> None:
        self.plan = plan
        self.links = Rtnetlink()

    def set_up(self) -> None:
        """Find the parent or make it.

        :raises JaulaError: it is not there and cannot be made.
        """
        name = self.plan.name
        if self.links.link(name) is None:
            if not self.plan.made:
                raise NotFound(f"the parent interface {name} is not there")
            self._make()
        if self.plan.made:
            self.links.send(set_link(name, up=True))

    def _make(self) -> None:
        name = self.plan.name
        if self.plan.dummy:
            self._send(add_dummy(name), "dummy")
            return
        base, tag = parse_vlan_name(name)
        below = self.links.link(base)
        if below is None:
            raise NotFound(
                f"the parent interface {name} is not there, and neither is {base} to make it on"
            )
        self._send(add_vlan(name, parent=below.index, tag=tag), "vlan")

    def _send(self, request: Request, kind: str) -> None:
        try:
            self.links.send(request)
        except OSError as exc:
            reason = exc.strerror
            if exc.errno in _ABSENT:
                raise Unsupported(f"this kernel has no links of kind {kind}", hint=reason) from exc
            raise JaulaError(f"cannot make the interface {self.plan.name}: {reason}") from exc

    def connect(self, endpoint: Endpoint, netns_fd: int) -> Endpoint:
        """An interface on the parent, in that namespace and down; the endpoint with its MAC.

        :raises OSError: the kernel refused.
        """
        plan = self.plan
        link = self.links.link(plan.name)  # it may have come back with another number
        if link is None:
            raise OSError(errno.ENODEV, f"the parent interface {plan.name} is gone")
        mtu = plan.mtu or link.mtu
        if plan.driver == "ipvlan":
            self._send(
                add_ipvlan(
                    endpoint.interface,
                    parent=link.index,
                    netns=netns_fd,
                    mode=plan.mode,
                    flag=plan.flag,
                    mtu=mtu,
                ),
                "ipvlan",
            )
            return msgspec.structs.replace(endpoint, mac=link.mac)
        self._send(
            add_macvlan(
                endpoint.interface,
                parent=link.index,
                netns=netns_fd,
                mode=plan.mode,
                mac=None if plan.mode == "passthru" else endpoint.mac,
                mtu=mtu,
            ),
            "macvlan",
        )
        return (
            msgspec.structs.replace(endpoint, mac=link.mac) if plan.mode == "passthru" else endpoint
        )

    def remove(self) -> None:
        """Remove the parent if it came with the network."""
        if self.plan.made:
            self.links.send(delete_link(self.plan.name), ignore=(errno.ENODEV,))

    def close(self) -> None:
        """Give up the socket."""
        self.links.close()


def parse_vlan_name(name: str) -> tuple[str, int]:
    """``eth0.10`` as (eth0, 10). Raises ``InvalidRequest`` for a name that says no tag."""
    base, _, tag = name.rpartition(".")
    if base and tag.isascii() and tag.isdigit() and 0 < int(tag) <= MAX_VLAN_ID:
        return base, int(tag)
    raise InvalidRequest(
        f"the parent interface {name} is not there",
        hint="name one of the host's interfaces, or INTERFACE.TAG to have it made",
    )
