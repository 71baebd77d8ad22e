"""Stored records of containers and their resolved requests, as frozen documents.

Times are nanoseconds since the epoch, 0 for 'never'. Fields have defaults so that a record that
an older engine wrote can still be read.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from jaula.config import OWN_RUNTIME
from jaula.errors import CorruptState
from jaula.spec.api import ContainerCreate, LogConfig, Resources, SecretReference
from jaula.spec.api_networks import EndpointSettings
from jaula.spec.endpoint import Endpoint, PublishedPort


class Status(StrEnum):
    """The states of a container; the transitions are in ``jaula.engine.model.container``."""

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


# -- the resolved request -------------------------------------------------------------------------


class NamespaceKind(StrEnum):
    """The owner of a namespace that a container is in."""

    PRIVATE = "private"
    HOST = "host"
    CONTAINER = "container"


class NamespaceMode(msgspec.Struct, frozen=True, omit_defaults=True):
    """One namespace; ``container`` is the id of the owner for :attr:`NamespaceKind.CONTAINER`."""

    kind: NamespaceKind = NamespaceKind.PRIVATE
    container: str = ""

    @property
    def private(self) -> bool:
        return self.kind is NamespaceKind.PRIVATE

    @property
    def host(self) -> bool:
        return self.kind is NamespaceKind.HOST


PRIVATE = NamespaceMode()
"""The default mode. msgspec omits a default by identity, so every private namespace is this one."""


class Namespaces(msgspec.Struct, frozen=True, omit_defaults=True):
    """All namespaces of a container.

    ``network`` is the name or id of the first network, '' if no network is attached. Whether a
    network of that name exists is not decided here. ``keep_id`` maps the owner's own ids to
    themselves.
    """

    user: NamespaceMode = PRIVATE
    pid: NamespaceMode = PRIVATE
    ipc: NamespaceMode = PRIVATE
    uts: NamespaceMode = PRIVATE
    cgroup: NamespaceMode = PRIVATE
    net: NamespaceMode = PRIVATE
    network: str = ""
    shareable_ipc: bool = False
    no_shm: bool = False
    keep_id: bool = False

    def containers(self) -> dict[str, str]:
        """Return the containers that are joined: OCI namespace type to id."""
        modes = {"user": self.user, "pid": self.pid, "ipc": self.ipc, "network": self.net}
        return {
            name: mode.container
            for name, mode in modes.items()
            if mode.kind is NamespaceKind.CONTAINER
        }


class MountRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One mount of a request, before its source exists.

    ``make_source`` creates a missing host directory. ``labels`` and ``driver_opts`` are those of a
    new volume.
    """

    mount: MountRecord
    make_source: bool = False
    labels: dict[str, str] = {}
    driver_opts: dict[str, str] = {}


class VolumesFrom(msgspec.Struct, frozen=True, omit_defaults=True):
    """One ``--volumes-from``; ``mode`` is '', ro, rw, z or Z."""

    container: str
    mode: str = ""


class PortMapping(msgspec.Struct, frozen=True, omit_defaults=True):
    """One port to publish, at the first free host port from ``host_port`` to ``host_port_end``.

    None means any free port.
    """

    container_port: int
    protocol: str
    host_ip: str = ""
    host_port: int | None = None
    host_port_end: int | None = None


class Link(msgspec.Struct, frozen=True):
    """One ``--link``; ``ref`` names the other container."""

    ref: str
    alias: str

    def qualified(self, name: str) -> str:
        """Return it as ``inspect`` of the container ``name`` shows it."""
        return f"/{self.ref}:/{name}/{self.alias}"


class SecurityOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """Parsed ``--security-opt``. ``seccomp`` is the JSON of a profile, or a word."""

    seccomp: str = ""
    apparmor: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    landlock: tuple[str, ...] = ()
    no_new_privileges: bool = False
    system_paths: bool = False  # masks and read-only paths lifted
    mask: tuple[str, ...] = ()
    unmask: tuple[str, ...] = ()
    proc: tuple[str, ...] = ()  # mount options of /proc


NO_OPTIONS = SecurityOptions()
"""The default, left out of the stored document by identity as :data:`PRIVATE` is."""


class Security(msgspec.Struct, frozen=True, omit_defaults=True):
    """The confinement that a request asks for.

    ``masked_paths`` and ``readonly_paths`` are None if the request has no list of its own: the
    engine's lists of the day of the start count then, so an upgrade adds paths to old containers.
    """

    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    options: SecurityOptions = NO_OPTIONS
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    readonly_rootfs: bool = False


class ResourceLimits(Resources, frozen=True, kw_only=True, omit_defaults=True):
    """``Resources`` of a request, limits and devices; only what differs from the default is stored.

    ``docker update`` replaces this part of a resolved request and no other.
    """


class ResolvedRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The decisions of one create request, taken once.

    ``jaula.engine.containers.resolved_request.resolve`` computes it. The policy authorises this value, the
    container's record keeps it, and every start uses it. The create body is never parsed again, so
    what was authorised is what is used (CVE-2024-41110).

    Facts of the host are not in it: kernel features, loaded profiles, existing networks. A start
    looks at these.
    """

    runtime: str = ""
    namespaces: Namespaces
    mounts: tuple[MountRequest, ...] = ()
    volumes_from: tuple[VolumesFrom, ...] = ()
    security: Security
    ports: tuple[PortMapping, ...] = ()
    links: tuple[Link, ...] = ()
    resources: ResourceLimits
    secrets: tuple[SecretReference, ...] = ()
    configs: tuple[SecretReference, ...] = ()
    annotations: dict[str, str] = {}
    sysctls: dict[str, str] = {}
    oom_score_adj: int = 0
    shm_size: int = 0  # bytes; 0: 64 MiB
    network_disabled: bool = False
    log: LogConfig = LogConfig()

    @property
    def external_runtime(self) -> bool:
        """Whether another OCI runtime than jaula's own carries it out."""
        return self.runtime not in ("", OWN_RUNTIME)


# -- the container --------------------------------------------------------------------------------


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

    ``body`` is the request with the image's configuration merged into it, for documents and for
    the program; ``resolved_request`` is what was decided from it. ``range_start`` is the
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
    resolved_request: ResolvedRequest | None = None  # None: written by an engine without it

    @property
    def resolved(self) -> ResolvedRequest:
        """Return the resolved request.

        :raises CorruptState: the record has none. The registry adds it to records of older engines
            when it loads them.
        """
        if self.resolved_request is None:
            raise CorruptState(
                f"the record of container {self.name} has no resolved request",
                hint="remove the container and create it again",
            )
        return self.resolved_request

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
