"""Documents that clients of the Docker Engine API send, and how they are read.

Source: the Docker Engine API, version 1.45 (``swagger.yaml``: ContainerConfig, HostConfig,
Resources, NetworkingConfig, ExecConfig, VolumeCreateOptions ...). Field names are the document's
own (PascalCase on the wire). Unknown fields are ignored, a value of a wrong type is refused.

Facts about Docker's decoder (Go's ``encoding/json``): ``null`` leaves a field as it was, so it
means 'absent' everywhere; ``Cmd``, ``Entrypoint`` and ``Shell`` may be one string; a ``null``
member of a map is that map's zero value. :func:`decode` gives the same reading. Where absent and
empty differ for the engine the field is ``... | None`` with None for absent.

What the fields may hold (limits, names, grammars) is the engine's to check.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
UInt16 = Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)]
UInt32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
UInt64 = Annotated[int, msgspec.Meta(ge=0)]


class _Document(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    pass


class Empty(_Document, frozen=True, kw_only=True):
    """The value of a set written as a map: ``{"80/tcp": {}}``."""


# -- containers -------------------------------------------------------------------------------


class Healthcheck(_Document, frozen=True, kw_only=True):
    """Durations are nanoseconds; 0 takes the image's value, then the default."""

    test: tuple[str, ...] = ()
    interval: Int64 = 0
    timeout: Int64 = 0
    start_period: Int64 = 0
    start_interval: Int64 = 0
    retries: Int64 = 0


class PortBinding(_Document, frozen=True, kw_only=True):
    host_ip: str = ""
    host_port: str = ""  # "", "8080" or "8000-8010"


class RestartPolicy(_Document, frozen=True, kw_only=True):
    name: str = ""  # "", no, always, unless-stopped, on-failure
    maximum_retry_count: Int64 = 0


class LogConfig(_Document, frozen=True, kw_only=True):
    type: str = ""
    config: dict[str, str] = {}


class WeightDevice(_Document, frozen=True, kw_only=True):
    path: str = ""
    weight: UInt16 = 0


class ThrottleDevice(_Document, frozen=True, kw_only=True):
    path: str = ""
    rate: UInt64 = 0


class DeviceMapping(_Document, frozen=True, kw_only=True):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(_Document, frozen=True, kw_only=True):
    driver: str = ""
    count: Int64 = 0
    device_ids: tuple[str, ...] = msgspec.field(name="DeviceIDs", default=())
    capabilities: tuple[tuple[str, ...], ...] = ()
    options: dict[str, str] = {}


class Ulimit(_Document, frozen=True, kw_only=True):
    name: str = ""
    soft: Int64 = 0
    hard: Int64 = 0


class BindOptions(_Document, frozen=True, kw_only=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class DriverConfig(_Document, frozen=True, kw_only=True):
    name: str = ""
    options: dict[str, str] = {}


class VolumeOptions(_Document, frozen=True, kw_only=True):
    no_copy: bool = False
    labels: dict[str, str] = {}
    driver_config: DriverConfig | None = None
    subpath: str = ""


class TmpfsOptions(_Document, frozen=True, kw_only=True):
    size_bytes: Int64 = 0
    mode: UInt32 = 0


class Mount(_Document, frozen=True, kw_only=True):
    type: str = ""  # bind, volume, tmpfs, npipe, cluster
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class Resources(_Document, frozen=True, kw_only=True):
    """Limits that ``HostConfig`` and the update body share. 0 means 'not set'."""

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


class SecretReference(_Document, frozen=True, kw_only=True):
    """A secret or config that a container is to have; ``id`` is the engine's to fill in."""

    source: str = ""  # name or id
    target: str = ""  # a name or an absolute path; empty: as it is called
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
    # Our own, see jaula.engine.delivering.
    secrets: tuple[SecretReference, ...] = ()
    configs: tuple[SecretReference, ...] = ()
    # Our own, see jaula.engine.presets.
    profile: str = ""  # default, strict or docker; empty: the engine's default
    profile_keeps: tuple[str, ...] = ()  # members that are meant although 0, false or empty


class EndpointIPAMConfig(_Document, frozen=True, kw_only=True):
    ipv4_address: str = msgspec.field(name="IPv4Address", default="")
    ipv6_address: str = msgspec.field(name="IPv6Address", default="")
    link_local_ips: tuple[str, ...] = msgspec.field(name="LinkLocalIPs", default=())


class EndpointSettings(_Document, frozen=True, kw_only=True):
    ipam_config: EndpointIPAMConfig | None = msgspec.field(name="IPAMConfig", default=None)
    links: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    mac_address: str = ""
    driver_opts: dict[str, str] = {}


class NetworkingConfig(_Document, frozen=True, kw_only=True):
    endpoints_config: dict[str, EndpointSettings] = {}


class ContainerCreate(_Document, frozen=True, kw_only=True):
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


class ContainerUpdate(Resources, frozen=True, kw_only=True):
    """``POST /containers/{id}/update``; 0, "" and None leave a limit as it is."""

    restart_policy: RestartPolicy = RestartPolicy()


# -- exec -------------------------------------------------------------------------------------


class ExecCreate(_Document, frozen=True, kw_only=True):
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


class ExecStart(_Document, frozen=True, kw_only=True):
    """``POST /exec/{id}/start``; it comes before the hijacked stream."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[UInt32, UInt32] | None = None  # height, width


# -- volumes, networks, registry ----------------------------------------------------------------


class VolumeCreate(_Document, frozen=True, kw_only=True):
    """``POST /volumes/create``; an empty name asks for a random one."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] = {}
    labels: dict[str, str] = {}


class SecretSpec(_Document, frozen=True, kw_only=True):
    """``POST /secrets/create`` and the like; ``data`` is base64."""

    name: str = ""
    labels: dict[str, str] = {}
    data: str = ""
    driver: DriverConfig | None = None
    templating: DriverConfig | None = None


class IPAMPool(_Document, frozen=True, kw_only=True):
    subnet: str = ""
    ip_range: str = msgspec.field(name="IPRange", default="")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = {}


class IPAM(_Document, frozen=True, kw_only=True):
    driver: str = ""
    options: dict[str, str] = {}
    config: tuple[IPAMPool, ...] = ()


class NetworkCreate(_Document, frozen=True, kw_only=True):
    """``POST /networks/create``."""

    name: str = ""
    check_duplicate: bool = False
    driver: str = ""
    scope: str = ""
    enable_ipv6: bool = msgspec.field(name="EnableIPv6", default=False)
    ipam: IPAM | None = msgspec.field(name="IPAM", default=None)
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: dict[str, str] | None = None
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class NetworkConnect(_Document, frozen=True, kw_only=True):
    """``POST /networks/{id}/connect``."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None


class NetworkDisconnect(_Document, frozen=True, kw_only=True):
    """``POST /networks/{id}/disconnect``."""

    container: str = ""
    force: bool = False


class RegistryAuth(msgspec.Struct, frozen=True, kw_only=True):
    """The ``X-Registry-Auth`` header's document and the body of ``POST /auth``.

    The wire names are lower case, without a separator. Never shown: it holds a password.
    """

    username: str = ""
    password: str = ""
    auth: str = ""
    server_address: str = msgspec.field(name="serveraddress", default="")
    identity_token: str = msgspec.field(name="identitytoken", default="")
    registry_token: str = msgspec.field(name="registrytoken", default="")

    def __repr__(self) -> str:
        return f"RegistryAuth(server_address={self.server_address!r})"


class ManifestListAdd(_Document, frozen=True, kw_only=True):
    """``PUT /jaula/manifests/{name}``: a list, and the names of what it lists, with digests."""

    content: bytes
    media_type: str
    members: tuple[str, ...] = ()


class SignatureAdd(_Document, frozen=True, kw_only=True):
    """``POST /jaula/signatures/{name}``: what was signed, and by which signature.

    ``referring``: it becomes a manifest that refers to the image, not a tag beside it.
    """

    payload: bytes
    signature: bytes
    referring: bool = False


# -- decoding -----------------------------------------------------------------------------------

_ZERO_OF_MAP: dict[str, Any] = {
    "ExposedPorts": {},
    "Volumes": {},
    "EndpointsConfig": {},
    "PortBindings": [],
    "Labels": "",
    "Annotations": "",
    "StorageOpt": "",
    "Tmpfs": "",
    "Sysctls": "",
    "DriverOpts": "",
    "Options": "",
    "Config": "",
    "AuxiliaryAddresses": "",
}
"""Members that are maps keyed by the client: a null in them stands for this value."""

_STRING_OR_LIST = frozenset({"Cmd", "Entrypoint", "Shell"})


def _members(document: dict[str, Any], zero: Any) -> dict[str, Any]:
    """Null members left out, or replaced by ``zero`` where the object is a client's map."""
    plain: dict[str, Any] = {}
    for name, value in document.items():
        if value is None:
            if zero is not None:
                plain[name] = zero
        elif isinstance(value, dict):
            plain[name] = _members(value, None if zero is not None else _ZERO_OF_MAP.get(name))
        elif isinstance(value, list):
            plain[name] = [_members(v, None) if isinstance(v, dict) else v for v in value]
        elif zero is None and name in _STRING_OR_LIST and isinstance(value, str):
            plain[name] = [value] if value else []
        else:
            plain[name] = value
    return plain


_Type = TypeVar("_Type", bound=msgspec.Struct)


def decode(data: bytes, kind: type[_Type]) -> _Type:
    """Read a request's JSON body as Docker does; no body at all is an empty document.

    Raises ``msgspec.DecodeError`` (``ValidationError`` for a wrong type) and ``RecursionError``.
    """
    document = msgspec.json.decode(data) if data.strip() else {}
    if document is None:
        document = {}
    if isinstance(document, dict):
        document = _members(document, None)
    return msgspec.convert(document, kind)
