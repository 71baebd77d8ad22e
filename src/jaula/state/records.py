"""The stored records of containers, build steps and the engine, as frozen documents.

Times are nanoseconds since the epoch, 0 for 'never'. Fields have defaults, so that records of older
engines can be read.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from jaula.spec.api import ContainerCreate
from jaula.spec.api_networks import EndpointSettings
from jaula.spec.endpoint import Endpoint, PublishedPort


class Status(StrEnum):
    """The states of a container. ``jaula.engine.model.container_state`` has the transitions."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    EXITED = "exited"
    DEAD = "dead"
    REMOVING = "removing"


class MountRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One mount that the user or the image requested.

    ``source`` is a host path for binds and volumes, and empty for tmpfs. ``options`` are mount
    options of the spec in addition to the type's defaults. ``anonymous`` marks a volume that was
    created for this container without a name (removed by ``rm -v``).
    """

    type: str  # bind volume tmpfs
    destination: str
    source: str = ""
    name: str = ""
    driver: str = ""
    mode: str = ""
    read_only: bool = False
    propagation: str = ""
    options: tuple[str, ...] = ()
    anonymous: bool = False
    no_copy: bool = False
    subpath: str = ""  # in the volume; resolved without following symbolic links
    mapped: bool = False  # the mount's owners are ids of the container already


class HealthStatus(StrEnum):
    """The status of a container's health check."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class HealthResult(msgspec.Struct, frozen=True):
    """One probe. ``exit_code`` is -1 if it timed out or was not started."""

    start: int
    end: int
    exit_code: int
    output: str = ""


class HealthRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The health of a container with its latest results; written when the status changes."""

    status: HealthStatus = HealthStatus.STARTING
    failing_streak: int = 0
    log: tuple[HealthResult, ...] = ()


class ContainerRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything about one container that must outlive the engine.

    ``body`` is the request merged with the image's configuration. ``args`` is the program with its
    arguments. ``layers`` are the image's diff ids, base first, since the image may have been
    removed. ``range_start`` is the first host id of its user namespace while it runs (0: none).

    ``networks`` are the requested networks, the one with the default route first. ``endpoint`` and
    ``more_endpoints`` are the current endpoints while it runs.
    """

    id: str
    name: str
    created: int
    body: ContainerCreate
    image: str  # sha256:...
    layers: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    hostname: str = ""
    platform: str = "linux"
    storage_driver: str = ""
    mounts: tuple[MountRecord, ...] = ()
    status: Status = Status.CREATED
    pid: int = 0
    shim_pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: int = 0
    finished_at: int = 0
    restart_count: int = 0
    restart_delay: float = 0.0  # seconds between the last exit and the next start
    renewing: bool = False  # it is being stopped and restarted, since it is unhealthy
    manually_stopped: bool = False
    range_start: int = 0
    range_size: int = 0
    borrowed_start: int = 0  # id range of the user namespace that it joined, while it runs
    borrowed_size: int = 0
    networks: dict[str, EndpointSettings] | None = None  # None: from the network mode
    endpoint: Endpoint | None = None
    more_endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    warnings: tuple[str, ...] = ()
    owner: str = "0"  # the client that created it: a uid, or "certificate NAME"
    owner_gid: int = 0
    beneath: tuple[
        str, ...
    ] = ()  # host directories below which mounts do not follow symbolic links
    health: HealthRecord | None = None  # None: it has no check, or never ran
    level: str = ""  # its unique SELinux level; empty: none was allocated
    build: str = ""  # the build that it is a step of; such a container is never listed

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return all endpoints, the one with the default route first."""
        return (*((self.endpoint,) if self.endpoint else ()), *self.more_endpoints)


class BuildStep(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of one build step, stored under the digest of everything that it depends on.

    ``layer`` is a diff id, '' if nothing changed. ``blob`` is the digest of its archive and
    ``blob_size`` the archive's size in bytes. ``created`` is RFC 3339, as in the image's history.
    ``used_at`` is the time of the last cache hit, ``uses`` the number of hits.

    ``key`` is the digest without the owner, as stored in an image's history. A ``quick`` step is
    the same step under another digest, for which no file needs to be read.
    """

    instruction: str
    created: str
    layer: str = ""
    blob: str = ""
    blob_size: int = 0
    size: int = 0  # bytes of the layer's files
    made_at: int = 0
    used_at: int = 0
    uses: int = 0
    key: str = ""
    quick: bool = False


class EngineIdentity(msgspec.Struct, frozen=True):
    """The engine's random id, which ``info`` returns."""

    id: str
