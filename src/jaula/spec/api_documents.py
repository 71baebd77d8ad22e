"""Documents that clients of the Docker Engine API send.

Source: the Docker Engine API, version 1.45 (``swagger.yaml``: ContainerConfig, HostConfig,
Resources, NetworkingConfig, ExecConfig, VolumeCreateOptions ...). Field names are the document's.

A field is ``... | None``, with None for absent, if the engine distinguishes absent from empty.
The table of options declares members too (:mod:`jaula.spec.run_options`).
:mod:`jaula.spec.decode` decodes bodies; :mod:`jaula.spec.api_networks` has the documents about
networks. The engine checks values (limits, names, grammars).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from jaula.spec import run_options
from jaula.spec.api_networks import EndpointSettings, NetworkingConfig
from jaula.spec.decode import Document, Empty, Int64, UInt16, UInt32, UInt64

_TYPES: dict[str, tuple[Any, Any]] = {
    "bool": (bool, False),
    "string": (str, ""),
    "list": (tuple[str, ...], ()),
    "int": (Int64, 0),
    "size": (Int64, 0),
    "decimal": (Int64, 0),
    "map": (dict[str, str], {}),
}
"""The type and default of a member, by the kind of its option or by its syntax."""


def _declare(document: str, namespace: dict[str, Any]) -> None:
    """Add the members to the body of a class that the table of options declares for it."""
    for option in run_options.DECLARED:
        if option.document == document:
            kind, default = _TYPES[option.syntax or option.kind]
            namespace["__annotations__"][option.field] = kind
            namespace[option.field] = default


class Healthcheck(Document, frozen=True, kw_only=True):
    """A health check in nanoseconds; 0 selects the image's value, then the default."""

    test: tuple[str, ...] = ()
    interval: Int64 = 0
    timeout: Int64 = 0
    start_period: Int64 = 0
    start_interval: Int64 = 0
    retries: Int64 = 0


class PortBinding(Document, frozen=True, kw_only=True):
    host_ip: str = ""
    host_port: str = ""  # "", "8080" or "8000-8010"


class RestartPolicy(Document, frozen=True, kw_only=True):
    name: str = ""  # "", no, always, unless-stopped, on-failure
    maximum_retry_count: Int64 = 0


class LogConfig(Document, frozen=True, kw_only=True):
    type: str = ""
    config: dict[str, str] = {}


class WeightDevice(Document, frozen=True, kw_only=True):
    path: str = ""
    weight: UInt16 = 0


class ThrottleDevice(Document, frozen=True, kw_only=True):
    path: str = ""
    rate: UInt64 = 0


class DeviceMapping(Document, frozen=True, kw_only=True):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(Document, frozen=True, kw_only=True):
    driver: str = ""
    count: Int64 = 0
    device_ids: tuple[str, ...] = msgspec.field(name="DeviceIDs", default=())
    capabilities: tuple[tuple[str, ...], ...] = ()
    options: dict[str, str] = {}


class Ulimit(Document, frozen=True, kw_only=True):
    name: str = ""
    soft: Int64 = 0
    hard: Int64 = 0


class BindOptions(Document, frozen=True, kw_only=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class DriverConfig(Document, frozen=True, kw_only=True):
    name: str = ""
    options: dict[str, str] = {}


class VolumeOptions(Document, frozen=True, kw_only=True):
    no_copy: bool = False
    labels: dict[str, str] = {}
    driver_config: DriverConfig | None = None
    subpath: str = ""


class TmpfsOptions(Document, frozen=True, kw_only=True):
    size_bytes: Int64 = 0
    mode: UInt32 = 0
    options: tuple[tuple[str, ...], ...] = ()  # each is (flag,) or (key, value)


class ImageOptions(Document, frozen=True, kw_only=True):
    subpath: str = ""


class Mount(Document, frozen=True, kw_only=True):
    type: str = ""  # bind, volume, tmpfs, image, engine-socket, npipe, cluster
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    image_options: ImageOptions | None = None


class Resources(Document, frozen=True, kw_only=True):
    """Limits that ``HostConfig`` and the update body share; 0 means not set."""

    cpu_shares: Int64 = 0
    memory: Int64 = 0  # bytes
    nano_cpus: Int64 = 0
    cgroup_parent: str = ""
    blkio_weight: UInt16 = 0
    blkio_weight_device: tuple[WeightDevice, ...] = ()
    blkio_device_read_bps: tuple[ThrottleDevice, ...] = ()
    blkio_device_write_bps: tuple[ThrottleDevice, ...] = ()
    blkio_device_read_iops: tuple[ThrottleDevice, ...] = msgspec.field(
        name="BlkioDeviceReadIOps", default=()
    )
    blkio_device_write_iops: tuple[ThrottleDevice, ...] = msgspec.field(
        name="BlkioDeviceWriteIOps", default=()
    )
    cpu_period: Int64 = 0  # microseconds
    cpu_quota: Int64 = 0  # microseconds
    cpu_realtime_period: Int64 = 0
    cpu_realtime_runtime: Int64 = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: tuple[DeviceMapping, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    device_requests: tuple[DeviceRequest, ...] = ()
    kernel_memory: Int64 = 0
    kernel_memory_tcp: Int64 = msgspec.field(name="KernelMemoryTCP", default=0)
    memory_reservation: Int64 = 0
    memory_swap: Int64 = 0  # memory plus swap; -1: no limit
    memory_swappiness: Int64 | None = None  # Docker also writes -1 for 'not set'
    oom_kill_disable: bool | None = None
    pids_limit: Int64 | None = None  # None: the engine's default; 0 and -1: no limit
    ulimits: tuple[Ulimit, ...] = ()
    cpu_count: Int64 = 0
    cpu_percent: Int64 = 0
    io_maximum_iops: UInt64 = msgspec.field(name="IOMaximumIOps", default=0)
    io_maximum_bandwidth: UInt64 = msgspec.field(name="IOMaximumBandwidth", default=0)


class SecretReference(Document, frozen=True, kw_only=True):
    """A secret or config of a container; the engine sets ``id``."""

    source: str = ""  # name or id
    target: str = ""  # a name or an absolute path; empty: the secret's name
    uid: str = msgspec.field(name="UID", default="0")
    gid: str = msgspec.field(name="GID", default="0")
    mode: UInt32 | None = None  # None: 0444
    id: str = msgspec.field(name="ID", default="")


class HostConfig(Resources, frozen=True, kw_only=True):
    """The part of a container's configuration that depends on the host."""

    binds: tuple[str, ...] = ()
    container_id_file: str = msgspec.field(name="ContainerIDFile", default="")
    log_config: LogConfig = LogConfig()
    network_mode: str = ""
    port_bindings: dict[str, tuple[PortBinding, ...]] = {}
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: tuple[str, ...] = ()
    console_size: tuple[UInt32, UInt32] = (0, 0)  # height, width
    annotations: dict[str, str] = {}
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    cgroupns_mode: str = ""
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    ipc_mode: str = ""
    cgroup: str = ""
    links: tuple[str, ...] = ()
    oom_score_adj: Int64 = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: tuple[str, ...] = ()
    storage_opt: dict[str, str] = {}
    tmpfs: dict[str, str] = {}
    uts_mode: str = msgspec.field(name="UTSMode", default="")
    userns_mode: str = ""
    shm_size: Int64 = 0  # bytes; 0: 64 MiB
    sysctls: dict[str, str] = {}
    runtime: str = ""
    isolation: str = ""
    mounts: tuple[Mount, ...] = ()
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    init: bool | None = None
    # Our own, see jaula.features.secrets.secret_mounts.
    secrets: tuple[SecretReference, ...] = ()
    configs: tuple[SecretReference, ...] = ()
    # Our own, see jaula.engine.containers.presets.
    profile: str = ""  # a preset, a document or its name; empty: the engine's default
    profile_keeps: tuple[str, ...] = ()  # members that are meant although 0, false or empty
    # Our own, see jaula.spec.egress and jaula.spec.listen.
    egress: tuple[str, ...] | None = None  # None: any destination
    listen: tuple[str, ...] | None = None  # None: any port
    _declare(run_options.HOST_CONFIG, locals())


class ContainerCreate(Document, frozen=True, kw_only=True):
    """``POST /containers/create``."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Empty] = {}
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: tuple[str, ...] = ()  # "NAME=value", or "NAME" to unset the image's
    cmd: tuple[str, ...] | None = None
    healthcheck: Healthcheck | None = None
    image: str = ""
    volumes: dict[str, Empty] = {}
    working_dir: str = ""
    entrypoint: tuple[str, ...] | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout: Int64 | None = None  # seconds
    shell: tuple[str, ...] = ()
    host_config: HostConfig = msgspec.field(default_factory=HostConfig)
    networking_config: NetworkingConfig = msgspec.field(default_factory=NetworkingConfig)
    _declare(run_options.CONFIG, locals())


class ContainerCreateBody(ContainerCreate, frozen=True, kw_only=True):
    """The body of ``POST /containers/create``, with limits where old clients have them.

    A limit of ``HostConfig`` wins. Source: moby ``runconfig.ContainerConfigWrapper``.
    """

    memory: Int64 = 0
    memory_swap: Int64 = 0
    cpu_shares: Int64 = 0
    cpuset_cpus: str = ""
    cpuset: str = ""
    volume_driver: str = ""

    def without_old_fields(self) -> ContainerCreate:
        """Return the request with every limit in ``HostConfig``."""
        host = self.host_config
        limits = {
            "memory": host.memory or self.memory,
            "memory_swap": host.memory_swap or self.memory_swap,
            "cpu_shares": host.cpu_shares or self.cpu_shares,
            "cpuset_cpus": host.cpuset_cpus or self.cpuset_cpus or self.cpuset,
            "volume_driver": host.volume_driver or self.volume_driver,
        }
        fields = {name: getattr(self, name) for name in ContainerCreate.__struct_fields__}
        return ContainerCreate(**fields | {"host_config": msgspec.structs.replace(host, **limits)})


class ContainerUpdate(Resources, frozen=True, kw_only=True):
    """``POST /containers/{id}/update``; 0, "" and None leave a limit unchanged.

    An empty list of devices removes the present limits of its kind.
    """

    blkio_weight_device: tuple[WeightDevice, ...] | None = None  # type: ignore[assignment]
    blkio_device_read_bps: tuple[ThrottleDevice, ...] | None = None  # type: ignore[assignment]
    blkio_device_write_bps: tuple[ThrottleDevice, ...] | None = None  # type: ignore[assignment]
    blkio_device_read_iops: tuple[ThrottleDevice, ...] | None = msgspec.field(  # type: ignore[assignment]
        name="BlkioDeviceReadIOps", default=None
    )
    blkio_device_write_iops: tuple[ThrottleDevice, ...] | None = msgspec.field(  # type: ignore[assignment]
        name="BlkioDeviceWriteIOps", default=None
    )
    restart_policy: RestartPolicy = RestartPolicy()


class ContainerEdit(Document, frozen=True, kw_only=True):
    """``POST /jaula/containers/{id}/edit``: change a container, also while it runs. All or nothing.

    ``version`` is that of the document of ``GET``; empty: whatever the container is now.
    ``publish`` and ``unpublish`` are as ``PortBindings``; an empty host port of the latter stands
    for each one.
    ``binds`` are as in ``HostConfig``, for the option ``z`` or ``Z``, which ``mounts`` cannot have.
    ``unmount`` are destinations; with ``detach`` a mount that is in use is removed as well.
    ``update`` has the limits and the restart policy. ``remove_limits`` are names of its limits.
    """

    version: str = ""
    publish: dict[str, tuple[PortBinding, ...]] = {}
    unpublish: dict[str, tuple[PortBinding, ...]] = {}
    mounts: tuple[Mount, ...] = ()
    binds: tuple[str, ...] = ()
    unmount: tuple[str, ...] = ()
    detach: bool = False
    connect: dict[str, EndpointSettings] = {}
    disconnect: tuple[str, ...] = ()
    update: ContainerUpdate = ContainerUpdate()
    remove_limits: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    remove_labels: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None


class IsolationChange(Document, frozen=True, kw_only=True):
    """``POST /jaula/containers/{id}/isolation-changed``: a row of ``verify --watch``."""

    row: str = ""
    verdict: str = ""
    requested: str = ""
    effective: str = ""


class CheckpointCreate(Document, frozen=True, kw_only=True):
    """``POST /containers/{id}/checkpoints``; the members after ``exit`` are jaula's own.

    ``exit`` ends the container. ``end_execs`` ends the exec'd processes, which no checkpoint holds.
    ``files`` adds the changes of the root and the volumes. ``pre_copy`` is the highest number of
    rounds in which memory is written while the container runs.
    """

    checkpoint_id: str = msgspec.field(name="CheckpointID", default="")
    checkpoint_dir: str = ""
    exit: bool = False
    tcp_established: bool = msgspec.field(name="TCPEstablished", default=False)
    tcp_close: bool = msgspec.field(name="TCPClose", default=False)
    end_execs: bool = False
    files: bool = False
    pre_copy: int = 0


class CheckpointClone(Document, frozen=True, kw_only=True):
    """``POST /jaula/containers/{id}/clone/{checkpoint}``: what differs from the first container.

    An empty network mode keeps its networks, without its addresses.
    """

    name: str = ""
    network_mode: str = ""
    networking_config: NetworkingConfig = msgspec.field(default_factory=NetworkingConfig)
    port_bindings: dict[str, tuple[PortBinding, ...]] = {}
    labels: dict[str, str] = {}
    auto_remove: bool = False


class AddressMode(StrEnum):
    """Whether the container keeps its addresses; ``AUTO`` lets the target's networks decide."""

    AUTO = ""
    KEEP = "keep"
    NEW = "new"


class VolumeMode(StrEnum):
    """Whether the files of volumes are copied, or the target has the same storage."""

    COPY = "copy"
    SHARED = "shared"


class ContainerMigrate(Document, frozen=True, kw_only=True):
    """``POST /jaula/containers/{id}/migrate``.

    ``to`` is the other engine, ``tcp://HOST:PORT``. ``address`` is keep or new, and without it the
    networks of the target decide. ``volumes`` is copy or shared. ``remove`` removes the container
    here after it runs there. ``create_networks`` makes its networks at the target if they are
    missing. ``pre_copy`` is the highest number of rounds that write memory before the stop.
    """

    to: str = ""
    address: AddressMode = AddressMode.AUTO
    volumes: VolumeMode = VolumeMode.COPY
    dry_run: bool = False
    end_execs: bool = False
    remove: bool = False
    resume: bool = False
    create_networks: bool = False
    pre_copy: int = 0


class GroupMigrate(Document, frozen=True, kw_only=True):
    """``POST /jaula/migrate``: move the named containers, or those of a project or pod, as one.

    The other members are those of :class:`ContainerMigrate`.
    """

    to: str = ""
    containers: tuple[str, ...] = ()
    project: str = ""
    pod: str = ""
    address: AddressMode = AddressMode.AUTO
    volumes: VolumeMode = VolumeMode.COPY
    dry_run: bool = False
    end_execs: bool = False
    remove: bool = False
    pre_copy: int = 0


class Drift(Document, frozen=True, kw_only=True):
    """``POST /jaula/containers/{id}/drift``: a deviation that ``record --drift`` has found."""

    kind: str = ""
    subject: str = ""
    program: str = ""
    detail: str = ""
    digest: str = ""


# -- exec -------------------------------------------------------------------------------------


class ExecCreate(Document, frozen=True, kw_only=True):
    """``POST /containers/{id}/exec``."""

    user: str = ""
    privileged: bool = False
    tty: bool = False
    console_size: tuple[UInt32, UInt32] | None = None  # height, width
    attach_stdin: bool = False
    attach_stderr: bool = False
    attach_stdout: bool = False
    detach: bool = False
    detach_keys: str = ""  # see jaula.spec.detach_keys
    env: tuple[str, ...] = ()
    working_dir: str = ""
    cmd: tuple[str, ...] = ()


DEBUG_IMAGE = "busybox"
"""The toolbox of a debug session that names none."""


class DebugCreate(ExecCreate, frozen=True, kw_only=True):
    """``POST /jaula/containers/{id}/debug``: an exec with the tools of an image.

    ``image`` is :data:`DEBUG_IMAGE` if it is empty. ``target`` is a pid as the container sees it,
    or the name of a program; empty for the container's first process. Without ``cmd`` a shell of
    the image runs.
    """

    image: str = ""
    target: str = ""


class ExecStart(Document, frozen=True, kw_only=True):
    """``POST /exec/{id}/start``, sent before the hijacked stream."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[UInt32, UInt32] | None = None  # height, width


# -- volumes, secrets, registry ------------------------------------------------------------------


class VolumeCreate(Document, frozen=True, kw_only=True):
    """``POST /volumes/create``; an empty name requests a random one."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] = {}
    labels: dict[str, str] = {}


class SecretSpec(Document, frozen=True, kw_only=True):
    """``POST /secrets/create`` and ``POST /configs/create``; ``data`` is base64."""

    name: str = ""
    labels: dict[str, str] = {}
    data: str = ""
    driver: DriverConfig | None = None
    templating: DriverConfig | None = None


class WebServer(Document, frozen=True, kw_only=True):
    """``PUT /jaula/web/server``: the address of a web view."""

    url: str = ""


class WebLogin(Document, frozen=True, kw_only=True):
    """``POST /jaula/web/logins``: the code of a link."""

    code: str = ""


class RegistryAuth(msgspec.Struct, frozen=True, kw_only=True):
    """The ``X-Registry-Auth`` header's document and the body of ``POST /auth``.

    Wire names are lower case without a separator. Never printed, because it holds a password.
    """

    username: str = ""
    password: str = ""
    auth: str = ""
    server_address: str = msgspec.field(name="serveraddress", default="")
    identity_token: str = msgspec.field(name="identitytoken", default="")
    registry_token: str = msgspec.field(name="registrytoken", default="")

    def __repr__(self) -> str:
        return f"RegistryAuth(server_address={self.server_address!r})"


class ManifestListAdd(Document, frozen=True, kw_only=True):
    """``PUT /jaula/manifests/{name}``: a manifest list, and its members by digest."""

    content: bytes
    media_type: str
    members: tuple[str, ...] = ()


class SignatureAdd(Document, frozen=True, kw_only=True):
    """``POST /jaula/signatures/{name}``: the signed payload and its signature.

    ``referring`` stores it as a manifest that refers to the image instead of a tag.
    """

    payload: bytes
    signature: bytes
    referring: bool = False
