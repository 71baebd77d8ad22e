"""Documents in podman's state, and the requests that make the same containers. Pure.

Sources: podman 5.4 ``libpod/container_config.go``, ``libpod/volume.go``, ``libpod/pod.go``; OCI
runtime-spec 1.2 ``config.md``. All documents are untrusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from jaula.features.migrate_from.docker_documents import seconds
from jaula.features.migrate_from.inventory import SourceContainer, SourceMount
from jaula.spec.api_documents import (
    ContainerCreate,
    DeviceMapping,
    Healthcheck,
    HostConfig,
    ImageOptions,
    LogConfig,
    Mount,
    PortBinding,
    RestartPolicy,
    SecretReference,
    Ulimit,
)
from jaula.spec.api_networks import EndpointIPAMConfig, EndpointSettings
from jaula.spec.decode import Empty

DEFAULT_NETWORK = "podman"
ANONYMOUS = "com.docker.volume.anonymous"

_RUNNING, _PAUSED = 3, 5  # libpod/define/containerstate.go
_CAPABILITIES = frozenset(
    f"CAP_{name}"
    for name in (
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
        "NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    )
)  # fmt: skip
_DEFAULT_PIDS = 2048
_DEFAULT_SHM = 65_536_000  # bytes
_INIT = "/run/podman-init"
_OWN_ENVIRONMENT = ("container=podman", "TERM=xterm")


class User(msgspec.Struct):
    uid: int = 0
    gid: int = 0


class Capabilities(msgspec.Struct):
    bounding: tuple[str, ...] = ()


class Rlimit(msgspec.Struct):
    type: str = ""
    hard: int = 0
    soft: int = 0


class Process(msgspec.Struct, rename="camel"):
    terminal: bool = False
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = ""
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] | None = None
    no_new_privileges: bool = False
    oom_score_adj: int | None = None


class Root(msgspec.Struct):
    readonly: bool = False


class SpecMount(msgspec.Struct):
    destination: str = ""
    type: str = ""
    source: str = ""
    options: tuple[str, ...] | None = None


class Memory(msgspec.Struct):
    limit: int | None = None
    swap: int | None = None
    reservation: int | None = None
    swappiness: int | None = None


class Cpu(msgspec.Struct, rename="camel"):
    shares: int | None = None
    quota: int | None = None
    period: int | None = None
    cpus: str = ""
    mems: str = ""


class Pids(msgspec.Struct):
    limit: int = 0


class Resources(msgspec.Struct):
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None


class Namespace(msgspec.Struct):
    type: str = ""
    path: str = ""


class Linux(msgspec.Struct):
    resources: Resources | None = None
    namespaces: tuple[Namespace, ...] = ()
    sysctl: dict[str, str] | None = None


class Spec(msgspec.Struct):
    process: Process = msgspec.field(default_factory=Process)
    root: Root = msgspec.field(default_factory=Root)
    hostname: str = ""
    mounts: tuple[SpecMount, ...] = ()
    annotations: dict[str, str] | None = None
    linux: Linux = msgspec.field(default_factory=Linux)


class NamedVolume(msgspec.Struct, rename="camel"):
    volume_name: str = ""
    dest: str = ""
    options: tuple[str, ...] | None = None


class ImageVolume(msgspec.Struct):
    source: str = ""
    dest: str = ""


class SecretUse(msgspec.Struct):
    name: str = ""
    uid: int = msgspec.field(name="UID", default=0)
    gid: int = msgspec.field(name="GID", default=0)
    mode: int = msgspec.field(name="Mode", default=0)
    target: str = msgspec.field(name="Target", default="")


class PortMapping(msgspec.Struct):
    host_ip: str = ""
    container_port: int = 0
    host_port: int = 0
    range: int = 1
    protocol: str = "tcp"


class NetworkUse(msgspec.Struct):
    static_ips: tuple[str, ...] | None = None
    aliases: tuple[str, ...] | None = None
    static_mac: str = ""


class Device(msgspec.Struct):
    path: str = ""


class IdMappings(msgspec.Struct):
    uid_map: tuple[msgspec.Raw, ...] | None = msgspec.field(name="UIDMap", default=None)
    auto: bool = msgspec.field(name="AutoUserNs", default=False)


class Check(msgspec.Struct, rename="pascal"):
    test: tuple[str, ...] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    retries: int = 0


class Config(msgspec.Struct, rename="camel"):
    """The configuration of a container in the table ``ContainerConfig``."""

    id: str = ""
    name: str = ""
    pod: str = ""
    spec: Spec = msgspec.field(default_factory=Spec)
    rootfs_image_id: str = msgspec.field(name="rootfsImageID", default="")
    rootfs_image_name: str = ""
    id_mappings: IdMappings = msgspec.field(name="idMappingsOptions", default_factory=IdMappings)
    shm_size: int = 0
    named_volumes: tuple[NamedVolume, ...] | None = None
    overlay_volumes: tuple[ImageVolume, ...] | None = msgspec.field(
        name="overlayVolumes", default=None
    )
    image_volumes: tuple[ImageVolume, ...] | None = msgspec.field(
        name="ctrImageVolumes", default=None
    )
    secrets: tuple[SecretUse, ...] | None = None
    env_secrets: dict[str, SecretUse] | None = msgspec.field(name="env_secrets", default=None)
    privileged: bool = False
    user: str = ""
    groups: tuple[str, ...] | None = None
    net_container: str = msgspec.field(name="netNsCtr", default="")
    ipc_container: str = msgspec.field(name="ipcNsCtr", default="")
    uts_container: str = msgspec.field(name="utsNsCtr", default="")
    pid_container: str = msgspec.field(name="pidNsCtr", default="")
    exposed: dict[str, tuple[str, ...]] | None = msgspec.field(name="exposedPorts", default=None)
    ports: tuple[PortMapping, ...] | None = msgspec.field(name="newPortMappings", default=None)
    networks: dict[str, NetworkUse] | None = msgspec.field(name="newNetworks", default=None)
    network_mode: str = ""
    dns_server: tuple[str, ...] | None = None
    dns_search: tuple[str, ...] | None = None
    dns_option: tuple[str, ...] | None = None
    hosts_add: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    stdin: bool = False
    labels: dict[str, str] | None = None
    stop_signal: int = 0
    stop_timeout: int = 10
    created_time: str = ""
    log_driver: str = ""
    restart_policy: str = msgspec.field(name="restart_policy", default="")
    restart_retries: int = msgspec.field(name="restart_retries", default=0)
    healthcheck: Check | None = None
    devices: tuple[Device, ...] | None = msgspec.field(name="device_host_src", default=None)
    is_infra: bool = msgspec.field(name="pause", default=False)
    mount_all_devices: bool = False
    rootfs: str = ""


class ContainerState(msgspec.Struct):
    """The state in the table ``ContainerState``. ``state`` is libpod's number."""

    state: int = 0
    pid: int = 0


class Volume(msgspec.Struct, rename="camel"):
    """A volume in the table ``VolumeConfig``."""

    name: str = ""
    labels: dict[str, str] | None = None
    volume_driver: str = "local"
    mount_point: str = ""
    created_at: str = ""
    volume_options: dict[str, str] | None = None
    is_anon: bool = False


class Pod(msgspec.Struct):
    """A pod in the table ``PodConfig``."""

    id: str = ""
    name: str = ""


def familiar(name: str) -> str:
    """Return the name of an image as docker shows it. Pure."""
    return name.removeprefix("docker.io/").removeprefix("library/")


def read_container(
    config: Config,
    state: str,
    pods: Mapping[str, str],
    *,
    changed: int = 0,
    no_changes: str = "",
    rootless: bool = False,
) -> SourceContainer:
    """Return a container. ``pods`` are the names of pods by id. Pure.

    ``state`` is the state in docker's words.
    """
    if (config.id_mappings.uid_map or config.id_mappings.auto) and not rootless:
        no_changes = "owners on the disk are those of its own user namespace"
    refusal = ""
    if config.rootfs or not config.rootfs_image_id:
        refusal = "it has a root file system that is not an image's"
    elif any(each.path for each in config.spec.linux.namespaces):
        refusal = "it joins a namespace by its path"
    volumes = tuple(
        SourceMount(each.volume_name, each.dest, "ro" in (each.options or ()))
        for each in config.named_volumes or ()
    )
    return SourceContainer(
        id=config.id,
        name=config.name,
        image=f"sha256:{config.rootfs_image_id}",
        request=_request(config),
        endpoints=_endpoints(config),
        created=seconds(config.created_time),
        status=state,
        volumes=volumes,
        changed=changed,
        no_changes=no_changes,
        notes=tuple(_notes(config, pods)),
        refusal=refusal,
    )


def status(state: ContainerState, *, is_alive: bool) -> str:
    """Return a state in docker's words; a state is stale after a restart of the host. Pure."""
    if state.state in (_RUNNING, _PAUSED) and is_alive:
        return "running" if state.state == _RUNNING else "paused"
    return "created" if state.state <= 2 else "exited"


def _notes(config: Config, pods: Mapping[str, str]) -> list[str]:
    notes = []
    if config.pod:
        pod = pods.get(config.pod, config.pod[:12])
        part = "holds the namespaces of pod" if config.is_infra else "of pod"
        notes.append(f"{part} {pod}; jaula has pods for Kubernetes only")
    if config.env_secrets:
        notes.append(f"secrets in the environment are missing: {', '.join(config.env_secrets)}")
    if config.overlay_volumes:
        notes.append("overlay volumes (:O) are missing")
    if config.log_driver in ("passthrough", "passthrough-tty"):
        notes.append("logs to json-file")
    return notes


def _endpoints(config: Config) -> dict[str, EndpointSettings]:
    endpoints = {}
    for name, use in (config.networks or {}).items():
        addresses = use.static_ips or ()
        ipv4 = next((each for each in addresses if ":" not in each), "")
        ipv6 = next((each for each in addresses if ":" in each), "")
        ipam = EndpointIPAMConfig(ipv4_address=ipv4, ipv6_address=ipv6) if addresses else None
        is_default = name == DEFAULT_NETWORK
        aliases = () if is_default else tuple(a for a in use.aliases or () if a != config.id[:12])
        endpoints["bridge" if is_default else name] = EndpointSettings(
            ipam_config=None if is_default else ipam, aliases=aliases, mac_address=use.static_mac
        )
    return endpoints


def _network_mode(config: Config) -> str:
    types = {each.type for each in config.spec.linux.namespaces}
    if config.net_container:
        return f"container:{config.net_container}"
    if "network" not in types:
        return "host"
    names = list(config.networks or ())
    if names:
        return "bridge" if names[0] == DEFAULT_NETWORK else names[0]
    return "none" if config.network_mode == "none" else "bridge"


def _request(config: Config) -> ContainerCreate:
    spec, process = config.spec, config.spec.process
    annotations = spec.annotations or {}
    types = {each.type for each in spec.linux.namespaces}
    network = _network_mode(config)
    is_named = (
        not config.uts_container
        and "uts" in types
        and network.partition(":")[0] not in ("host", "container")
    )
    host = HostConfig(
        binds=_binds(config),
        mounts=_image_mounts(config),
        tmpfs=_tmpfs(config),
        network_mode=network,
        ipc_mode=_mode(config.ipc_container, "ipc" in types, private="shareable"),
        pid_mode=_mode(config.pid_container, "pid" in types),
        uts_mode=_mode(config.uts_container, "uts" in types),
        userns_mode=_user_namespace(config),
        port_bindings=_port_bindings(config),
        restart_policy=RestartPolicy(
            name=config.restart_policy or "no", maximum_retry_count=config.restart_retries
        ),
        log_config=_log(config),
        privileged=config.privileged,
        readonly_rootfs=spec.root.readonly,
        cap_add=_added(config),
        cap_drop=_dropped(config),
        security_opt=_security(process, annotations),
        dns=config.dns_server or (),
        dns_search=config.dns_search or (),
        dns_options=config.dns_option or (),
        extra_hosts=config.hosts_add or (),
        group_add=config.groups or (),
        sysctls=spec.linux.sysctl or {},
        shm_size=0 if config.shm_size == _DEFAULT_SHM else config.shm_size,
        init=True if annotations.get("io.podman.annotations.init") == "TRUE" else None,
        oom_score_adj=process.oom_score_adj or 0,
        devices=tuple(map(_device, config.devices or ())),
        ulimits=tuple(map(_ulimit, process.rlimits or ())),
        secrets=tuple(map(_secret, config.secrets or ())),
        annotations={
            key: value
            for key, value in annotations.items()
            if not key.startswith(("io.podman.", "io.kubernetes.cri-o.", "io.container.manager"))
        },
        **_limits(spec.linux.resources or Resources()),
    )
    return ContainerCreate(
        image=familiar(config.rootfs_image_name),
        hostname=spec.hostname if is_named else "",
        user=config.user,
        env=tuple(
            text
            for text in process.env
            if text not in _OWN_ENVIRONMENT and not text.startswith(("HOSTNAME=", "HOME="))
        ),
        entrypoint=config.entrypoint or ("",),
        cmd=config.command,
        working_dir=process.cwd,
        tty=process.terminal,
        open_stdin=config.stdin,
        labels=config.labels or {},
        stop_signal=str(config.stop_signal) if config.stop_signal else "",
        stop_timeout=config.stop_timeout,
        healthcheck=_healthcheck(config.healthcheck),
        exposed_ports={
            f"{port}/{protocol}": Empty()
            for port, protocols in (config.exposed or {}).items()
            for protocol in protocols
        },
        host_config=host,
    )


def _mode(container: str, has_namespace: bool, private: str = "") -> str:
    if container:
        return f"container:{container}"
    return private if has_namespace else "host"


def _user_namespace(config: Config) -> str:
    """Return the mode: containers that share namespaces have to share the user namespace."""
    others = (config.net_container, config.ipc_container, config.pid_container)
    other = next(filter(None, others), "")
    return f"container:{other}" if other else ""


def _binds(config: Config) -> tuple[str, ...]:
    binds = []
    for volume in config.named_volumes or ():
        mode = ":ro" if "ro" in (volume.options or ()) else ""
        binds.append(f"{volume.volume_name}:{volume.dest}{mode}")
    for mount in config.spec.mounts:
        if mount.type == "bind" and mount.destination != _INIT and mount.source.startswith("/"):
            options = mount.options or ()
            words = [
                word
                for word in options
                if word in ("ro", "z", "Z", "shared", "rshared", "slave", "rslave")
            ]
            binds.append(":".join((mount.source, mount.destination, ",".join(words))).rstrip(":"))
    return tuple(binds)


def _image_mounts(config: Config) -> tuple[Mount, ...]:
    return tuple(
        Mount(
            type="image",
            source=each.source,
            target=each.dest,
            read_only=True,
            image_options=ImageOptions(),
        )
        for each in config.image_volumes or ()
    )


def _tmpfs(config: Config) -> dict[str, str]:
    """Return the requested tmpfs mounts, and those of ``--read-only``."""
    mounts = {}
    for mount in config.spec.mounts:
        if mount.type != "tmpfs" or mount.destination.startswith("/dev"):
            continue
        words = mount.options or ()
        kept = [
            word for word in words if word.startswith(("size=", "mode=")) or word in ("ro", "exec")
        ]
        mounts[mount.destination] = ",".join(kept)
    return mounts


def _port_bindings(config: Config) -> dict[str, tuple[PortBinding, ...]]:
    bindings: dict[str, tuple[PortBinding, ...]] = {}
    for mapping in config.ports or ():
        for offset in range(min(max(mapping.range, 1), 65536)):
            for protocol in mapping.protocol.split(","):
                key = f"{mapping.container_port + offset}/{protocol}"
                binding = PortBinding(
                    host_ip=mapping.host_ip, host_port=str(mapping.host_port + offset)
                )
                bindings[key] = (*bindings.get(key, ()), binding)
    return bindings


def _log(config: Config) -> LogConfig:
    own = ("", "k8s-file", "journald", "passthrough", "passthrough-tty")
    return LogConfig() if config.log_driver in own else LogConfig(type=config.log_driver)


def _added(config: Config) -> tuple[str, ...]:
    capabilities = config.spec.process.capabilities
    if config.privileged or capabilities is None:
        return ()
    return tuple(sorted(set(capabilities.bounding) - _CAPABILITIES))


def _dropped(config: Config) -> tuple[str, ...]:
    """Return the capabilities that podman does not give, and docker does."""
    capabilities = config.spec.process.capabilities
    if config.privileged or capabilities is None:
        return ()
    return tuple(sorted(_CAPABILITIES - set(capabilities.bounding)))


def _security(process: Process, annotations: dict[str, str]) -> tuple[str, ...]:
    options = ["no-new-privileges"] if process.no_new_privileges else []
    for name in ("seccomp", "apparmor"):
        if annotations.get(f"io.podman.annotations.{name}") == "unconfined":
            options.append(f"{name}=unconfined")
    return tuple(options)


def _device(device: Device) -> DeviceMapping:
    host, _, rest = device.path.partition(":")
    inside, _, permissions = rest.partition(":")
    return DeviceMapping(
        path_on_host=host, path_in_container=inside or host, cgroup_permissions=permissions or "rwm"
    )


def _ulimit(limit: Rlimit) -> Ulimit:
    name = limit.type.removeprefix("RLIMIT_").lower()
    return Ulimit(name=name, hard=_signed(limit.hard), soft=_signed(limit.soft))


def _signed(number: int) -> int:
    return -1 if number >= 1 << 63 else number


def _secret(use: SecretUse) -> SecretReference:
    return SecretReference(
        source=use.name,
        target=use.target or use.name,
        uid=str(use.uid),
        gid=str(use.gid),
        mode=use.mode or None,
    )


def _limits(resources: Resources) -> dict[str, Any]:
    memory, cpu = resources.memory or Memory(), resources.cpu or Cpu()
    pids = resources.pids.limit if resources.pids else 0
    limits = {
        "memory": memory.limit,
        "memory_swap": memory.swap if memory.swap != 2 * (memory.limit or 0) else None,
        "memory_reservation": memory.reservation,
        "cpu_shares": cpu.shares,
        "cpu_quota": cpu.quota,
        "cpu_period": cpu.period,
        "cpuset_cpus": cpu.cpus,
        "cpuset_mems": cpu.mems,
        "pids_limit": pids if pids not in (0, _DEFAULT_PIDS) else None,
    }
    return {name: value for name, value in limits.items() if value}


def _healthcheck(check: Check | None) -> Healthcheck | None:
    if check is None or not check.test:
        return None
    return Healthcheck(
        test=check.test,
        interval=check.interval,
        timeout=check.timeout,
        start_period=check.start_period,
        retries=check.retries,
    )
