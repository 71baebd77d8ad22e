"""The parts that the use cases work with, wired once by ``jaula.daemon.assembly``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaula.config import EngineConfig
from jaula.engine.events import Events
from jaula.engine.network_registry import NetworkRegistry
from jaula.engine.ranges import OneRange, Ranges
from jaula.engine.registry import Registry
from jaula.engine.resolving import Resolvers
from jaula.engine.runtimes import Runtimes
from jaula.engine.sandboxes import Sandboxes
from jaula.engine.secret_store import SecretStore
from jaula.engine.specbuild.facts import HostFacts
from jaula.engine.volume_mounts import VolumeMounts
from jaula.state.database import Database

if TYPE_CHECKING:
    from jaula.cgroups.protocol import CgroupDriver
    from jaula.images.store.store import ImageStore
    from jaula.images.trust.policy import ImagePolicy
    from jaula.network.manager import NetworkManager
    from jaula.runtime.client import Runtime
    from jaula.storage.drivers.driver import SnapshotDriver
    from jaula.storage.layers.store import LayerStore
    from jaula.storage.volumes import VolumeStore


@dataclass(slots=True)
class Parts:
    """Everything below the engine, and what its use cases share."""

    config: EngineConfig
    identity: str
    host: HostFacts
    database: Database
    registry: Registry
    events: Events
    runtime: Runtime
    runtimes: Runtimes
    cgroups: CgroupDriver
    snapshots: SnapshotDriver
    layers: LayerStore
    images: ImageStore
    gate: ImagePolicy
    volumes: VolumeStore
    volume_mounts: VolumeMounts
    secrets: SecretStore
    network: NetworkManager
    networks: NetworkRegistry
    resolvers: Resolvers
    ranges: Ranges | OneRange
    sandboxes: Sandboxes
    started_at: int  # nanoseconds since the epoch
