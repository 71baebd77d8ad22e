"""A macvlan or ipvlan network: its containers are on the parent's wire, beside the host.

What they send and get does not pass the host's network stack: none of its firewall's rules and none
of the engine's see it, the host itself is not reached by way of the parent, and no port of the host
leads to them. A container has the interface from birth, and it goes with the namespace.
"""

from __future__ import annotations

import msgspec

from jaula.errors import JaulaError
from jaula.network import endpoint_config, host_routes
from jaula.network.drivers.parent_interface import ParentInterface
from jaula.network.ipam import Addresses, IpamPlan
from jaula.network.network import Network, OtherSubnets
from jaula.spec.endpoint import Endpoint

ROUTED_MODES = ("l3", "l3s")
"""Modes of ipvlan in which the parent routes, and nobody answers for a gateway."""


class MacvlanNetwork(Network):
    """One such network. ``promised`` gives the subnets of others."""

    def __init__(
        self,
        network: str,
        parent: ParentInterface,
        ipv4: IpamPlan,
        promised: OtherSubnets,
        *,
        internal: bool,
        addresses6: Addresses | None,
    ) -> None:
        super().__init__(network, internal=internal, addresses6=addresses6)
        self.parent = parent
        self._ipv4 = ipv4
        self._promised = promised

    @property
    def name(self) -> str:
        """The parent's."""
        return self.parent.plan.name

    def ensure(self) -> Addresses:
        """Find the parent, or make it if it is to be made."""
        if self.addresses is None:
            try:
                self.parent.set_up()
                taken = [*host_routes.ipv4_networks(self.parent.links), *self._promised()]
            except OSError as exc:
                raise JaulaError(f"cannot use the interface {self.name}: {exc}") from exc
            self.addresses = self._ipv4.addresses(self._ipv4.choose(taken))
        return self.addresses

    def _link(self, endpoint: Endpoint, netns_fd: int, *, default_route: bool) -> Endpoint:
        if self.parent.plan.mode in ROUTED_MODES:
            on_link = not endpoint.internal
            endpoint = msgspec.structs.replace(endpoint, gateway="", gateway6="", on_link=on_link)
        endpoint = msgspec.structs.replace(endpoint, host_interface="")
        made = self.parent.connect(endpoint, netns_fd)
        try:
            endpoint_config.configure(made, netns_fd, default_route=default_route)
        except OSError:
            endpoint_config.remove(made, netns_fd)
            raise
        return made

    def _dismiss(self, endpoint: Endpoint) -> None:
        """There is no rule to take back: nothing between the container and the wire has any."""

    def delete_interface(self, endpoint: Endpoint, netns_fd: int | None) -> None:
        """Remove the interface from the container's namespace."""
        if netns_fd is not None:
            endpoint_config.remove(endpoint, netns_fd)

    def sweep(self) -> list[str]:
        """Nothing of a container is on the host."""
        return []

    def take_down(self) -> None:
        """Remove the parent if it came with the network."""
        self.parent.remove()
        self.addresses = None

    def close(self) -> None:
        """Give up the parent's socket."""
        self.parent.close()
