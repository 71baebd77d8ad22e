"""``config.json`` of the OCI runtime specification, version 1.2, for Linux.

Source: opencontainers/runtime-spec, ``config.md`` and ``config-linux.md``. Field names are the
document's (camelCase on the wire by ``rename``). Unknown fields are ignored, as the specification
requires of runtimes (``extensibility``).

Annotations are evaluated types, not strings, because msgspec would have to compile strings: this
saves 1.3 ms.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec

OCI_VERSION = "1.2.0"


class _Document(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    pass


class Box(_Document, frozen=True):
    height: int = 0
    width: int = 0


class User(_Document, frozen=True):
    uid: int = msgspec.field(default=0)
    gid: int = msgspec.field(default=0)
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()


class Capabilities(_Document, frozen=True):
    """Capability sets; names have the ``CAP_`` prefix."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Rlimit(_Document, frozen=True):
    type: str  # RLIMIT_NOFILE ...
    hard: int
    soft: int


class IOPriority(_Document, frozen=True):
    class_: str = msgspec.field(name="class", default="IOPRIO_CLASS_NONE")
    priority: int = 0


class Scheduler(_Document, frozen=True):
    policy: str
    nice: int = 0
    priority: int = 0
    flags: tuple[str, ...] = ()
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class ExecCPUAffinity(_Document, frozen=True):
    """CPU lists (``0-3,7``) of an exec'd process before and after it enters the cgroup."""

    initial: str | None = None
    final: str | None = None


class Process(_Document, frozen=True):
    cwd: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    terminal: bool = False
    console_size: Box | None = None
    user: User = User()
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str | None = None
    selinux_label: str | None = None
    oom_score_adj: int | None = None
    io_priority: IOPriority | None = None
    scheduler: Scheduler | None = None
    exec_cpu_affinity: ExecCPUAffinity | None = msgspec.field(name="execCPUAffinity", default=None)
    command_line: str | None = None  # Windows only; refused


class Root(_Document, frozen=True):
    path: str
    readonly: bool = False


class IDMapping(_Document, frozen=True):
    container_id: int = msgspec.field(name="containerID")
    host_id: int = msgspec.field(name="hostID")
    size: int


class Mount(_Document, frozen=True):
    destination: str
    source: str | None = None
    type: str | None = None
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()


class Namespace(_Document, frozen=True):
    type: str  # pid network mount ipc uts user cgroup time
    path: str | None = None


class Device(_Document, frozen=True):
    path: str
    type: str  # c b u p
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class DeviceCgroup(_Document, frozen=True):
    allow: bool
    type: str | None = None  # a c b; None: a
    major: int | None = None  # None: any
    minor: int | None = None
    access: str | None = None


class Memory(_Document, frozen=True):
    """Memory limits in bytes; -1 means unlimited."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None  # memory plus swap
    kernel: int | None = None
    swappiness: int | None = None
    disable_oom_killer: bool = msgspec.field(name="disableOOMKiller", default=False)
    check_before_update: bool = False  # refuse a limit below the current usage


class CPU(_Document, frozen=True):
    shares: int | None = None
    quota: int | None = None  # microseconds per period
    burst: int | None = None
    period: int | None = None  # microseconds
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str | None = None
    mems: str | None = None
    idle: int | None = None


class Pids(_Document, frozen=True):
    limit: int


class WeightDevice(_Document, frozen=True):
    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class ThrottleDevice(_Document, frozen=True):
    major: int
    minor: int
    rate: int


class BlockIO(_Document, frozen=True):
    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[ThrottleDevice, ...] = msgspec.field(
        name="throttleReadIOPSDevice", default=()
    )
    throttle_write_iops_device: tuple[ThrottleDevice, ...] = msgspec.field(
        name="throttleWriteIOPSDevice", default=()
    )


class HugepageLimit(_Document, frozen=True):
    page_size: str
    limit: int


class Rdma(_Document, frozen=True):
    hca_handles: int | None = None
    hca_objects: int | None = None


class InterfacePriority(_Document, frozen=True):
    name: str
    priority: int


class Network(_Document, frozen=True):
    """Settings of the v1 controllers net_cls and net_prio."""

    class_id: int | None = msgspec.field(name="classID", default=None)
    priorities: tuple[InterfacePriority, ...] = ()


class Resources(_Document, frozen=True):
    devices: tuple[DeviceCgroup, ...] = ()
    memory: Memory | None = None
    cpu: CPU | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = msgspec.field(name="blockIO", default=None)
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    rdma: dict[str, Rdma] = {}  # by device name
    network: Network | None = None
    unified: dict[str, str] = {}


class SyscallArg(_Document, frozen=True):
    index: int
    value: int
    op: str  # SCMP_CMP_*
    value_two: int = 0


class Syscall(_Document, frozen=True):
    """A rule. ``architectures`` is an extension: those that it is for, all if it is empty.

    A runtime that does not know the member applies the rule to all architectures.
    """

    names: tuple[str, ...]
    action: str  # SCMP_ACT_*
    errno_ret: int | None = None
    args: tuple[SyscallArg, ...] = ()
    architectures: tuple[str, ...] = ()  # SCMP_ARCH_*


class Seccomp(_Document, frozen=True):
    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str | None = None
    listener_metadata: str | None = None
    syscalls: tuple[Syscall, ...] = ()


class Personality(_Document, frozen=True):
    domain: str
    flags: tuple[str, ...] = ()


class MemoryPolicy(_Document, frozen=True):
    """A NUMA policy, of spec version 1.3."""

    mode: str  # MPOL_BIND ...
    nodes: str = ""  # such as 0-3,7
    flags: tuple[str, ...] = ()


class TimeOffset(_Document, frozen=True):
    secs: int = 0
    nanosecs: int = 0


class IntelRdt(_Document, frozen=True):
    clos_id: str | None = msgspec.field(name="closID", default=None)
    l3_cache_schema: str | None = msgspec.field(name="l3CacheSchema", default=None)
    mem_bw_schema: str | None = None
    enable_cmt: bool = msgspec.field(name="enableCMT", default=False)
    enable_mbm: bool = msgspec.field(name="enableMBM", default=False)


class Linux(_Document, frozen=True):
    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()
    devices: tuple[Device, ...] = ()
    cgroups_path: str | None = None
    resources: Resources | None = None
    rootfs_propagation: str | None = None
    seccomp: Seccomp | None = None
    sysctl: dict[str, str] = {}
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    mount_label: str | None = None
    personality: Personality | None = None
    time_offsets: dict[str, TimeOffset] = {}  # monotonic, boottime
    intel_rdt: IntelRdt | None = None
    memory_policy: MemoryPolicy | None = None


class Hook(_Document, frozen=True):
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] | None = None  # None: the caller's
    timeout: int | None = None  # seconds


class Hooks(_Document, frozen=True):
    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


class Spec(_Document, frozen=True):
    """The ``config.json`` document."""

    oci_version: str = OCI_VERSION
    process: Process | None = None
    root: Root | None = None
    hostname: str | None = None
    domainname: str | None = None
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks | None = None
    annotations: dict[str, str] = {}
    linux: Linux | None = None


class State(msgspec.Struct, frozen=True, rename="camel"):
    """State of a container (runtime.md, "State"), as hooks read and ``state`` prints it."""

    id: str
    status: str  # creating created running stopped; paused is an extension of runtimes
    bundle: str
    pid: int = 0
    annotations: dict[str, str] = {}
    oci_version: str = OCI_VERSION


class ContainerProcessState(msgspec.Struct, frozen=True, rename="camel"):
    """The document that a seccomp agent receives with the listener's descriptor."""

    state: State
    oci_version: str = OCI_VERSION
    fds: tuple[str, ...] = ()
    pid: int = 0
    metadata: str = ""


def encode(spec: Spec) -> bytes:
    """Encode the document as JSON; ``ociVersion`` is always present."""
    document = msgspec.to_builtins(spec)
    document["ociVersion"] = spec.oci_version
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:
        from jaula.spec import fast_json

        return fast_json.encode(document).encode("utf-8", "surrogateescape")


_decode_spec = msgspec.json.Decoder(Spec).decode


def decode(data: bytes) -> Spec:
    """Decode and type-check a ``config.json``; see :func:`decode_as`.

    :raises msgspec.DecodeError: when it is not valid JSON (``ValidationError``: a wrong type).
    """
    return decode_as(data, Spec, _decode_spec)


_Type = TypeVar("_Type", Spec, Process, Resources)


def decode_as(data: bytes, kind: type[_Type], decoder: Callable[[bytes], _Type]) -> _Type:
    """Decode a document with ``decoder``, and read the rest of what callers write.

    A null member is an absent one, as for Go's decoder, except in a map with the author's keys.
    Strings of a process that are not UTF-8 keep their bytes, as surrogates of PEP 383.

    :raises msgspec.DecodeError: when it is not valid JSON (``ValidationError``: a wrong type).
    :raises UnicodeDecodeError: when bytes outside ``args``, ``env`` and ``cwd`` are not UTF-8.
    """
    try:
        return decoder(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if not isinstance(error, UnicodeDecodeError) and "got `null`" not in str(error):
            raise
        from jaula.spec import fast_json

        try:
            document = fast_json.decode(data)
        except ValueError:
            raise error from None
        document, bytes_elsewhere = _as_go(document, ())
        if bytes_elsewhere:
            raise
        return msgspec.convert(document, kind)


_MAPS = frozenset({"annotations", "sysctl", "unified", "rdma", "timeOffsets"})
_BYTES = frozenset({"args", "env", "cwd"})


def _as_go(value: object, path: tuple[str, ...]) -> tuple[object, bool]:
    """Return a JSON value without null members, and whether it has bytes where none are allowed."""
    if isinstance(value, str):
        return value, _has_surrogate(value, bytes_allowed=bool(_BYTES.intersection(path[-1:])))
    if isinstance(value, list):
        items = [_as_go(item, path) for item in value]
        return [item for item, _ in items], any(wrong for _, wrong in items)
    if isinstance(value, dict):
        keep_null = bool(_MAPS.intersection(path[-1:]))
        members = {
            name: _as_go(item, (*path, name))
            for name, item in value.items()
            if item is not None or keep_null
        }
        wrong = any(wrong for _, wrong in members.values()) or any(map(_has_surrogate, members))
        return {name: item for name, (item, _) in members.items()}, wrong
    return value, False


def _has_surrogate(text: str, *, bytes_allowed: bool = False) -> bool:
    """Return whether a string has surrogates; ``bytes_allowed`` excepts those of PEP 383."""
    return not text.isascii() and any(
        0xD800 <= ord(character) <= 0xDFFF
        and not (bytes_allowed and 0xDC80 <= ord(character) <= 0xDCFF)
        for character in text
    )
