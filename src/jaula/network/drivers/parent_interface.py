"""The parent interface of a macvlan or ipvlan network.

Follows Docker's drivers. A missing parent is created if its name is ``INTERFACE.TAG``: ``eth0.10``
is the VLAN 10 (IEEE 802.1Q) of eth0. A network without a parent gets a dummy link. Created links
are deleted with the network. An existing parent is never changed.
"""

from __future__ import annotations

import errno

import msgspec

from jaula.errors import Conflict, InvalidRequest, JaulaError, NotFound, Unsupported
from jaula.kernel.netlink import Request
from jaula.kernel.rtnetlink import (
    Rtnetlink,
    add_dummy,
    add_ipvlan,
    add_macvlan,
    add_vlan,
    delete_link,
    set_link,
)
from jaula.network.owner import LinkOwner
from jaula.spec.endpoint_record import Endpoint

MAX_VLAN_ID = 4094
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.ENOTSUP)


class ParentPlan(msgspec.Struct, frozen=True):
    """The parent interface and what is created on it.

    ``owned`` says that the network owns the parent, ``dummy`` that the parent is a dummy link.
    ``driver`` is macvlan or ipvlan, with its ``mode`` and ``flag``. ``mtu`` 0 is the parent's MTU.
    """

    name: str
    driver: str
    mode: str
    flag: str = "bridge"
    mtu: int = 0
    owned: bool = False
    dummy: bool = False


def dummy_name(network_id: str) -> str:
    """Return the name of the dummy parent of a network."""
    return f"dm-{network_id[:12]}"


class ParentInterface:
    """The parent of one network, in the network namespace of the creating thread."""

    def __init__(self, plan: ParentPlan, owner: LinkOwner | None = None) -> None:
        self.plan = plan
        self._owner = owner
        self.links = Rtnetlink()

    def set_up(self) -> None:
        """Check that the parent exists, or create it if the network owns it.

        :raises Conflict: when another engine created it.
        :raises JaulaError: when the parent is absent and cannot be created.
        """
        name = self.plan.name
        link, owner = self.links.link(name), self._owner
        if link is not None and owner is not None and (other := owner.other(link.alias)):
            raise Conflict(
                f"the parent interface {name} belongs to another engine ({other[:12]})",
                hint="choose another parent: that engine deletes it with its network",
            )
        if link is None:
            if not self.plan.owned:
                raise NotFound(f"the parent interface {name} does not exist")
            self._create()
        if self.plan.owned:
            alias = None if self._owner is None else self._owner.mark
            self.links.send(set_link(name, up=True, alias=alias))

    def _create(self) -> None:
        name = self.plan.name
        if self.plan.dummy:
            self._send(add_dummy(name), "dummy")
            return
        base, tag = parse_vlan_name(name)
        base_link = self.links.link(base)
        if base_link is None:
            raise NotFound(f"the parent interface {name} does not exist, and neither does {base}")
        self._send(add_vlan(name, parent=base_link.index, tag=tag), "vlan")

    def _send(self, request: Request, kind: str) -> None:
        try:
            self.links.send(request)
        except OSError as exc:
            reason = exc.strerror
            if exc.errno in _UNSUPPORTED:
                raise Unsupported(
                    f"this kernel does not support {kind} links", hint=reason
                ) from exc
            raise JaulaError(f"cannot create the interface {self.plan.name}: {reason}") from exc

    def is_there(self) -> bool:
        """Return whether the parent exists."""
        return self.links.index(self.plan.name) > 0

    def connect(self, endpoint: Endpoint, netns_fd: int) -> Endpoint:
        """Create an endpoint's interface in a network namespace. Return the endpoint with its MAC.

        The interface is down.

        :raises OSError: when the kernel refuses a request.
        """
        plan = self.plan
        link = self.links.link(plan.name)  # its index changes if it was created again
        if link is None:
            raise OSError(errno.ENODEV, f"the parent interface {plan.name} does not exist")
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
        """Delete the parent if the network owns it, and no other engine does."""
        link = self.links.link(self.plan.name)
        alias = "" if link is None else link.alias
        if self.plan.owned and (self._owner is None or self._owner.may_delete(alias)):
            self.links.send(delete_link(self.plan.name), ignore=(errno.ENODEV,))

    def close(self) -> None:
        """Close the socket."""
        self.links.close()


def parse_vlan_name(name: str) -> tuple[str, int]:
    """Parse ``eth0.10`` as (eth0, 10).

    :raises InvalidRequest: when the name has no VLAN tag.
    """
    base, _, tag = name.rpartition(".")
    if base and tag.isascii() and tag.isdigit() and 0 < int(tag) <= MAX_VLAN_ID:
        return base, int(tag)
    raise InvalidRequest(
        f"the parent interface {name} does not exist",
        hint="use an interface of the host, or INTERFACE.TAG to create a VLAN link",
    )
