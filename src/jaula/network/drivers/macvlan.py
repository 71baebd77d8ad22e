"""The macvlan and ipvlan drivers: containers are on the link of a parent interface of the host.

Their packets bypass the host's network stack. Neither the host's firewall nor the engine's applies,
the host is not reachable through the parent, and host ports cannot be published to them. The
interface is created in the container's network namespace and disappears with it.
"""

from __future__ import annotations

import errno

import msgspec

from jaula.errors import JaulaError
from jaula.network import endpoint_config, host_routes
from jaula.network.drivers.parent_interface import ParentInterface
from jaula.network.ipam import Addresses, IpamPlan
from jaula.network.network_driver import (
    MacAddressInUse,
    Network,
    OnRepair,
    OtherSubnets,
    no_report,
)
from jaula.spec.endpoint_record import Endpoint

ROUTED_MODES = ("l3", "l3s")
"""Modes of ipvlan in which the parent routes, and no host answers for a gateway address."""


class MacvlanNetwork(Network):
    """A macvlan or ipvlan network. ``other_subnets`` returns the subnets of other networks."""

    def __init__(
        self,
        network: str,
        parent: ParentInterface,
        ipv4: IpamPlan | None,
        other_subnets: OtherSubnets,
        *,
        internal: bool,
        addresses6: Addresses | None,
        on_repair: OnRepair = no_report,
    ) -> None:
        super().__init__(network, internal=internal, addresses6=addresses6)
        self.parent = parent
        self._ipv4 = ipv4
        if ipv4 is not None and ipv4.fixed is not None:  # known before the parent exists
            self.addresses = ipv4.addresses(ipv4.fixed)
        self._other_subnets = other_subnets
        self._on_repair = on_repair

    @property
    def name(self) -> str:
        """The parent interface's name."""
        return self.parent.plan.name

    def ensure(self) -> None:
        """Check the parent interface, or create it if the network owns it.

        One that another program deleted is created again. Its containers' links went with it.
        """
        if self.is_up and (self.parent.is_there() or not self.parent.plan.owned):
            return
        was_up = self.is_up
        try:
            self.parent.set_up()
            used = [*host_routes.ipv4_networks(self.parent.links), *self._other_subnets()]
        except OSError as exc:
            raise JaulaError(f"cannot use the interface {self.name}: {exc}") from exc
        if self._ipv4 is not None and self.addresses is None:
            self.addresses = self._ipv4.addresses(self._ipv4.choose(used))
        self.is_up = True
        if was_up:
            self._on_repair("interface", self.name)

    def _link(
        self, endpoint: Endpoint, netns_fd: int, *, default_route: bool, carrier: bool
    ) -> Endpoint:
        if self.parent.plan.mode in ROUTED_MODES:
            on_link = not endpoint.internal
            endpoint = msgspec.structs.replace(endpoint, gateway="", gateway6="", on_link=on_link)
        endpoint = msgspec.structs.replace(endpoint, host_interface="")
        created = self.parent.connect(endpoint, netns_fd)
        try:
            endpoint_config.configure(created, netns_fd, default_route=default_route)
        except OSError as error:
            endpoint_config.remove(created, netns_fd)
            if error.errno in (errno.EADDRINUSE, errno.EBUSY):  # by kernel release
                raise MacAddressInUse(
                    f"failed to set up network {self.network} for {endpoint.container_name}:"
                    f" another interface of {self.name} has the MAC address {endpoint.mac}"
                ) from error
            raise
        return created

    def _dismiss(self, endpoint: Endpoint) -> None:
        """Do nothing: no firewall rule applies between the container and the link."""

    def delete_interface(self, endpoint: Endpoint, netns_fd: int | None) -> None:
        """Delete the interface in the container's namespace."""
        if netns_fd is not None:
            endpoint_config.remove(endpoint, netns_fd)

    def orphaned_ports(self) -> list[str]:
        """Return nothing: the host has no interface of a container."""
        return []

    def delete_port(self, name: str) -> bool:
        """Delete nothing: the host has no interface of a container."""
        return False

    def take_down(self) -> None:
        """Delete the parent interface if the network owns it."""
        self.parent.remove()
        self.addresses, self.is_up = None, False

    def close(self) -> None:
        """Close the parent's socket."""
        self.parent.close()
