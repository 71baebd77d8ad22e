"""The services that the use cases need, wired once by ``jaula.daemon.create_engine``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from jaula import feature

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.cgroups.cgroup_driver import CgroupDriver
    from jaula.config import EngineConfig
    from jaula.engine.containers.engine_socket import EngineSockets
    from jaula.engine.group_commit import GroupCommit
    from jaula.engine.hooks import Hooks
    from jaula.engine.model.container_store import ContainerStore
    from jaula.engine.model.event_log import EventBus
    from jaula.engine.networks.dns_server import DnsServers
    from jaula.engine.networks.network_store import NetworkStore
    from jaula.engine.networks.sandbox_pool import SandboxPool
    from jaula.engine.oci_runtimes import RuntimeTable
    from jaula.engine.oci_spec.inputs import HostFacts
    from jaula.engine.userns.id_ranges import IdRanges, SingleIdRange
    from jaula.engine.volumes.volume_mount import VolumeMounts
    from jaula.engine.volumes.volume_references import VolumeReferences
    from jaula.images.lazy_layers import LazyLayers
    from jaula.images.policy import ImagePolicy
    from jaula.images.store.image_store import ImageStore
    from jaula.network.manager import NetworkManager
    from jaula.runtime.runtime_client import Runtime
    from jaula.state.claims import Claims
    from jaula.state.database import Database
    from jaula.storage.drivers.storage_driver import SnapshotDriver
    from jaula.storage.layers.layer_store import LayerStore
    from jaula.storage.volume_directories import VolumeStore


Service = TypeVar("Service")


@dataclass(slots=True)
class Services:
    """Everything below the engine, and the state that its use cases share."""

    config: EngineConfig
    identity: str
    host: HostFacts
    database: Database
    group_commit: GroupCommit
    container_store: ContainerStore
    events: EventBus
    runtime: Runtime
    runtime_table: RuntimeTable
    cgroups: CgroupDriver
    snapshots: SnapshotDriver
    layers: LayerStore
    images: ImageStore
    lazy_layers: LazyLayers | None
    image_policy: ImagePolicy
    volumes: VolumeStore
    volume_mounts: VolumeMounts
    volume_references: VolumeReferences
    network_manager: NetworkManager
    network_store: NetworkStore
    dns_servers: DnsServers
    id_ranges: IdRanges | SingleIdRange
    sandbox_pool: SandboxPool
    engine_sockets: EngineSockets
    started_at: int  # nanoseconds since the epoch
    hooks: Hooks
    claims: Claims | None = None  # None: in tests
    of_features: feature.ServiceCache = field(default_factory=feature.ServiceCache)

    def service(self, make: Callable[[Services], Service]) -> Service:
        """Return a service of a feature, by the function that makes it."""
        return self.of_features.service(self, make)
