"""Stored records of containers, resolved requests, build steps and the engine, as frozen documents.

Times are nanoseconds since the epoch, 0 for 'never'. Fields have defaults, so that records of older
engines can be read.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from jaula.config import OWN_RUNTIME
from jaula.errors import CorruptState
from jaula.spec.api_documents import (
    ContainerCreate,
    ContainerUpdate,
    HostConfig,
    LogConfig,
    Resources,
    SecretReference,
)
from jaula.spec.api_networks import EndpointSettings
from jaula.spec.endpoint_record import Endpoint, PublishedPort
from jaula.spec.image_documents import diff_id_of
from jaula.spec.pod import PodAttachment, PodContainerRequest, PodSandboxRequest


class Status(StrEnum):
    """The states of a container; the transitions are in ``jaula.engine.model.container``."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    EXITED = "exited"
    DEAD = "dead"
    REMOVING = "removing"


ENGINE_SOCKET = "engine-socket"
IMAGE_MOUNT = "image"
"""The type of a mount of the container's own socket to the engine."""


class MountRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One mount that the user or the image requested.

    ``source`` is a host path for binds and volumes, the requested name of an image for images, and
    empty for other types. ``options`` are
    mount options of the spec in addition to the type's defaults. ``anonymous`` marks a volume that
    was created for this container without a name (removed by ``rm -v``).
    """

    type: str  # bind volume tmpfs image engine-socket
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
    subpath: str = ""  # in the volume, without following symbolic links; in the image
    mapped: bool = False  # the mount's owners are ids of the container already
    map_required: bool = False  # never mount it without an id map, if the container has one
    image: str = ""  # id
    layers: tuple[str, ...] = ()  # names of the image's layers, base first

    @property
    def shared(self) -> bool:
        """Whether what the container mounts in it appears at its source."""
        return self.propagation in ("shared", "rshared")


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
        modes = {
            "user": self.user,
            "pid": self.pid,
            "ipc": self.ipc,
            "uts": self.uts,
            "network": self.net,
        }
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
    seccomp_allow: tuple[str, ...] = ()  # [architecture:]name; empty: all of the profile's
    seccomp_enosys: tuple[str, ...] = ()  # those that fail with ENOSYS in place of EPERM
    apparmor: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    landlock: tuple[str, ...] = ()
    no_new_privileges: bool = False
    system_paths: bool = False  # masks and read-only paths lifted
    mask: tuple[str, ...] = ()
    unmask: tuple[str, ...] = ()
    proc: tuple[str, ...] = ()  # mount options of /proc
    seccomp_listener: str = ""  # socket of the agent of `run --record`


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


class PodResources(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """Limits of a pod's container that Docker's API lacks.

    ``unified`` has values of cgroup v2 files by name, ``hugepage_limits`` bytes by page size such
    as ``2MB``.
    """

    unified: dict[str, str] = {}
    hugepage_limits: dict[str, int] = {}


NO_POD_RESOURCES = PodResources()
"""The default, left out of the stored document by identity as :data:`PRIVATE` is."""


class ResolvedRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The decisions of one create request, taken once.

    ``jaula.engine.containers.resolved_request.resolve`` computes it. The policy authorizes it, the
    container's record keeps it, and every start uses it. What it decides is never parsed again, so
    what was authorised is what is used (CVE-2024-41110). A member of the body that needs no
    decision, such as a limit, is read from the body by the policy and by a start.

    ``log`` is that of a pod's container, in place of the body's.

    Facts of the host are not in it: kernel features, loaded profiles, existing networks. A start
    looks at these. :class:`StoredRequest` is its form in the database.
    """

    namespaces: Namespaces
    mounts: tuple[MountRequest, ...] = ()
    volumes_from: tuple[VolumesFrom, ...] = ()
    security: Security
    ports: tuple[PortMapping, ...] = ()
    links: tuple[Link, ...] = ()
    pod_resources: PodResources = msgspec.field(name="resources", default=NO_POD_RESOURCES)
    log: LogConfig | None = None  # an older engine stored that of the body too


class StoredResources(Resources, frozen=True, kw_only=True, omit_defaults=True):
    """The limits of a request in the database."""

    unified: dict[str, str] = {}
    hugepage_limits: dict[str, int] = {}


class StoredRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A resolved request in the database, as engines before 0.3 read it.

    They take the members of the body that need no decision from here. Without these a container
    would lose its limits and lists after a downgrade. The seal of a request is of this form too,
    so that it is the one that an older engine wrote to the audit log. This engine reads the
    decisions only.
    """

    runtime: str = ""
    namespaces: Namespaces
    mounts: tuple[MountRequest, ...] = ()
    volumes_from: tuple[VolumesFrom, ...] = ()
    security: Security
    ports: tuple[PortMapping, ...] = ()
    links: tuple[Link, ...] = ()
    resources: StoredResources
    secrets: tuple[SecretReference, ...] = ()
    configs: tuple[SecretReference, ...] = ()
    annotations: dict[str, str] = {}
    sysctls: dict[str, str] = {}
    oom_score_adj: int = 0
    shm_size: int = 0
    network_disabled: bool = False
    egress: tuple[str, ...] | None = None
    listen: tuple[str, ...] | None = None
    log: LogConfig = LogConfig()


_LIMITS = Resources.__struct_fields__


def stored_request(body: ContainerCreate, resolved: ResolvedRequest) -> StoredRequest:
    """Return a request as the database has it. Pure."""
    host, pod = body.host_config, resolved.pod_resources
    return StoredRequest(
        runtime=host.runtime,
        namespaces=resolved.namespaces,
        mounts=resolved.mounts,
        volumes_from=resolved.volumes_from,
        security=resolved.security,
        ports=resolved.ports,
        links=resolved.links,
        resources=StoredResources(
            unified=pod.unified,
            hugepage_limits=pod.hugepage_limits,
            **{field: getattr(host, field) for field in _LIMITS},
        ),
        secrets=host.secrets,
        configs=host.configs,
        annotations=host.annotations,
        sysctls=host.sysctls,
        oom_score_adj=host.oom_score_adj,
        shm_size=host.shm_size,
        network_disabled=body.network_disabled,
        egress=host.egress,
        listen=host.listen,
        log=log_of(body, resolved),
    )


def log_of(body: ContainerCreate, resolved: ResolvedRequest) -> LogConfig:
    """Return the log of a request: that of the body, or that of a pod's container."""
    return body.host_config.log_config if resolved.log is None else resolved.log


def is_external(runtime: str) -> bool:
    """Return whether a runtime is another OCI runtime than jaula's own."""
    return runtime not in ("", OWN_RUNTIME)


# -- the container --------------------------------------------------------------------------------


class MigrationPhase(StrEnum):
    """The state of a migration, in the record of the container at either engine."""

    MOVING = "moving"  # source: it is dumped; the container runs on unless it is given
    GIVEN = "given"  # source: the target may run it, so it never runs here again
    MOVED = "moved"  # source: it runs at the target
    INCOMING = "incoming"  # target: it must not run yet
    RECEIVED = "received"  # target: it has received the commit


class MigrationRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last migration of a container. ``container`` is its id at the other engine.

    ``group`` is an id that the members of a group have in common, '' for a container that moves
    alone. ``peer`` is the address of the target, or the name in the certificate of the source.
    ``transaction`` is what the created volumes belong to, at the target until the commit.
    """

    id: str
    phase: MigrationPhase
    peer: str
    container: str = ""
    boot: str = ""  # id of the host's boot in which the target received the commit
    group: str = ""
    transaction: str = ""


class GivenMigrations(msgspec.Struct, frozen=True):
    """The ids of migrations whose commit this engine has received, oldest first."""

    ids: tuple[str, ...] = ()


class RollbackPhase(StrEnum):
    """The progress of a rollback: a container is put back to a checkpoint."""

    KEEP = "keep"  # the present state is being saved, and runs on
    REPLACE = "replace"  # it is saved: the staged files take the place of the present ones
    CONTINUED = "continued"  # the start from the checkpoint is recorded
    UNDO = "undo"  # the former files and processes are put back
    UNDONE = "undone"  # the start of the former processes is recorded
    FAILED = "failed"  # neither could be started; the former state is in its checkpoint


_STARTED_PHASES = {
    RollbackPhase.REPLACE: RollbackPhase.CONTINUED,
    RollbackPhase.UNDO: RollbackPhase.UNDONE,
}


class RollbackState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a container before its rollback, and how far that is.

    ``former`` is the checkpoint with the processes that ran, '' if none did.
    """

    phase: RollbackPhase = RollbackPhase.REPLACE  # also of an engine that saved no former state
    former: str = ""
    ports: tuple[PublishedPort, ...] = ()
    restart_count: int = 0
    manually_stopped: bool = False

    def at(self, phase: RollbackPhase) -> RollbackState:
        """Return this state at another phase."""
        return msgspec.structs.replace(self, phase=phase)

    @property
    def with_start(self) -> RollbackState:
        """This state when the intent to start is recorded."""
        return self.at(_STARTED_PHASES.get(self.phase, self.phase))

    @property
    def without_start(self) -> RollbackState:
        """This state when that start was undone, or has failed."""
        before = {started: phase for phase, started in _STARTED_PHASES.items()}
        return self.at(before.get(self.phase, self.phase))


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


class StartIntent(msgspec.Struct, frozen=True, omit_defaults=True):
    """A start that the runtime is asked for: the members of the running container's record.

    It is written before the request is sent and removed with the answer. An engine that reads one
    takes over what its predecessor began.
    """

    started_at: int
    range_start: int = 0
    range_size: int = 0
    borrowed_start: int = 0
    borrowed_size: int = 0
    endpoint: Endpoint | None = None
    more_endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[PublishedPort, ...] = ()


class EditIntent(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change of a container that is in progress, and what undoes it.

    It is written before the first step and removed with the last. An engine that reads one undoes
    what its predecessor did. ``mounted`` are destinations, ``unmounted`` the former mounts,
    ``networks`` the former networks, ``limits`` the changed members of the former limits,
    ``removed_limits`` the names of removed ones, and ``volumes`` those that were created for it,
    which have the word ``transaction``.
    """

    mounted: tuple[str, ...] = ()
    unmounted: tuple[MountRecord, ...] = ()
    networks: dict[str, EndpointSettings] | None = None
    limits: ContainerUpdate | None = None
    volumes: tuple[str, ...] = ()
    removed_limits: tuple[str, ...] = ()
    transaction: str = ""


class LiveChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change of a container after its creation, for ``inspect`` and ``verify``."""

    at: int  # nanoseconds since the epoch
    by: str  # the client: a uid, or "certificate NAME"
    changes: tuple[str, ...]  # such as "publish 8080:80/tcp"
    running: bool = True  # it took effect at once; else at the next start


class UserFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """The user of the program, looked up in the container's own passwd and group files.

    Ids are those inside the container. ``additional_gids`` has the primary group as well.
    """

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    home: str = "/"


SANDBOX_ATTRIBUTE = "io.jaula.pod-sandbox"
"""The attribute of events of a pod's containers: the id of the sandbox."""


class PodSandboxRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Properties that make a container the sandbox of a pod.

    ``addresses`` are those of the pod, ``attachment`` is everything that the network plugins have
    reported. ``networked`` says that they have to remove what they added; it is set before they are
    called. ``starting`` says that no client was told of the sandbox yet: the next engine removes
    it.
    """

    request: PodSandboxRequest
    addresses: tuple[str, ...] = ()
    networked: bool = False
    attachment: PodAttachment | None = None
    starting: bool = False


class ContainerRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything about one container that must outlive the engine.

    ``body`` is the request merged with the image's configuration; ``resolved_request`` is the
    decision about it. ``args`` is the program with its arguments. ``layers`` are the names of the
    image's layers, base first, since the image may have been removed. A name is the diff id, or
    that of a layer which was not whole at the creation
    (:func:`jaula.spec.image_documents.layer_name`). ``range_start`` is the first host id of its
    user namespace while it runs (0: none).

    ``networks`` are the requested networks, the one of the network mode first. ``endpoint`` and
    ``more_endpoints`` are the current endpoints while it runs, and ``ports`` those of all of them.
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
    paused_by_client: bool = False  # also when another program has resumed it since
    frozen_by_commit: bool = False  # a commit freezes it, and no client has paused it
    range_start: int = 0
    range_size: int = 0
    borrowed_start: int = 0  # id range of the user namespace that it joined, while it runs
    borrowed_size: int = 0
    networks: dict[str, EndpointSettings] | None = None  # None: from the network mode
    network_ids: dict[str, str] = {}  # by name, those that were authorized; older ones lack them
    endpoint: Endpoint | None = None
    more_endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    warnings: tuple[str, ...] = ()
    owner: str = "0"  # the client that created it: a uid, or "certificate NAME"
    owner_gid: int = 0
    beneath: tuple[
        str, ...
    ] = ()  # host directories below which mounts do not follow symbolic links
    outside_log: bool = False  # the log server's name may not resolve to an address of the host
    engine_socket: str = ""  # entry of the policy for its engine socket; empty: it has none
    health: HealthRecord | None = None  # None: it has no check, or never ran
    level: str = ""  # its unique SELinux level; empty: none was allocated
    cgroup: str = ""  # path of its cgroup; empty: below the parent that the engine has now
    build: str = ""  # the build that it is a step of; such a container is never listed
    sandbox: PodSandboxRecord | None = None  # None: it is not the sandbox of a pod
    pod: PodContainerRequest | None = None  # None: it is not a container of a pod
    user: UserFacts | None = None  # decided at the creation, of a pod's container only
    start_intent: StartIntent | None = None  # None: no start is in progress
    rollback: str = ""  # the checkpoint whose staged files replace the present ones
    rollback_directory: str = ""  # that of --checkpoint-dir, in which it is
    rollback_state: RollbackState | None = None  # None: no rollback, or one of an older engine
    migration: MigrationRecord | None = None  # None: it has not been moved
    resolved_request: ResolvedRequest | None = None  # None: written by an engine without it
    edit_intent: EditIntent | None = None  # None: no change by ``edit`` is in progress
    live_changes: tuple[LiveChange, ...] = ()  # by ``edit``, the last ones
    debug_copy: bool = False  # of a debug session: it ends with its client's connection

    @property
    def asked_image(self) -> str:
        """The image that the user has asked for: a name, a digest or an id."""
        return (self.pod.user_specified_image if self.pod is not None else "") or self.body.image

    @property
    def in_pod(self) -> bool:
        """Whether it is the sandbox or a container of a pod; Docker's lists leave these out."""
        return self.sandbox is not None or self.pod is not None

    @property
    def is_transient(self) -> bool:
        """Whether a power failure ends and removes the container: a build step, or with --rm."""
        return bool(self.build) or self.body.host_config.auto_remove

    @property
    def resolved(self) -> ResolvedRequest:
        """Return the resolved request.

        :raises CorruptState: when the record has none. The container store adds it to records of
            older engines when it loads them.
        """
        if self.resolved_request is None:
            raise CorruptState(
                f"the record of container {self.name} has no resolved request",
                hint="remove the container and create it again",
            )
        return self.resolved_request

    @property
    def host_config(self) -> HostConfig:
        """The part of the body that depends on the host."""
        return self.body.host_config

    @property
    def log(self) -> LogConfig:
        """The log that was asked for, or that of a pod's container."""
        return log_of(self.body, self.resolved)

    @property
    def file_targets(self) -> tuple[str, ...]:
        """The paths of secrets and configs in the container."""
        host = self.body.host_config
        return tuple(reference.target for reference in (*host.secrets, *host.configs))

    @property
    def external_runtime(self) -> bool:
        """Whether another OCI runtime than jaula's own carries it out."""
        return is_external(self.body.host_config.runtime)

    @property
    def images(self) -> tuple[str, ...]:
        """Return the ids of the container's image and of the images that are mounted in it."""
        return (self.image, *(mount.image for mount in self.mounts if mount.image))

    @property
    def all_layers(self) -> tuple[str, ...]:
        """Return the names of the layers of all of its images, and their diff ids."""
        names = (*self.layers, *(layer for mount in self.mounts for layer in mount.layers))
        return (*names, *map(diff_id_of, names))

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return all endpoints."""
        return (*((self.endpoint,) if self.endpoint else ()), *self.more_endpoints)

    @property
    def event_attributes(self) -> dict[str, str]:
        """Return the attributes of the container's events: its labels, image and name."""
        attributes = {**self.body.labels, "image": self.body.image, "name": self.name}
        if self.in_pod:
            attributes[SANDBOX_ATTRIBUTE] = self.pod.sandbox if self.pod else self.id
        return attributes


def stored(record: ContainerRecord) -> ContainerRecord:
    """Return a record as the database has it: with a :class:`StoredRequest`. Pure."""
    if record.resolved_request is None:
        return record
    request: Any = stored_request(record.body, record.resolved_request)
    return msgspec.structs.replace(record, resolved_request=request)


class BuildStep(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of one build step, stored under the digest of everything that it depends on.

    ``layer`` is a diff id, '' if nothing changed. ``blob`` is the digest of its archive and
    ``blob_size`` the archive's size in bytes. ``created`` is RFC 3339, as in the image's history.
    ``used_at`` is the time of the last cache hit, ``uses`` the number of hits.

    ``key`` is the digest without the owner, as stored in an image's history. A ``quick`` step is
    the same step under another digest, for which no file needs to be read. ``owner`` is the client
    that built it, '' in a record of an older engine.
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
    owner: str = ""


class EngineIdentity(msgspec.Struct, frozen=True):
    """The engine's random id, which ``info`` returns."""

    id: str


class StorageDriverRecord(msgspec.Struct, frozen=True):
    """The storage driver that works in the root directory, and the file system that it has."""

    name: str
    filesystem: str
