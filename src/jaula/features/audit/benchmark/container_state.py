"""The state of a running container, as the kernel shows it.

The engine gives the list of containers, their addresses, their health and restart policy. All else
is read from /proc, the cgroup files, the mount table and nft.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from jaula.errors import JaulaError
from jaula.features.verify.checks import devices
from jaula.features.verify.checks.bind_sources import READERS, SYSTEM, exposes_socket, is_secret
from jaula.features.verify.checks.cgroups import CgroupDirs, byte_limit
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.host_snapshot import HostSnapshot
from jaula.features.verify.model.port_maps import forwards
from jaula.features.verify.model.result import Result
from jaula.kernel.apparmor_files import parse_current
from jaula.kernel.capabilities import NAMES
from jaula.kernel.mountinfo import MountInfo
from jaula.kernel.namespace_threads import in_unshared_thread, join_namespaces
from jaula.kernel.rtnetlink import Rtnetlink
from jaula.security import capability_sets
from jaula.security.allowed_devices import DEFAULT_DEVICES
from jaula.security.lsm import detect
from jaula.spec.runtime_spec import Spec
from jaula.state.container_records import ENGINE_SOCKET

DEFAULT_SHARES, DEFAULT_WEIGHT = 1024, 100  # of cgroup v1 and v2
CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
NAMESPACES = ("user", "pid", "net", "ipc", "uts")
OWN_FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
_KUBELET = re.compile(r"/pods/[0-9a-f-]{32,36}/(?:volumes|volume-subpaths|containers|etc-hosts)")


class ContainerProcess(msgspec.Struct, frozen=True):
    """A process in a container; ``uid`` is inside, -1 without a mapping."""

    pid: int
    name: str
    uid: int
    capabilities: int = 0  # the union of its five sets
    is_exec: bool = False


class Port(msgspec.Struct, frozen=True):
    """A published port, as ``host address:port/protocol``."""

    address: str
    port: int
    protocol: str = "tcp"

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}/{self.protocol}"


class ContainerState(msgspec.Struct, frozen=True, kw_only=True):
    """A running container.

    Limits are None if there is none. ``label`` and ``profile`` are None without the module.
    ``binds`` are (path on the host, place in the container). ``health`` is '' without a check.
    """

    name: str
    id: str = ""
    image: str = ""
    image_id: str = ""
    newer_image: bool = False  # whether the name of its image is another image now
    init: ContainerProcess = ContainerProcess(1, "init", 1000)
    others: tuple[ContainerProcess, ...] = ()
    host_namespaces: frozenset[str] = frozenset()
    masked: bool = True  # whether files of /proc are masked
    seccomp: int = 2
    no_new_privs: bool = True
    profile: str | None = None  # of AppArmor, with its mode
    stack_enforces: bool = False  # a profile of a stack of different modes is enforced
    label: str | None = None  # of SELinux
    read_only: bool = True
    binds: tuple[tuple[str, str], ...] = ()
    control_sockets: tuple[str, ...] = ()
    engine_socket: str = ""  # the access of its own socket to the engine
    shared_mounts: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()  # beyond the default ones
    memory: int | None = 1 << 26  # bytes
    cpu: str = "quota"  # what limits the processor, '' if nothing does
    pids: int | None = 100
    nofile: int | None = 1024  # hard limit
    cgroup: str = ""
    cgroup_parent: str = ""  # as requested
    ports: tuple[Port, ...] = ()
    restart_policy: str = "no"
    restarts: int = 0  # maximum of on-failure
    health: str = "healthy"
    on_default_bridge: bool = False
    unlisted: bool = False  # whether the engine's API does not have it
    pod: str = ""  # NAMESPACE/NAME
    groups: frozenset[int] = frozenset()  # of the first process, inside
    host_paths: tuple[tuple[str, str], ...] = ()  # binds that the kubelet does not own
    tokens: tuple[str, ...] = ()  # where tokens of service accounts are mounted
    environment: tuple[str, ...] | None = ()  # of the first process; None if it has none
    rows: tuple[Result, ...] = ()  # of jaula verify, for the profile jaula


# -- pure parts -------------------------------------------------------------------------------


def inside_id(outside: int, text: str) -> int:
    """Return an id of the host as a user namespace sees it, -1 without a mapping. Pure.

    ``text`` is /proc/<pid>/uid_map as a process of the host reads it.
    """
    for line in text.splitlines():
        first, host, count = map(int, line.split())
        if host <= outside < host + count:
            return first + outside - host
    return -1


def host_path(mount: MountInfo, host_mounts: Iterable[MountInfo]) -> str | None:
    """Return the path on the host of a mount of a container, by its device and root. Pure.

    It is None if no mount of the host has the file system.
    """
    best: MountInfo | None = None
    for each in host_mounts:
        if each.device != mount.device or not _within(mount.root, each.root):
            continue
        if best is None or len(each.root) > len(best.root):
            best = each
    if best is None:
        return None
    below = mount.root[len(best.root.rstrip("/")) :].strip("/")
    return f"{best.target.rstrip('/')}/{below}".rstrip("/") or "/"


def _within(path: str, directory: str) -> bool:
    return (path.rstrip("/") + "/").startswith(directory.rstrip("/") + "/")


def is_sensitive(path: str) -> bool:
    """Return whether a path of the host is a system directory, or has or is in a secret. Pure."""
    return path in SYSTEM or is_secret(path, READERS)


def published(objects: Iterable[Mapping[str, Any]], addresses: Iterable[str]) -> tuple[Port, ...]:
    """Return the ports that nft maps translate to one of the addresses. Pure.

    ``objects`` are those of ``nft -j list ruleset``.
    """
    own = set(addresses)
    ports = {
        Port(each.address, int(each.port), each.protocol)
        for each in forwards(objects)
        if each.target in own
    }
    return tuple(sorted(ports, key=str))


def translated(text: str, addresses: Iterable[str]) -> tuple[Port, ...]:
    """Return the ports that rules of iptables translate to one of the addresses. Pure.

    ``text`` is the output of ``iptables-save -t nat``: dockerd and the CNI plugin portmap write
    such rules.
    """
    own, ports = set(addresses), set()
    for line in text.splitlines():
        words = line.split()
        if words[-2:-1] != ["--to-destination"]:
            continue
        options = {
            name: value
            for before, name, value in zip(words, words[1:], words[2:], strict=False)
            if name.startswith("-") and before != "!"
        }
        target = words[-1].rpartition(":")[0] or words[-1]
        port = options.get("--dport", "")
        if target.strip("[]") not in own or not (port.isascii() and port.isdigit()):
            continue
        address = options.get("-d", "0.0.0.0/0").partition("/")[0]
        ports.add(Port(address, int(port), options.get("-p", "tcp")))
    return tuple(sorted(ports, key=str))


def is_kubelet_path(path: str) -> bool:
    """Return whether a path of the host is a pod's own: below ``pods/UID`` of the kubelet. Pure."""
    return _KUBELET.search(path) is not None


def is_token(path: str, target: str) -> bool:
    """Return whether a mount has the token of a service account. Pure."""
    return target.endswith("/secrets/kubernetes.io/serviceaccount") or "/kube-api-access-" in path


# -- reading ----------------------------------------------------------------------------------


def read(
    inspect: Mapping[str, Any],
    snapshot: HostSnapshot,
    execs: Sequence[Mapping[str, Any]] = (),
    image_ids: Mapping[str, str] | None = None,
    engine_root: str = "",
    translations: str = "",
) -> ContainerState:
    """Read a running container.

    ``image_ids`` has the image of each name now; ``engine_root`` is the data directory;
    ``translations`` is the output of ``iptables-save -t nat``.

    :raises OSError: when a file of the kernel cannot be read.
    :raises Conflict: when the container has exited.
    """
    container = AuditedContainer(inspect, Spec(), snapshot=snapshot, execs=execs)
    try:
        started = container.started()
        state = _read(container, image_ids or {}, engine_root, translations)
        if container.started() != started:
            raise ProcessLookupError(3, "the container exited while it was read")
        return state
    finally:
        container.close()


def read_translations() -> str:
    """Return the output of ``iptables-save -t nat``; '' if it is not installed or fails."""
    try:
        done = subprocess.run(
            ("iptables-save", "-t", "nat"), capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _read(
    container: AuditedContainer, image_ids: Mapping[str, str], engine_root: str, translations: str
) -> ContainerState:
    inspect, snapshot = container.inspect, container.snapshot
    config, host = inspect.get("Config") or {}, container.host_config
    settings = inspect.get("NetworkSettings") or {}
    networks: Mapping[str, Any] = settings.get("Networks") or {}
    exec_pids = {int(e.get("Pid") or 0) for e in container.execs if e.get("Running")}
    own = container.namespaces
    shared = frozenset(k for k in NAMESPACES if own[k] == container.reader_namespaces[k])
    init = _process(container, container.pid, exec_pids)
    mounts = container.mounts
    root = container.mount_at("/")
    binds = tuple(_binds(container, engine_root, shared))
    groups = CgroupDirs(container)
    addresses = [str(n[k]) for n in networks.values()
                 for k in ("IPAddress", "GlobalIPv6Address") if n.get(k)]  # fmt: skip
    if container.pod and "net" not in shared:
        addresses = _addresses(container)
    pod = _pod_title(container.pod)
    image = str(config.get("Image") or "")
    profile = _attribute(container, "attr/apparmor/current") if detect.apparmor() else None
    restart = host.get("RestartPolicy") or {}
    health = (inspect.get("State") or {}).get("Health") or {}
    ports = {*published(snapshot.packet_filter, addresses), *translated(translations, addresses)}
    return ContainerState(
        name=f"{pod}/{container.pod_name}" if pod else str(inspect.get("Name") or "").lstrip("/"),
        id=container.container_id,
        image=image,
        image_id=str(inspect.get("Image") or ""),
        newer_image=image_ids.get(image, inspect.get("Image")) != inspect.get("Image"),
        init=init,
        others=tuple(_others(container, exec_pids)),
        host_namespaces=shared,
        masked=any(m.target.startswith("/proc/") for m in mounts),
        seccomp=int(container.status("Seccomp")),
        no_new_privs=container.status("NoNewPrivs") == "1",
        profile=profile,
        stack_enforces=_stack_enforces(profile),
        label=_attribute(container, "attr/current") if detect.selinux() else None,
        read_only=root is not None and "ro" in root.options,
        binds=tuple(bind for bind in binds if is_sensitive(bind[0])),
        control_sockets=tuple(target for path, target in binds if exposes_socket(path)),
        engine_socket=_engine_socket(inspect),
        shared_mounts=tuple(_shared(mounts, snapshot.mounts)),
        devices=tuple(_devices(container)),
        memory=_least(groups, bool(pod), "memory", "memory.limit_in_bytes", "memory.max"),
        cpu=_cpu(groups, bool(pod)),
        pids=_least(groups, bool(pod), "pids", "pids.max", "pids.max"),
        nofile=_hard_limit(container.read("limits"), "Max open files"),
        cgroup=_cgroup(groups),
        cgroup_parent=container.text("CgroupParent"),
        ports=tuple(sorted(ports, key=str)),
        restart_policy=str(restart.get("Name") or "no"),
        restarts=int(restart.get("MaximumRetryCount") or 0),
        health=str(health.get("Status") or ""),
        on_default_bridge="bridge" in networks,
        pod=pod,
        groups=_groups(container),
        host_paths=tuple(b for b in binds if not _is_own(b[0], container, engine_root)),
        tokens=tuple(target for path, target in binds if is_token(path, target)),
        environment=_environment(container),
    )


def _pod_title(pod: Mapping[str, Any]) -> str:
    """Return ``NAMESPACE/NAME``, the id of the sandbox without a name, '' without a pod."""
    if not pod:
        return ""
    name = pod.get("Name")
    return f"{pod.get('Namespace', '')}/{name}" if name else str(pod.get("Sandbox", ""))[:12]


def _is_own(path: str, container: AuditedContainer, engine_root: str) -> bool:
    """Return whether a path is a file of the container's own, of its pod, or a default device."""
    top = os.path.realpath(engine_root) if engine_root else ""
    sandbox = str(container.pod.get("Sandbox") or "")
    if top and sandbox and _within(path, f"{top}/containers/{sandbox}"):
        return True
    return is_kubelet_path(path) or path in {device.path for device in DEFAULT_DEVICES}


def _groups(container: AuditedContainer) -> frozenset[int]:
    outside = {int(container.status("Gid").split()[1])}
    outside |= {int(word) for word in container.status("Groups").split()}
    text = container.read("gid_map")
    return frozenset(inside_id(gid, text) for gid in outside)


def _addresses(container: AuditedContainer) -> list[str]:
    """Return the addresses in the network namespace: CNI plugins give those of pods."""

    def read() -> list[str]:
        join_namespaces(container.pid, ("net",))
        with Rtnetlink() as netlink:
            return [address.address for address in netlink.addresses()]

    return in_unshared_thread(read)


def _environment(container: AuditedContainer) -> tuple[str, ...] | None:
    """Return the variables of the first process as it was started; None without any."""
    text = container.read("environ")
    return tuple(text.rstrip("\0").split("\0")) if text.strip("\0") else None


def _limits(groups: CgroupDirs, in_pod: bool, controller: str, v1: str, v2: str) -> Iterable[str]:
    """Yield the texts of a limit file: of the cgroup, then of the pod's cgroup above it."""
    own = groups.read(controller, v1, v2)
    above = groups.read_above(controller, v1, v2) if in_pod else None
    return (each[0] for each in (own, above) if each)


def _least(groups: CgroupDirs, in_pod: bool, controller: str, v1: str, v2: str) -> int | None:
    """Return the lower limit of a cgroup and its pod's, None if there is none."""
    limits = [byte_limit(text) for text in _limits(groups, in_pod, controller, v1, v2)]
    return min((limit for limit in limits if limit is not None), default=None)


def _process(container: AuditedContainer, pid: int, exec_pids: set[int]) -> ContainerProcess:
    """Return a process of the container.

    :raises OSError: when it has exited.
    """
    path = f"{container.proc_root}/{pid}"
    with open(f"{path}/status", encoding="utf-8", errors="replace") as file:
        rows = dict(line.partition(":")[::2] for line in file.read().splitlines())
    with open(f"{path}/uid_map", encoding="ascii") as file:
        uid = inside_id(int(rows["Uid"].split()[1]), file.read())
    mask = 0
    for each in CAPABILITY_SETS:
        mask |= capability_sets.parse_mask(rows[each])
    name = _program(path, rows["Name"].strip())
    return ContainerProcess(pid, name, uid, mask, pid in exec_pids)


def _others(container: AuditedContainer, exec_pids: set[int]) -> Iterable[ContainerProcess]:
    for member in container.members:
        if member.pid == container.pid:
            continue
        try:
            yield _process(container, member.pid, exec_pids)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has exited


def _program(path: str, name: str) -> str:
    """Return the name of a process, with that of the file that it executes if that differs."""
    try:
        executable = os.path.basename(os.readlink(f"{path}/exe"))
    except OSError:
        return name
    return name if executable == name else f"{name} ({executable})"


def _attribute(container: AuditedContainer, name: str) -> str:
    return container.read(name).rstrip("\0\n")


def _stack_enforces(profile: str | None) -> bool:
    """Return whether a part of a label of the mode ``mixed`` is enforced. Each has its own mode."""
    name, mode = parse_current(profile or "")
    if mode != "mixed":
        return False
    modes = detect.apparmor_profiles() or {}
    return any(modes.get(part) == "enforce" for part in name.split("//&"))


def _binds(
    container: AuditedContainer, engine_root: str, shared: frozenset[str]
) -> Iterable[tuple[str, str]]:
    """Yield (path on the host, place) of the mounts of the host's files."""
    top = os.path.realpath(engine_root) if engine_root else ""
    own = f"{top}/containers/{container.container_id}"
    for mount in container.mounts:
        if mount.target == "/" or mount.fstype in ("cgroup", "cgroup2"):
            continue
        if mount.fstype == "proc" and "pid" in shared and _within(mount.target, "/proc"):
            continue  # the host's, since the namespace is
        if mount.fstype == "sysfs" and "net" in shared and _within(mount.target, "/sys"):
            continue
        if mount.fstype == "mqueue" and "ipc" in shared:
            continue
        path = host_path(mount, container.host_mounts)
        if path is None or (top and (_within(path, own) or _within(path, f"{top}/volumes"))):
            continue
        yield path, mount.target


def _engine_socket(inspect: Mapping[str, Any]) -> str:
    if not any(mount.get("Type") == ENGINE_SOCKET for mount in inspect.get("Mounts") or ()):
        return ""
    return str((inspect.get("EngineSocket") or {}).get("Access") or "unknown")


def _shared(mounts: Iterable[MountInfo], host_mounts: Iterable[MountInfo]) -> Iterable[str]:
    """Yield the mounts of a peer group that a mount of the host has."""
    peers = {word for mount in host_mounts for word in mount.propagation if "shared:" in word}
    return (mount.target for mount in mounts if peers & set(mount.propagation))


def _devices(container: AuditedContainer) -> Iterable[str]:
    default = {(device.type, device.major, device.minor) for device in DEFAULT_DEVICES}
    for path, node in devices.nodes(container):
        terminal = node[0] == "c" and 136 <= node[1] < 144
        if node not in default and node != ("c", 5, 2) and not terminal:
            yield path


def _cpu(groups: CgroupDirs, in_pod: bool) -> str:
    """Return what limits the processor time: a quota, or a share other than the default."""
    legacy = groups.legacy("cpu") is not None
    for text in _limits(groups, in_pod, "cpu", "cpu.cfs_quota_us", "cpu.max"):
        if text.split()[0] not in ("-1", "max"):
            return f"quota {text}"
    share = groups.read("cpu", "cpu.shares", "cpu.weight")
    if share and int(share[0]) != (DEFAULT_SHARES if legacy else DEFAULT_WEIGHT):
        return f"{'shares' if legacy else 'weight'} {share[0]}"
    return ""


def _hard_limit(text: str, name: str) -> int | None:
    """Return a hard limit of /proc/<pid>/limits, None if it is unlimited."""
    for line in text.splitlines():
        if line.startswith(name):
            value = line[len(name) :].split()[1]
            return None if value == "unlimited" else int(value)
    raise KeyError(name)


def _cgroup(groups: CgroupDirs) -> str:
    """Return the path of the cgroup that has the limits."""
    for names, path in groups.entries:
        if "memory" in names.split(","):
            return path
    return next((path for names, path in groups.entries if not names), "")


def all_capabilities() -> int:
    """Return the mask of every capability that this kernel has.

    :raises OSError: when the kernel does not tell.
    """
    try:
        with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
            return (1 << (int(file.read()) + 1)) - 1
    except FileNotFoundError:
        return (1 << len(NAMES)) - 1


def names_of(mask: int) -> str:
    """Return the names of a capability mask, or the mask if it has unknown bits."""
    try:
        return ", ".join(capability_sets.decode(mask))
    except JaulaError:
        return f"{mask:#x}"
