"""Compare the images of a checkpoint with the spec of their container, before CRIU reads them.

CRIU runs as root and restores what the images say: credentials, filters, namespaces, cgroups and
mounts. So everything that confines the processes is either written by the engine, or must be what
the spec gives. Memory, registers and files of the container are taken as they are: they are no more
than programs inside the container could make.
"""

from __future__ import annotations

import os
import re
import resource
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from jaula.errors import InvalidRequest
from jaula.features.checkpoint.runtime.criu_images import Images, invalid
from jaula.features.checkpoint.runtime.proto import images_pb2
from jaula.kernel.mounts import MS
from jaula.spec.apparmor_name import is_default

ALIVE, DEAD, STOPPED = 1, 2, 3  # CRIU's states of a task in images; a zombie is dead
_WITH_CORE = (ALIVE, STOPPED)
_FILTER_MODE = 2  # SECCOMP_MODE_FILTER
_TSYNC = 1  # SECCOMP_FILTER_FLAG_TSYNC
_MAX_SECURE_BITS = 0xFF
_CAPABILITIES = 64
_NET_RAW, _SYS_NICE = 13, 23  # CAP_NET_RAW, CAP_SYS_NICE
_ORDINARY_POLICIES = (0, 3, 5)  # SCHED_OTHER, SCHED_BATCH, SCHED_IDLE
_REALTIME_POLICIES = (1, 2)  # SCHED_FIFO, SCHED_RR

# CRIU's numbers of file systems and of files ("fstype", "fd_types")
_PROC, _SYSFS, _TMPFS, _DEVPTS, _CGROUP, _MQUEUE, _OVERLAY, _CGROUP2 = 1, 2, 5, 6, 12, 14, 17, 23
_FILE_SYSTEMS = {
    _PROC: "proc",
    _SYSFS: "sysfs",
    _TMPFS: "tmpfs",
    _DEVPTS: "devpts",
    _CGROUP: "cgroup",
    _MQUEUE: "mqueue",
    _OVERLAY: "overlay",
    _CGROUP2: "cgroup2",
}
OPTIONS = {MS.RDONLY: "ro", MS.NOSUID: "nosuid", MS.NODEV: "nodev", MS.NOEXEC: "noexec"}
"""Options of mountinfo by their attributes."""
_OPTION = re.compile(r"[a-z0-9_]*(=[A-Za-z0-9_.:+-]*)?")  # without a path, as of an agent
_REFUSED_OPTIONS = ("none", "all", "release_agent")  # they make another hierarchy of cgroups
CONSOLE = "/dev/console"
UNCONFINED = "unconfined"  # AppArmor's word for no profile
_REG, _INET, _PACKET = 1, 4, 10
_FILES = {
    _REG: "file",
    2: "pipe",
    3: "fifo",
    _INET: "inet socket",
    5: "unix socket",
    6: "eventfd",
    7: "epoll",
    8: "inotify",
    9: "signalfd",
    _PACKET: "packet socket",
    11: "terminal",
    13: "netlink socket",
    17: "timerfd",
    18: "memfd",
    20: "pidfd",
}
"""Files that are restored. Namespaces, tun devices, BPF maps and external files are not."""

_KINDS = {
    "pid": "pid_ns_id",
    "network": "net_ns_id",
    "ipc": "ipc_ns_id",
    "uts": "uts_ns_id",
    "mount": "mnt_ns_id",
    "user": "user_ns_id",
    "cgroup": "cgroup_ns_id",
    "time": "time_ns_id",
}


class Expected(msgspec.Struct, frozen=True):
    """The confinement of a container by its spec."""

    namespaces: frozenset[str]  # types that are the container's own
    ids: int  # users and groups from 0 on; 0: the host's, unlimited
    bounding: int  # capabilities
    no_new_privileges: bool
    filter: bytes | None  # classic BPF program; None: no seccomp
    external: frozenset[str]  # destinations of mounts that the engine makes
    mounts: Mapping[str, int]  # attributes (MS) that each destination has at least
    mount_points: frozenset[str]  # every place at which a mount may be
    rlimits: Mapping[int, int]  # highest hard limits by number; the engine's own without
    oom_score_adj: int  # lowest
    apparmor: str = ""  # profile of every process; '': that of the engine
    selinux: str = ""  # label of every process; '': the host has no SELinux
    context: str = ""  # SELinux label of the mounts
    joined: frozenset[str] = frozenset()  # types of namespaces that are another container's
    nice: int = 0  # lowest, without CAP_SYS_NICE and RLIMIT_NICE
    realtime: int = 0  # highest priority, without CAP_SYS_NICE and RLIMIT_RTPRIO
    roots: Mapping[str, frozenset[str]] = msgspec.field(default_factory=dict)
    """The root of each mount in its file system, by destination; ``/`` if absent."""

    def allows_root(self, path: str, fstype: str, root: str) -> bool:
        """Return whether the mount at ``path`` may show ``root`` of its file system. Pure."""
        if path in self.external or path == "/":
            return True  # the engine makes it
        if path == CONSOLE:
            return fstype == "devpts" and root[:1] == "/" and root[1:].isdecimal()
        return root in self.roots.get(path, ("/",))


def check(images: Images, expected: Expected) -> None:
    """Check everything in the images that confines the processes. Pure, except for own rlimits.

    :raises InvalidRequest: for the first difference from the spec.
    """
    _check_inventory(images.inventory)
    _check_tree(images)
    _check_namespaces(images, expected)
    sets = {each.id for each in images.cgroups.sets}
    leaders = {thread: entry.pid for entry in images.tree for thread in entry.threads}
    for task, core in images.cores.items():
        _check_core(task, core, images, leaders, expected, sets)
    mounts = _check_mounts(images.mounts, expected)
    for file in images.files:
        _check_file(file, mounts, expected)


def _check_inventory(inventory: images_pb2.Inventory) -> None:
    if inventory.HasField("plugins_entry") and inventory.plugins_entry.plugins:
        raise invalid("it was made with plugins of CRIU")
    if not inventory.HasField("root_ids"):
        raise invalid("inventory.img does not name the namespaces of the host")


def _check_tree(images: Images) -> None:
    pids = [entry.pid for entry in images.tree]
    if not pids or len(set(pids)) != len(pids) or 0 in pids:
        raise invalid("pstree.img has no task, or one twice")
    roots = [entry.pid for entry in images.tree if entry.ppid == 0]
    if len(roots) != 1:
        raise invalid(f"pstree.img has {len(roots)} first processes")
    threads: set[int] = set()
    for entry in images.tree:
        if entry.pid not in images.cores:
            raise invalid(f"core-{entry.pid}.img is missing")
        state = images.cores[entry.pid].tc.task_state
        if state not in (ALIVE, DEAD, STOPPED):
            raise invalid(f"process {entry.pid} has an unknown state ({state})")
        if state == DEAD and entry.ppid == 0:
            raise invalid("the first process is dead")
        threads.add(entry.pid)
        if state in _WITH_CORE:
            threads.update(entry.threads)
    for thread in threads - set(images.cores):
        raise invalid(f"core-{thread}.img is missing")
    for thread in set(images.cores) - threads:
        raise invalid(f"core-{thread}.img belongs to no process")
    for pid in set(images.ids) - set(pids):
        raise invalid(f"ids-{pid}.img belongs to no process")


def _check_namespaces(images: Images, expected: Expected) -> None:
    """Every process is in the container's namespaces, and in the host's only where the spec says.

    A zombie has no namespaces.
    """
    root = next(entry.pid for entry in images.tree if entry.ppid == 0)
    if root not in images.ids:
        raise invalid(f"ids-{root}.img is missing")
    first, host = images.ids[root], images.inventory.root_ids
    for entry in images.tree:
        state = images.cores[entry.pid].tc.task_state
        if state in _WITH_CORE and entry.pid not in images.ids:
            raise invalid(f"ids-{entry.pid}.img is missing")
    legacy = [core.ids for core in images.cores.values() if core.HasField("ids")]
    for ids in (*images.ids.values(), *legacy):
        for kind, field in _KINDS.items():
            number = getattr(ids, field)
            if number != getattr(first, field):
                raise invalid(f"a process is in another {kind} namespace")
            own = kind in expected.namespaces
            # The host's pid namespace has the number of the container's if CRIU saw no other.
            if own and (not number or number == getattr(host, field)):
                raise invalid(f"a process is in the host's {kind} namespace")
            joined_user = kind == "user" and kind in expected.joined
            if joined_user and (not number or number == getattr(host, field)):
                raise invalid("a process is in the host's user namespace")
            if not own and not joined_user and number and number != getattr(host, field):
                raise invalid(f"a process is in another {kind} namespace than the spec says")
    expected_files = 1 if "user" in expected.namespaces | expected.joined else 0
    if len(images.user_namespaces) != expected_files:
        raise invalid(f"it has {len(images.user_namespaces)} user namespaces")


def _mask(words: Iterable[int]) -> int:
    return sum(word << (32 * index) for index, word in enumerate(words))


def _check_core(
    task: int,
    core: images_pb2.Core,
    images: Images,
    leaders: Mapping[int, int],
    expected: Expected,
    sets: Collection[int],
) -> None:
    if core.HasField("tc") and core.tc.task_state == DEAD:
        return
    thread = core.thread_core
    if not core.HasField("thread_core") or not thread.HasField("creds"):
        raise invalid(f"core-{task}.img has no credentials")
    _check_credentials(task, thread.creds, expected)
    _check_filter(task, core, images, leaders, expected)
    _check_scheduling(task, thread, expected)
    for number in (thread.cg_set, core.tc.cg_set):
        if number and number not in sets:
            raise invalid(f"core-{task}.img has an unknown cgroup")
    if core.HasField("tc"):
        _check_limits(task, core.tc, expected)


def _check_credentials(task: int, creds: images_pb2.Credentials, expected: Expected) -> None:
    for name in ("cap_inh", "cap_prm", "cap_eff", "cap_bnd", "cap_amb"):
        words = getattr(creds, name)
        if len(words) * 32 > _CAPABILITIES or _mask(words) & ~expected.bounding:
            raise invalid(f"process {task} has capabilities that the container does not get")
    if expected.no_new_privileges and not creds.no_new_privs:
        raise invalid(f"process {task} could gain privileges (no_new_privs is not set)")
    numbers = (creds.uid, creds.gid, creds.euid, creds.egid, creds.suid, creds.sgid)
    for number in (*numbers, creds.fsuid, creds.fsgid, *creds.groups):
        if expected.ids and number >= expected.ids:
            raise invalid(f"process {task} has id {number}, which the container does not have")
    if creds.secbits > _MAX_SECURE_BITS:
        raise invalid(f"process {task} has unknown secure bits")
    if creds.lsm_profile and not _may_have_had(creds.lsm_profile, expected):
        raise invalid(
            f"process {task} has the LSM label {creds.lsm_profile!r}, and the container gets"
            f" {' or '.join(map(repr, _labels(expected)))}"
        )
    if creds.lsm_sockcreate and creds.lsm_sockcreate != expected.selinux:
        raise invalid(f"process {task} makes sockets with the LSM label {creds.lsm_sockcreate!r}")
    if creds.apparmor_data:
        raise invalid(f"process {task} brings an AppArmor policy")


def _may_have_had(label: str, expected: Expected) -> bool:
    """Return whether a process with this label may become one of the container.

    Engines of different versions and labels have default profiles of different names. A restore
    gives each thread that of its own engine.
    """
    return label in _labels(expected) or (is_default(label) and is_default(expected.apparmor))


def _labels(expected: Expected) -> tuple[str, ...]:
    """Return the labels that an image may name; one that names none gets the container's."""
    found = (expected.apparmor, expected.selinux)
    return tuple(label for label in found if label) or (UNCONFINED,)


def _check_filter(
    task: int, core: images_pb2.Core, images: Images, leaders: Mapping[int, int], expected: Expected
) -> None:
    """The oldest filter of each thread is the container's; the thread may have added more.

    A thread without one gets the filters of the first thread, if these are set for all threads
    (SECCOMP_FILTER_FLAG_TSYNC).
    """
    if core.HasField("tc") and (
        core.tc.HasField("old_seccomp_mode") or core.tc.HasField("old_seccomp_filter")
    ):
        raise invalid(f"process {task} has a filter of an old format")
    if expected.filter is None:
        return
    if core.thread_core.HasField("seccomp_mode"):
        chain = _filters(task, core, images.filters)
    else:
        leader = leaders.get(task, task)
        chain = _filters(leader, images.cores[leader], images.filters) if leader != task else []
        if not chain or not all(each.flags & _TSYNC for each in chain):
            raise invalid(f"process {task} has no filter of system calls")
    if chain[0].filter != expected.filter:
        raise invalid(f"process {task} has another filter of system calls than the container gets")


def _filters(
    task: int, core: images_pb2.Core, filters: Sequence[images_pb2.SeccompFilter]
) -> list[images_pb2.SeccompFilter]:
    """Return the filters of a thread, oldest first.

    CRIU's member ``prev`` names the filter that is installed after this one: it dumps the oldest
    last and begins a restore there.
    """
    thread = core.thread_core
    if thread.seccomp_mode != _FILTER_MODE or not thread.HasField("seccomp_filter"):
        raise invalid(f"process {task} has no filter of system calls")
    number, seen = thread.seccomp_filter, dict[int, None]()
    while True:
        if number >= len(filters) or number in seen:
            raise invalid(f"process {task} has an unknown filter of system calls")
        seen[number] = None
        if not filters[number].HasField("prev"):
            return [filters[each] for each in seen]
        number = filters[number].prev


def _check_scheduling(task: int, thread: images_pb2.ThreadCore, expected: Expected) -> None:
    """Check that a task has no priority that it could not have set by itself."""
    if expected.bounding & 1 << _SYS_NICE:
        return
    lowest = min(expected.nice, 20 - _highest_limit(resource.RLIMIT_NICE, expected))
    if thread.sched_nice < lowest:
        raise invalid(f"process {task} has a higher priority than the container gets")
    if thread.sched_policy in _ORDINARY_POLICIES:
        return
    highest = max(expected.realtime, _highest_limit(resource.RLIMIT_RTPRIO, expected))
    if thread.sched_policy not in _REALTIME_POLICIES or thread.sched_prio > highest:
        raise invalid(f"process {task} has a real-time priority that the container does not get")


def _highest_limit(number: int, expected: Expected) -> int:
    """Return the highest hard limit that a process may have."""
    highest = expected.rlimits.get(number)
    return _own_limit(number) if highest is None else highest


def _check_limits(task: int, core: images_pb2.TaskCore, expected: Expected) -> None:
    for number, limit in enumerate(core.rlimits.rlimits):
        if limit.max > _highest_limit(number, expected):
            raise invalid(f"process {task} has a higher resource limit than the container gets")
    if core.oom_score_adj < expected.oom_score_adj:
        raise invalid(f"process {task} is better protected from OOM than the container")


def _own_limit(number: int) -> int:
    try:
        hard = resource.getrlimit(number)[1]
    except ValueError:
        raise invalid(f"resource limit {number} is not known") from None
    return hard & 0xFFFF_FFFF_FFFF_FFFF  # RLIM_INFINITY is -1


def _check_mounts(mounts: Sequence[images_pb2.Mount], expected: Expected) -> set[int]:
    """Return the ids of the mounts."""
    seen: dict[str, images_pb2.Mount] = {}
    for mount in mounts:
        path = mount.mountpoint
        if path != "/" and path not in expected.mount_points:
            raise invalid(f"a mount at {path!r} is not part of the container")
        external = path in expected.external
        if mount.ext_key != (path if external else "") or mount.ext_mount:
            raise invalid(f"the mount at {path!r} names a directory of the host")
        if mount.with_plugin or mount.fsname:
            raise invalid(f"the mount at {path!r} needs a plugin")
        if not external and mount.fstype not in _FILE_SYSTEMS:
            raise invalid(f"the mount at {path!r} has an unknown file system")
        if (mount.fstype == _OVERLAY) and path != "/" and not external:
            raise invalid(f"the mount at {path!r} is an overlay")
        if path in seen:
            raise invalid(f"there are two mounts at {path!r}")
        if not external and path != "/":
            _check_source(mount, expected)
        seen[path] = mount
    if "/" not in seen:
        raise invalid("it has no root")
    for path, attributes in expected.mounts.items():
        if path not in seen:
            raise invalid(f"the mount at {path!r} is missing")
        mount = seen[path]
        if path not in expected.external and attributes & ~(mount.flags | mount.sb_flags):
            missing = attributes & ~(mount.flags | mount.sb_flags)
            lost = ", ".join(name for flag, name in OPTIONS.items() if flag & missing)
            raise invalid(f"the mount at {path!r} is not {lost}")
    return {mount.mnt_id for mount in mounts}


def _check_source(mount: images_pb2.Mount, expected: Expected) -> None:
    """Check what a mount that CRIU makes shows, and its options."""
    path = mount.mountpoint
    if not expected.allows_root(path, _FILE_SYSTEMS[mount.fstype], mount.root):
        raise invalid(f"the mount at {path!r} shows {mount.root!r} of its file system")
    if mount.shared_id or mount.master_id:
        raise invalid(f"the mount at {path!r} is shared with others")
    options = mount.options
    if expected.context:
        for quote in ('"', ""):
            options = options.replace(f"context={quote}{expected.context}{quote}", "context")
    for option in options.split(","):
        name = option.partition("=")[0]
        if not _OPTION.fullmatch(option) or name in _REFUSED_OPTIONS:
            raise invalid(f"the mount at {path!r} has the option {option!r}")


def _check_file(file: images_pb2.File, mounts: Collection[int], expected: Expected) -> None:
    if file.type not in _FILES:
        raise invalid(f"file {file.id} is of a kind (CRIU's number {file.type}) that is refused")
    raw = file.type == _PACKET or (file.type == _INET and file.isk.type in (0, socket.SOCK_RAW))
    if raw and not expected.bounding & 1 << _NET_RAW:
        raise invalid(f"file {file.id} is a raw socket, which the container cannot make")
    if file.HasField("reg"):
        name = os.fsdecode(file.reg.name)
        if file.reg.ext:
            raise invalid(f"file {name!r} is outside of the container")
        if file.reg.HasField("mnt_id") and file.reg.mnt_id not in (*mounts, -1):
            raise invalid(f"file {name!r} is on an unknown mount")
        if ".." in name.split("/"):
            raise invalid(f"file {name!r} has '..' in its name")


def refuse(problem: str, hint: str) -> InvalidRequest:
    """Return the error about a container that cannot be dumped or restored, with the way out."""
    return InvalidRequest(problem, hint=hint)
