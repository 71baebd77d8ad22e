"""Ports of the host that lead to containers: reserved, told to the firewall, and taken back."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from jaula.errors import Conflict, JaulaError, NotFound
from jaula.network.drivers.bridge import BridgeNetwork
from jaula.network.ports import conntrack
from jaula.network.ports.allocator import PortAllocator, PortBinder
from jaula.network.ports.port import PortRequest, PortTarget
from jaula.spec.endpoint import Endpoint, PublishedPort


class PortMapper:
    """All published ports of an engine. Not thread safe. ``told`` is for the operator."""

    def __init__(self, binder: PortBinder | None = None) -> None:
        self.told: list[str] = []
        self._ports = PortAllocator(binder)

    def publish(
        self, segment: BridgeNetwork, endpoint: Endpoint, ports: Sequence[PortRequest]
    ) -> list[PublishedPort]:
        """Make ports of a container reachable, all or none of them."""
        known = segment.endpoints.get(endpoint.container_id)
        if known is None or known.endpoint_id != endpoint.endpoint_id:
            raise NotFound(f"container {endpoint.container_name} is not attached")
        if known.ports:
            raise Conflict(f"ports of {endpoint.container_name} are already published")
        bindings = self._ports.reserve(endpoint.container_id, ports, port_target(known))
        segment.endpoints[endpoint.container_id] = msgspec.structs.replace(
            known, ports=tuple(bindings)
        )
        try:
            segment.publish(known, bindings, verb="add")
            self.delete_udp_flows(bindings)
        except JaulaError:
            segment.endpoints[endpoint.container_id] = known
            self._ports.release(endpoint.container_id)
            raise
        return bindings

    def unpublish(self, segments: Collection[BridgeNetwork], container_id: str) -> None:
        """Take back all published ports of a container."""
        bindings = self._ports.release(container_id)
        for segment in segments:
            known = segment.endpoints.get(container_id)
            if known is None or not known.ports or not bindings:
                continue
            segment.endpoints[container_id] = msgspec.structs.replace(known, ports=())
            segment.publish(known, bindings, verb="delete")
            self.delete_udp_flows(bindings)

    def reclaim(self, endpoint: Endpoint) -> Endpoint:
        """Take the ports of a record again; the endpoint as it is if they are held already.

        :raises JaulaError: one is not to be had.
        """
        ports = endpoint.ports
        if ports and self._ports.held(endpoint.container_id) != ports:
            self._ports.release(endpoint.container_id)
            self._ports.reserve(
                endpoint.container_id, map(_as_request, ports), port_target(endpoint)
            )
        return endpoint

    def keep_only(self, endpoints: Sequence[Endpoint]) -> None:
        """Let go of what a former engine took beyond what these have."""
        self._ports.keep_only(
            {row.container_id: port_target(row) for row in endpoints if row.ports}
        )

    def delete_udp_flows(self, ports: Sequence[PublishedPort]) -> None:
        """Let UDP flows to these ports be decided anew."""
        try:
            conntrack.delete_udp_flows(ports)
        except OSError as exc:
            # Not worth a failure: such flows end by themselves when they are silent for 2 minutes.
            self.told.append(f"UDP flows of a former owner of a port may go on: {exc}")

    def close(self) -> None:
        """Give every port back, unless that is to outlive the engine."""
        self._ports.close()


def port_target(endpoint: Endpoint) -> PortTarget:
    """Where ports of a container lead."""
    return PortTarget(endpoint.ipv4, endpoint.ipv6)


def _as_request(binding: PublishedPort) -> PortRequest:
    """Ask again for exactly what was had."""
    return PortRequest(binding.container_port, binding.protocol, binding.host_ip, binding.host_port)
