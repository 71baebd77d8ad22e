"""What is kept about each container, as frozen documents.

Times are nanoseconds since the epoch, 0 for 'never'. Fields have defaults so that a record that
an older engine wrote can still be read.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from jaula.spec.api import ContainerCreate
from jaula.spec.api_networks import EndpointSettings
from jaula.spec.endpoint import Endpoint, PublishedPort


class Status(StrEnum):
    """The states of a container; the transitions are in ``jaula.engine.model.container_state``."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    EXITED = "exited"
    DEAD = "dead"
    REMOVING = "removing"


class MountRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One mount that the user or the image asked for.

    ``source`` is a host path for binds and volumes, empty for tmpfs. ``options`` are mount
    options for the spec beyond the defaults of the type. ``created`` marks a volume that was
    made for this container and has no name that a person gave (removed by ``rm -v``).
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
    subpath: str = ""  # of the volume; no link is followed on the way there
    mapped: bool = False  # a mount whose owners are shown as the container's already


class HealthStatus(StrEnum):
    """What is known of a container that has a health check."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class HealthResult(msgspec.Struct, frozen=True):
    """One probe; ``exit_code`` is -1 where it did not end by itself or was never begun."""

    start: int
    end: int
    exit_code: int
    output: str = ""


class HealthRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The health of a container, with its newest results; written where the status changes."""

    status: HealthStatus = HealthStatus.STARTING
    failing_streak: int = 0
    log: tuple[HealthResult, ...] = ()


class ContainerRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything about one container that must outlive the engine.

    ``body`` is the request with the image's configuration merged into it; ``range_start`` is the
    first host id of its user namespace while it runs (0: none). ``args`` is the program with its
    arguments. ``layers`` are the image's diff ids, base first: the image may be gone by now.
    ``networks`` is what it is to be connected to, by network, first the one that leads outside;
    ``endpoint`` and ``more_endpoints`` is what it has while it runs.
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
    restart_delay: float = 0.0  # seconds between its last end and the start that follows
    renewing: bool = False  # it is being ended, since it is unhealthy, to start again
    manually_stopped: bool = False
    range_start: int = 0
    range_size: int = 0
    borrowed_start: int = 0  # the range of the user namespace that it joined, while it runs
    borrowed_size: int = 0
    networks: dict[str, EndpointSettings] | None = None  # None: as the network mode says
    endpoint: Endpoint | None = None
    more_endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    warnings: tuple[str, ...] = ()
    owner: str = "0"  # who made it: a uid, or "certificate NAME"
    owner_gid: int = 0
    beneath: tuple[str, ...] = ()  # host directories below which mounts follow no symbolic link
    health: HealthRecord | None = None  # None: it has no check, or never ran
    level: str = ""  # SELinux's, of no other container; empty: none was allocated
    build: str = ""  # the build of which it is a step; such a container is shown nowhere

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of its interfaces, the one that leads outside first."""
        return (*((self.endpoint,) if self.endpoint else ()), *self.more_endpoints)

    @property
    def event_attributes(self) -> dict[str, str]:
        """What every event of the container says about it: its labels, image and name."""
        return {**self.body.labels, "image": self.body.image, "name": self.name}


class BuildStep(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one step of a build made, kept under the digest of everything that it depends on.

    ``layer`` is a diff id, '' where nothing changed; ``blob`` is the digest of its archive and
    ``blob_size`` that one's bytes. ``created`` is RFC 3339, as the image's history shows it.
    ``used_at`` is when it last spared a build the work, ``uses`` how often. ``key`` is the
    digest without whose it is, as an image's history tells it; a ``quick`` one is the same step
    under another digest, for which no file needs to be read.
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
    """Who this engine is: a random id that ``info`` shows."""

    id: str
