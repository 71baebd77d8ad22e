"""A checkpoint as the source of a start, which continues its processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jaula.features.checkpoint.checkpoint_store import checkpoint_store
from jaula.runtime.shim_protocol import RestoreSetup
from jaula.spec.api_networks import EndpointIPAMConfig

if TYPE_CHECKING:
    from jaula.engine.model.services import Services
    from jaula.engine.networks.endpoints import NetworkEndpoints
    from jaula.features.checkpoint.checkpoint_store import CheckpointStore, Manifest
    from jaula.runtime.shim_protocol import StartRequest
    from jaula.state.container_records import ContainerRecord


class CheckpointSource:
    """A checkpoint that a container continues, for :meth:`Starter.start`.

    With ``hold`` the images of the checkpoint arrive while the runtime waits.
    """

    def __init__(self, services: Services, manifest: Manifest, hold: int = -1) -> None:
        self._services = services
        self._manifest = manifest
        self.hold = hold

    def endpoints(self, networks: NetworkEndpoints) -> NetworkEndpoints:
        """Return the settings of networks with the addresses that the container had."""
        return keep_addresses(networks, self._manifest)

    def complete(self, record: ContainerRecord, request: StartRequest) -> StartRequest:
        """Restore the egress lists, and return the request with the restore."""
        services, resolved = self._services, record.resolved
        for address in self._manifest.addresses:
            services.network_manager.restore_egress(record.id, address.network, address.names)
        ports = tuple(p.container_port for p in resolved.ports if p.protocol == "tcp")
        host = record.host_config
        is_listed = host.egress is not None or host.listen is not None
        restore = restore_setup(
            services.service(checkpoint_store),
            self._manifest,
            record.hostname,
            ports if is_listed else None,
            early=self.hold >= 0,
        )
        if self.hold >= 0 and self._shares_network(record):
            restore = msgspec.structs.replace(restore, shares_network=True)
        return msgspec.structs.replace(request, restore=restore)

    def _shares_network(self, record: ContainerRecord) -> bool:
        return any(
            other.record.resolved.namespaces.net.container == record.id
            for other in self._services.container_store
        )


def restore_setup(
    store: CheckpointStore,
    manifest: Manifest,
    hostname: str,
    published: tuple[int, ...] | None = None,
    *,
    early: bool = False,
) -> RestoreSetup:
    """Return what the runtime needs to restore a checkpoint; ``hostname`` is the container's.

    ``published`` are the published TCP ports of a container with an egress or listen list. With
    ``early`` the images do not exist yet.

    The processes keep the host name that they had, unless they were those of another container.
    """
    former = manifest.description.hostname if manifest.description is not None else hostname
    return RestoreSetup(
        images=str(store.images(manifest)),
        stdio=manifest.stdio,
        tcp_established=manifest.tcp_established,
        hostname=hostname if hostname != former else "",
        published=published,
        early=early,
    )


def keep_addresses(networks: NetworkEndpoints, manifest: Manifest) -> NetworkEndpoints:
    """Return the settings of networks with the addresses that the container had. Pure."""
    kept = dict(networks)
    for each in manifest.addresses:
        if each.network not in kept:
            continue
        settings = kept[each.network]
        kept[each.network] = msgspec.structs.replace(
            settings,
            ipam_config=EndpointIPAMConfig(ipv4_address=each.ipv4, ipv6_address=each.ipv6),
            mac_address=each.mac,
        )
    return kept
