"""The decision: which layer refused a system call, by which rule, and the smallest remedy. Pure.

The order of the layers is the kernel's: a seccomp filter runs before the call, capabilities are
checked in it, then mounts, owners and limits. Sources: the manual page of each call, section
ERRORS; kernel/entry for the filter.
"""

from __future__ import annotations

import os
import socket
import stat
from ipaddress import ip_address, ip_network

import msgspec

from jaula.features.record.ebpf_events import socket_address
from jaula.features.why.confinement import Confinement, Network
from jaula.features.why.layers import (
    CALL_GIVES_AWAY,
    GIVES_AWAY,
    HOST_CHECKED,
    HOST_USERS,
    HOST_USERS_GIVES,
    RLIMIT_FLAGS,
    Explanation,
    Layer,
    cap_flag,
)
from jaula.features.why.profile import ALLOW
from jaula.features.why.profile_items import with_profile
from jaula.features.why.refusal import UNLIMITED, Refusal
from jaula.kernel.landlock import LANDLOCK_ACCESS_FS as FS
from jaula.kernel.mountinfo import MountInfo
from jaula.kernel.openat2 import is_within
from jaula.security.masked_paths import MASKS, READONLY
from jaula.security.seccomp.default_profile import (
    FAMILIES,
    GROUPS,
    NAMESPACE_FLAGS,
    NETLINK_AUDIT,
    PERSONALITIES,
    TERMINAL_REQUESTS,
)
from jaula.security.seccomp.seccomp_filter import default_profile, refused_names
from jaula.spec import egress
from jaula.spec.annotations import Ruleset
from jaula.spec.runtime_spec import Syscall, SyscallArg

FORKS = frozenset({"fork", "vfork", "clone", "clone3"})
EXECS = frozenset({"execve", "execveat"})
OPENS = frozenset({"open", "openat", "openat2", "creat"})
_SET_IDS = {  # call: whether its arguments are groups
    "setuid": False, "setreuid": False, "setresuid": False, "setfsuid": False,
    "setgid": True, "setregid": True, "setresgid": True, "setgroups": True, "setfsgid": True,
}  # fmt: skip
_CHOWNS = {"chown": 1, "lchown": 1, "fchown": 1, "fchownat": 2}  # call: argument of the user
_DAC = frozenset({"CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"})
_OWNER = frozenset({"CAP_FOWNER", "CAP_CHOWN", "CAP_FSETID"})
_NETWORK_CALLS = frozenset({"connect", "sendto", "sendmsg", "bind", "listen"})
_CHANGES = {  # calls that change a directory or a file, with the right that Landlock checks
    "mkdir": FS.MAKE_DIR, "mkdirat": FS.MAKE_DIR, "rmdir": FS.REMOVE_DIR,
    "unlink": FS.REMOVE_FILE, "symlink": FS.MAKE_SYM, "symlinkat": FS.MAKE_SYM,
    "truncate": FS.TRUNCATE,
}  # fmt: skip
_MS_REMOUNT, _MS_BIND = 32, 4096
_SHOWN_RULES = 6  # paths of rules that a proof names
_PRIVILEGES = frozenset({"CAP_SETUID", "CAP_SETGID"})
_ENTRY_PROOF = "the call was refused before the kernel entered it (sys_exit without sys_enter)"
_FAMILY_NAMES = {number: name for name, number in vars(socket).items() if name.startswith("AF_")}
_NAMESPACES = {
    0x00020000: "mount", 0x02000000: "cgroup", 0x04000000: "uts", 0x08000000: "ipc",
    0x10000000: "user", 0x20000000: "pid", 0x40000000: "network", 0x00000080: "time",
}  # fmt: skip


class OpenedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that the kernel opens for a call. Ids are of the host.

    ``target`` is the path without symbolic links; ``inode`` is device and number. ``rights`` are
    those of the container's Landlock rules, None if the rules' files are not known; ``hard_link``
    is the path of a rule for another hard link of the file, whose rights are not included.
    """

    path: str
    target: str
    inode: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    rights: int | None = None
    hard_link: str = ""


class FileFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The file that a refused call names. Ids are of the host; ``device`` is like ``c 10:200``.

    ``opened`` is the file, and for a program the interpreters and the loader that the kernel opens
    too. ``closed`` are the directories above that not every user may search.
    """

    mode: int
    directory: str = ""  # the file does not exist: the facts are those of this directory
    uid: int = 0
    gid: int = 0
    device: str = ""
    exec_error: str = ""  # why it cannot be executed
    exec_advice: str = ""
    opened: tuple[OpenedFile, ...] = ()
    closed: tuple[OpenedFile, ...] = ()


def explain(
    refusal: Refusal, confinement: Confinement, facts: FileFacts | None = None
) -> Explanation:
    """Return which layer refused a call. ``facts`` are None if the file is not known or absent."""
    return with_profile(_decide(refusal, confinement, facts), refusal, confinement)


def _decide(refusal: Refusal, confinement: Confinement, facts: FileFacts | None) -> Explanation:
    if not refusal.entered:
        return _seccomp(refusal, confinement)
    if refusal.refused == ("CAP_DAC_READ_SEARCH",) and "CAP_DAC_OVERRIDE" in refusal.effective:
        # The kernel asks for the smaller one first. The larger one is held, so the owner is not
        # of this user namespace.
        refusal = msgspec.structs.replace(refusal, refused=())
    if refusal.syscall in EXECS and (found := _exec(refusal, confinement, facts)):
        return found
    if refusal.errno == "ENOSYS":
        return Explanation(
            layer=Layer.KERNEL,
            rule=f"this kernel has no {refusal.syscall}",
            proof="the filter let the call pass: the kernel itself returned ENOSYS",
            harmless=True,
        )
    if not refusal.errno and refusal.syscall in OPENS:
        return _masked(refusal, confinement)
    if facts and facts.device and (found := _device(refusal, confinement, facts)):
        return found
    if refusal.refused and refusal.errno in ("", "EPERM", "EACCES", "EAGAIN", "ENOMEM"):
        return _capability(refusal, confinement, facts)
    for decide in (_mount, _ids, _limit, _space, _network, _landlock, _no_capability):
        if found := decide(refusal, confinement, facts):
            return found
    return Explanation(
        layer=Layer.KERNEL,
        rule=f"the kernel returned {refusal.errno} after all layers had let the call pass",
        proof="the filter let it pass, and no capability was refused in it",
        advice=f"see the section ERRORS of {refusal.syscall}(2)",
    )


# --- seccomp -------------------------------------------------------------------------------------


def _seccomp(refusal: Refusal, confinement: Confinement) -> Explanation:
    call = refusal.syscall

    def result(
        rule: str,
        flag: str = "",
        gives: str = "",
        advice: str = "",
        *,
        harmless: bool = False,
        args: tuple[SyscallArg, ...] = (),
    ) -> Explanation:
        by_profile = flag.startswith("--security-opt seccomp=")
        return Explanation(
            layer=Layer.SECCOMP,
            rule=rule,
            proof=_ENTRY_PROOF,
            flag=flag,
            gives_away=gives,
            advice=advice,
            harmless=harmless,
            profile_rule=Syscall((call,), ALLOW, args=args) if by_profile else None,
        )

    profile = f"--security-opt seccomp=FILE, a profile that allows {call} too"
    gives = CALL_GIVES_AWAY.get(call, f"the code behind {call}, for every process of the container")
    if confinement.seccomp is None:
        return result("a filter that the program or its parent loaded itself")
    if call == "clone3" and refusal.errno == "ENOSYS":
        return result(
            "clone3 answers ENOSYS, because a filter cannot read its flags; C libraries use clone",
            cap_flag("CAP_SYS_ADMIN"),
            GIVES_AWAY["CAP_SYS_ADMIN"],
            harmless=True,
        )
    calls = confinement.profile_calls
    if calls is not None and call not in calls:
        default = default_profile(confinement.bounding)
        if not refused_names(default, (call,)):
            return result(
                f"{_list_owner(confinement)} does not list the call; the default profile allows it",
                "--security-opt seccomp=FILE, a profile that allows it too",
                "the code behind the call, for every process of the container",
            )
    if not confinement.default_filter and calls is None:
        return result(
            f"the profile of the container has no rule that allows {call}", profile, gives
        )
    if refusal.abi == "x32":
        return result("the x32 ABI is refused as a whole", profile, "a second ABI: twice the holes")
    if call == "socket":
        family = refusal.args[0] & 0xFFFFFFFF
        if family == 16 and refusal.args[2] & 0xFFFFFFFF == NETLINK_AUDIT:
            return result(
                "netlink sockets of the audit system need CAP_AUDIT_CONTROL or CAP_AUDIT_READ",
                cap_flag("CAP_AUDIT_READ"),
                GIVES_AWAY["CAP_AUDIT_READ"],
                "PAM and systemd continue without it",
                harmless=True,
            )
        allowed = ", ".join(name for _, name, _ in FAMILIES)
        name = _FAMILY_NAMES.get(family, str(family))
        return result(
            f"the address family {name} is not allowed ({allowed} are)",
            f"--security-opt seccomp=FILE, a profile that allows socket({name}) too",
            f"the code of {name}, which few hosts use and any user can reach",
            args=(SyscallArg(0, family, "SCMP_CMP_EQ"),),
        )
    if call == "socketcall":
        return result(
            "32-bit sockets are refused: a filter cannot read their address family",
            profile,
            "every address family, for 32-bit programs",
            "use a 64-bit program",
        )
    if call == "personality":
        allowed = ", ".join(name for _, name in PERSONALITIES)
        return result(
            f"personality {refusal.args[0]:#x} is not one of {allowed}",
            profile,
            CALL_GIVES_AWAY[call],
            args=(SyscallArg(0, refusal.args[0], "SCMP_CMP_EQ"),),
        )
    if call == "ioctl":
        request = refusal.args[1] & 0xFFFFFFFF
        text = dict(TERMINAL_REQUESTS).get(request, f"{request:#x}")
        return result(f"terminal request {text}", profile, CALL_GIVES_AWAY[call])
    if call == "clone":
        kinds = _namespaces(refusal.args[0] & NAMESPACE_FLAGS)
        return result(
            f"clone with flags of new namespaces ({kinds}) needs CAP_SYS_ADMIN",
            cap_flag("CAP_SYS_ADMIN"),
            GIVES_AWAY["CAP_SYS_ADMIN"],
        )
    groups = [group for group in GROUPS if call in group.calls and group.capability]
    missing = [group for group in groups if group.capability not in confinement.bounding]
    if missing:
        group = missing[-1]  # the smallest: administration is the first
        capability = group.capability or ""
        detail = f" ({_namespaces(refusal.args[0])})" if call in ("unshare", "setns") else ""
        host = capability in HOST_CHECKED and not confinement.host_users
        flag = f"{cap_flag(capability)} {HOST_USERS}" if host else cap_flag(capability)
        cost = GIVES_AWAY[capability] + (f"; {HOST_USERS_GIVES}" if host else "")
        return result(
            f"group '{group.name}' of the default profile: {call}{detail} needs {capability}",
            flag,
            cost,
            "the kernel checks it in the host's user namespace too"
            if host
            else _advice(refusal, capability),
        )
    return result(f"{call} is not in the default profile", profile, gives)


def _list_owner(confinement: Confinement) -> str:
    if confinement.profile:
        return f"the profile {confinement.profile}"
    return "--security-opt seccomp-allow"


def _namespaces(flags: int) -> str:
    return ", ".join(name for bit, name in _NAMESPACES.items() if flags & bit) or f"{flags:#x}"


# --- capabilities --------------------------------------------------------------------------------


def _capability(refusal: Refusal, confinement: Confinement, facts: FileFacts | None) -> Explanation:
    refused = [each for each in refusal.refused if each != "CAP_SYS_ADMIN"] or ["CAP_SYS_ADMIN"]
    specific = [each for each in refused if each not in _DAC] or refused
    capability = "CAP_DAC_OVERRIDE" if "CAP_DAC_OVERRIDE" in specific else specific[-1]
    where = "the host's" if refusal.level == 0 else "the container's"
    proof = (
        f"cap_capable: {capability} was refused in {where} user namespace (level {refusal.level})"
    )
    call = refusal.syscall

    def result(
        layer: Layer, rule: str, flag: str = "", gives: str = "", advice: str = ""
    ) -> Explanation:
        return Explanation(
            layer=layer, rule=rule, proof=proof, flag=flag, gives_away=gives, advice=advice
        )

    if refusal.no_new_privs and set(refused) & _PRIVILEGES and _user(refusal, confinement):
        return result(
            Layer.NO_NEW_PRIVS,
            f"set-user-ID programs gain nothing, and the program has no {capability} of its own",
            "without --security-opt no-new-privileges",
            "set-user-ID programs of the image, and the bugs in them",
        )
    if (
        set(refused) <= _DAC
        and capability not in refusal.effective
        and (capability in confinement.bounding)
    ):
        return result(
            Layer.PERMISSION,
            f"{_owner(facts, confinement)}; the process is user {_who(refusal, confinement)}",
            "--user 0",
            "root of the container, with its capabilities",
            "change owner or mode of the file in the image or volume",
        )
    if call == "bind" and capability == "CAP_NET_BIND_SERVICE":
        port = socket_address(refusal.text).get("port", 0)
        return result(
            Layer.CAPABILITY,
            f"port {port} is below net.ipv4.ip_unprivileged_port_start, and the process is user "
            f"{_who(refusal, confinement)} without {capability}",
            f"--sysctl net.ipv4.ip_unprivileged_port_start={port or 0}",
            "ports from that number on, for each user of the container",
        )
    if call == "setpriority" and capability == "CAP_SYS_NICE":
        requested = refusal.args[2] & 0xFFFFFFFF
        nice = requested - (1 << 32) if requested >> 31 else requested
        return result(
            Layer.RLIMIT,
            f"nice {nice} is above the limit RLIMIT_NICE, and the process has no {capability}",
            f"--ulimit nice={20 - nice}",
            "priority over other containers, up to that value",
        )
    if call in ("sched_setscheduler", "sched_setattr", "sched_setparam") and (
        capability == "CAP_SYS_NICE"
    ):
        return result(
            Layer.RLIMIT,
            f"real-time priority is above RLIMIT_RTPRIO, and the process has no {capability}",
            "--ulimit rtprio=N",
            "processors: a real-time process displaces all others",
        )
    if call in ("setrlimit", "prlimit64") and capability == "CAP_SYS_RESOURCE":
        number = refusal.args[0 if call == "setrlimit" else 1] & 15
        name = list(refusal.limits or {"?": 0})[number] if len(refusal.limits) > number else "?"
        return result(
            Layer.RLIMIT,
            f"the hard limit of {name} can only be raised with {capability} "
            f"in {where} user namespace",
            f"--ulimit {name}=N",
            "that resource, up to N",
        )
    if call in ("mlock", "mlock2", "mlockall", "mmap", "shmctl") and capability == "CAP_IPC_LOCK":
        limit = refusal.limits.get("memlock", 0)
        return result(
            Layer.RLIMIT,
            f"RLIMIT_MEMLOCK is {_amount(limit)}, and the process has no "
            f"{capability} in {where} user namespace",
            "--ulimit memlock=N",
            "N bytes that cannot be swapped out",
        )
    if call in FORKS and refusal.errno == "EAGAIN":
        return _fork(refusal, confinement)
    if (
        call == "socket"
        and capability == "CAP_NET_RAW"
        and refusal.args[1] & 15 == 3
        and (refusal.args[2] & 0xFFFFFFFF in (1, 58))
    ):
        return result(
            Layer.CAPABILITY,
            f"a raw ICMP socket needs {capability}, and the process "
            f"(user {_who(refusal, confinement)}) has it not",
            '--sysctl net.ipv4.ping_group_range="0 2147483647"',
            "ICMP echo, for programs that use datagram sockets",
            f"or {cap_flag(capability)}: {GIVES_AWAY[capability]}",
        )
    if call in ("mknod", "mknodat"):
        number = refusal.args[2 if call == "mknod" else 3]
        device = f"{number >> 8 & 0xFFF}:{number & 0xFF | number >> 12 & 0xFFF00}"
        return result(
            Layer.USER_NAMESPACE if capability in confinement.bounding else Layer.CAPABILITY,
            f"{call} of a device needs {capability} in {where} user namespace",
            "--device PATH",
            f"the device {device} of the host",
        )
    if capability not in confinement.bounding:
        host = refusal.level < refusal.own_level
        flag = f"{cap_flag(capability)} {HOST_USERS}" if host else cap_flag(capability)
        cost = GIVES_AWAY[capability] + (f"; {HOST_USERS_GIVES}" if host else "")
        if _user(refusal, confinement):  # capabilities are of root
            flag += " --user 0"
        return result(
            Layer.CAPABILITY,
            f"{_operation(refusal)} needs {capability} in {where} user namespace, "
            "and the container has it in none",
            flag,
            cost,
            _advice(refusal, capability),
        )
    if 0 < refusal.level < refusal.own_level:
        return result(
            Layer.USER_NAMESPACE,
            f"{_operation(refusal)} needs {capability} in a user namespace above the process's own",
            advice="the program is in a user namespace that it made itself (unshare, bubblewrap), "
            "or the engine is rootless",
        )
    if refusal.level < refusal.own_level:
        return result(
            Layer.USER_NAMESPACE,
            f"{_operation(refusal)} needs {capability} in the host's user namespace; the container "
            "has it in its own",
            HOST_USERS,
            HOST_USERS_GIVES,
            _advice(refusal, capability),
        )
    if capability not in refusal.effective:
        return result(
            Layer.CAPABILITY,
            f"{_operation(refusal)} needs {capability}; the container has it, but not the process "
            f"of user {_who(refusal, confinement)}",
            "--user 0",
            "root of the container, with its capabilities",
        )
    return result(
        Layer.USER_NAMESPACE,
        f"{_operation(refusal)} needs {capability} in another user namespace than the process's",
        HOST_USERS,
        HOST_USERS_GIVES,
    )


def _operation(refusal: Refusal) -> str:
    if refusal.syscall in ("sendto", "sendmsg") and not refusal.errno:
        return "this netlink request"
    if refusal.syscall == "setsockopt" and refusal.args[1] in (0, 41) and refusal.args[2] == 64:
        return "a table of iptables"  # IPT_SO_SET_REPLACE
    if refusal.syscall == "socket":
        return f"socket({_FAMILY_NAMES.get(refusal.args[0], refusal.args[0])})"
    return refusal.syscall


def _advice(refusal: Refusal, capability: str) -> str:
    if refusal.syscall == "mount" and refusal.args[3] & (_MS_REMOUNT | _MS_BIND) == _MS_REMOUNT:
        return (
            "a remount changes the whole file system; mount -o remount,bind changes this mount "
            "alone, in the container's user namespace"
        )
    if refusal.syscall == "mount" and refusal.args[3] & _MS_REMOUNT:
        return "the flags of a mount are those of -v SOURCE:TARGET:ro, --mount and --read-only"
    if refusal.syscall in ("mount", "fsmount", "move_mount"):
        return "mount it from outside: -v, --mount or --tmpfs need no capability"
    if capability == "CAP_SYS_TIME":
        return "set the clock on the host"
    if capability == "CAP_NET_ADMIN" and refusal.syscall in ("sendto", "sendmsg", "setsockopt"):
        return (
            "without the capability: --egress limits connections, -p publishes ports, and "
            "jaula network connect adds interfaces"
        )
    return ""


def _user(refusal: Refusal, confinement: Confinement) -> bool:
    return confinement.inside(refusal.fsuid) != 0


def _who(refusal: Refusal, confinement: Confinement) -> str:
    uid = confinement.inside(refusal.fsuid)
    return str(uid) if uid is not None else f"{refusal.fsuid} of the host"


def _owner(facts: FileFacts | None, confinement: Confinement) -> str:
    if facts is None:
        return "owner and mode of the file or of a directory above it refuse"
    uid = confinement.inside(facts.uid)
    owner = f"user {uid}" if uid is not None else f"user {facts.uid} of the host"
    name = f"the directory {facts.directory}" if facts.directory else "the file"
    return f"{name} has mode {stat.S_IMODE(facts.mode):04o} and belongs to {owner}"


# --- programs ------------------------------------------------------------------------------------


def _exec(
    refusal: Refusal, confinement: Confinement, facts: FileFacts | None
) -> Explanation | None:
    path = refusal.path
    proof = f"{refusal.syscall} returned {refusal.errno} for {path or 'the program'}"
    if refusal.reported:
        proof = _passed(refusal)
    mount = confinement.mount_of(path) if path.startswith("/") else None
    if refusal.errno == "EACCES" and mount and "noexec" in mount.options:
        return Explanation(
            layer=Layer.MOUNT_FLAG,
            rule=f"{mount.target} is mounted noexec ({mount.fstype})",
            proof=f"mountinfo: {mount.target} {','.join(sorted(mount.options))}",
            flag=_exec_flag(mount),
            gives_away="programs that a process of the container wrote there can be executed",
        )
    if facts is not None and facts.exec_error and _is_exec_error(refusal, facts):
        return Explanation(
            layer=Layer.PROGRAM,
            rule=facts.exec_error,
            proof=proof,
            advice=facts.exec_advice,
        )
    if refusal.reported and facts is not None and (rule := _mode(refusal, confinement, facts)):
        return Explanation(
            layer=Layer.PERMISSION,
            rule=f"{rule}; the process is user {_who(refusal, confinement)}",
            proof=_passed(refusal),
            flag="" if _user(refusal, confinement) is False else "--user 0",
            gives_away="root of the container, with its capabilities"
            if _user(refusal, confinement)
            else "",
            advice="change owner or mode of the file in the image or volume",
        )
    if refusal.errno in ("ENOENT", "ENOTDIR"):
        return Explanation(
            layer=Layer.PROGRAM,
            rule=f"{path} does not exist in the container",
            proof=proof,
            advice="check the spelling, PATH and that the image has the program",
        )
    if refusal.errno in ("ENOEXEC", "ELIBBAD"):
        return Explanation(
            layer=Layer.PROGRAM,
            rule=f"{path} is not a program that this kernel can run",
            proof=proof,
        )
    return None


def _is_exec_error(refusal: Refusal, facts: FileFacts) -> bool:
    """Return whether an error is that of the file: EACCES comes before its content is read."""
    modes = [file.mode for file in facts.opened] or [facts.mode]
    return refusal.errno != "EACCES" or any(
        not stat.S_ISREG(mode) or not mode & 0o111 for mode in modes
    )


def _exec_flag(mount: MountInfo) -> str:
    if mount.target == "/dev/shm":
        return "--mount type=tmpfs,target=/dev/shm,tmpfs-mode=1777 with exec"
    if mount.fstype == "tmpfs":
        return f"--tmpfs {mount.target}:exec"
    return f"a mount of {mount.target} without noexec"


# --- files ---------------------------------------------------------------------------------------


def _masked(refusal: Refusal, confinement: Confinement) -> Explanation:
    path = refusal.path
    masked = next((each for each in confinement.masked if is_within(path, each)), path)
    exposes = dict(MASKS).get(masked, "what the kernel shows there")
    return Explanation(
        layer=Layer.MASKED_PATH,
        rule=f"{masked} is masked: a file reads as empty, a directory has no entries",
        proof="the opened file is the device 'null' that is mounted over it"
        if not refusal.errno
        else f"{masked} is in the list of masked paths of the spec",
        flag=f"--security-opt unmask={masked}",
        gives_away=exposes,
    )


def _device(refusal: Refusal, confinement: Confinement, facts: FileFacts) -> Explanation | None:
    path = refusal.path
    mount = confinement.mount_of(path) if path.startswith("/") else None
    if refusal.errno == "EACCES" and mount and "nodev" in mount.options and not refusal.refused:
        return Explanation(
            layer=Layer.MOUNT_FLAG,
            rule=f"{mount.target} is mounted nodev: device nodes there cannot be opened",
            proof=f"mountinfo: {mount.target} {','.join(sorted(mount.options))}",
            flag=f"--device {path}",
            gives_away=f"the device {facts.device} of the host",
        )
    if refusal.errno in ("ENXIO", "ENODEV"):
        return Explanation(
            layer=Layer.KERNEL,
            rule=f"the host has no driver for the device {facts.device}",
            proof=f"open returned {refusal.errno}, which the driver's table returns",
        )
    if refusal.errno == "EPERM" and not refusal.refused and not _allowed(confinement, facts.device):
        return Explanation(
            layer=Layer.DEVICE,
            rule=f"no rule of the container's cgroup allows the device {facts.device}",
            proof="EPERM without a refused capability, and the list of device rules has no match",
            flag=f"--device {path}",
            gives_away=f"the device {facts.device} of the host",
        )
    return None


def _allowed(confinement: Confinement, device: str) -> bool:
    kind, _, numbers = device.partition(" ")
    major, _, minor = numbers.partition(":")
    allowed = confinement.privileged and not confinement.devices
    for rule in confinement.devices:
        if rule.type in (None, "a", kind) and (
            rule.major in (None, -1, int(major)) and rule.minor in (None, -1, int(minor))
        ):
            allowed = rule.allow
    return allowed


def _mount(
    refusal: Refusal, confinement: Confinement, facts: FileFacts | None
) -> Explanation | None:
    path = refusal.path
    if refusal.errno == "ENOENT" and refusal.syscall in OPENS:
        masks = {each for each in confinement.masked if is_within(path, each)}
        if masks & {each.target for each in confinement.mounts}:
            return _masked(refusal, confinement)
        return Explanation(
            layer=Layer.KERNEL,
            rule=f"the kernel has no {path} in this container",
            proof="ENOENT, and the path is not masked",
            harmless=True,
        )
    if refusal.errno != "EROFS":
        return None
    proof = "the call returned EROFS, which only a read-only mount or file system returns"
    covering = [each for each in confinement.readonly if is_within(path, each)]
    if covering:
        place = covering[-1]
        foreign = (
            facts is not None
            and not confinement.host_users
            and confinement.inside(facts.uid) is None
        )
        sysctl = path.removeprefix("/proc/sys/").replace("/", ".")
        namespaced = path.startswith("/proc/sys/") and sysctl.startswith(
            ("net.", "fs.mqueue.", "kernel.msg", "kernel.shm", "kernel.sem")
        )
        if path.startswith("/proc/sys/") and not namespaced:
            return Explanation(
                layer=Layer.READ_ONLY_PATH,
                rule=f"{place} is read-only in each container, and {sysctl} is not namespaced: it "
                "is a setting of the host",
                proof=proof,
                flag=f"--security-opt unmask={place} {HOST_USERS}",
                gives_away=f"settings of the host's kernel; {HOST_USERS_GIVES}",
                advice=f"sysctl -w {sysctl}=VALUE on the host",
            )
        return Explanation(
            layer=Layer.READ_ONLY_PATH,
            rule=f"{place} is read-only in each container",
            proof=proof,
            flag=f"--sysctl {sysctl}=VALUE"
            if namespaced
            else f"--security-opt unmask={place}{f' {HOST_USERS}' if foreign else ''}",
            gives_away=f"nothing: {sysctl} belongs to the container's own namespace"
            if namespaced
            else dict(READONLY).get(place, "writes there")
            + (f"; {HOST_USERS_GIVES}, who owns the file" if foreign else ""),
        )
    mount = confinement.mount_of(path) if path.startswith("/") else None
    if mount is None and refusal.filesystem:
        mount = next((m for m in confinement.mounts if m.device == refusal.device), None)
    if mount is None and confinement.root_readonly:
        mount = next((m for m in confinement.mounts if m.target == "/"), None)
    if mount is None or mount.target == "/":
        if not confinement.root_readonly:
            return Explanation(
                layer=Layer.READ_ONLY_MOUNT, rule="the file system is read-only", proof=proof
            )
        directory = path.rpartition("/")[0] or "/DIRECTORY"
        return Explanation(
            layer=Layer.READ_ONLY_MOUNT,
            rule="the root file system is read-only (--read-only)",
            proof=proof,
            flag=f"--tmpfs {directory}",
            gives_away="memory: files there are lost at the exit of the container",
            advice="a volume keeps them: -v NAME:" + directory,
        )
    if is_within(mount.target, "/sys") or is_within(mount.target, "/proc"):
        return Explanation(
            layer=Layer.READ_ONLY_MOUNT,
            rule=f"{mount.target} ({mount.fstype}) is mounted read-only",
            proof=f"{proof}; mountinfo: {mount.target} {','.join(sorted(mount.options))}",
            flag="--privileged",
            gives_away="the layers seccomp, capabilities and read-only paths within the "
            "container's user namespace",
            advice="systemd as the first process needs a writable tree of cgroups; a supervisor "
            "such as s6 or supervisord does not"
            if mount.fstype in ("cgroup", "cgroup2") or is_within(mount.target, "/sys/fs/cgroup")
            else "",
        )
    return Explanation(
        layer=Layer.READ_ONLY_MOUNT,
        rule=f"{mount.target} ({mount.fstype}) is mounted read-only",
        proof=f"{proof}; mountinfo: {mount.target} {','.join(sorted(mount.options))}",
        flag=f"-v SOURCE:{mount.target} without :ro",
        gives_away="the files of the source, which other processes may trust",
    )


def _ids(refusal: Refusal, confinement: Confinement, facts: FileFacts | None) -> Explanation | None:
    call = refusal.syscall
    if refusal.errno == "EINVAL" and (call in _SET_IDS or call in _CHOWNS):
        numbers: list[tuple[int, bool]] = []
        if call in _CHOWNS:
            index = _CHOWNS[call]
            numbers = [(refusal.args[index], False), (refusal.args[index + 1], True)]
        elif call != "setgroups":
            number = 1 if call in ("setuid", "setgid", "setfsuid", "setfsgid") else 3
            numbers = [(each, _SET_IDS[call]) for each in refusal.args[:number]]
        unmapped = [
            f"{'group' if groups else 'user'} {each & 0xFFFFFFFF}"
            for each, groups in numbers
            if each & 0xFFFFFFFF != 0xFFFFFFFF
            and not confinement.maps(each & 0xFFFFFFFF, groups=groups)
        ]
        if unmapped or call == "setgroups":
            named = " and ".join(unmapped) or "one of the groups"
            return Explanation(
                layer=Layer.ID_MAP,
                rule=f"{named} does not exist in the user namespace ({_ranges(confinement)})",
                proof=f"{call} returned EINVAL, and the id is outside of the map",
                flag=HOST_USERS,
                gives_away=HOST_USERS_GIVES,
                advice="use an id below 65536, or chown on the host",
            )
    if (
        refusal.errno in ("EACCES", "EPERM")
        and facts is not None
        and not confinement.host_users
        and confinement.inside(facts.uid) is None
        and not refusal.refused
    ):
        if is_within(refusal.path, "/proc") or is_within(refusal.path, "/sys"):
            return Explanation(
                layer=Layer.ID_MAP,
                rule=f"{refusal.path} belongs to root of the host; root of the container is "
                "another user",
                proof="the kernel accepted no capability of the process, as for an unmapped owner",
                flag=HOST_USERS,
                gives_away=HOST_USERS_GIVES,
            )
        return Explanation(
            layer=Layer.ID_MAP,
            rule=f"{facts.directory or 'the file'} belongs to a user of the host that the user "
            f"namespace does not map ({_ranges(confinement)}): capabilities of the container do "
            "not hold for it",
            proof="the kernel accepted no capability of the process, as for an unmapped owner",
            flag="-v SOURCE:TARGET:U",
            gives_away="the owner of the files in the source is changed",
            advice="give the files to an id of the container on the host",
        )
    return None


def _ranges(confinement: Confinement) -> str:
    return ", ".join(f"{inside} to {inside + size - 1}" for inside, _, size in confinement.uids[:3])


# --- limits --------------------------------------------------------------------------------------


def _amount(number: int) -> str:
    return "unlimited" if number >= UNLIMITED >> 1 else str(number)


def _fork(refusal: Refusal, confinement: Confinement) -> Explanation:
    pids = confinement.pids
    if pids.limit > 0 and (pids.hits or pids.peak >= pids.limit or pids.current >= pids.limit):
        return Explanation(
            layer=Layer.PIDS_LIMIT,
            rule=f"pids limit {pids.limit}, peak {pids.peak}",
            proof=f"pids.events of the cgroup: max {pids.hits}",
            flag=f"--pids-limit {pids.limit * 2}",
            gives_away="processes and threads of the host, which are shared by all",
        )
    return Explanation(
        layer=Layer.RLIMIT,
        rule=f"RLIMIT_NPROC is {_amount(refusal.limits.get('nproc', 0))} processes of the user",
        proof="EAGAIN, and the cgroup's limit of processes was not reached",
        flag="--ulimit nproc=N",
        gives_away="processes of the host, up to N",
    )


def _limit(
    refusal: Refusal, confinement: Confinement, facts: FileFacts | None
) -> Explanation | None:
    call, error, limits = refusal.syscall, refusal.errno, refusal.limits

    def rlimit(name: str, gives: str, rule: str = "") -> Explanation:
        value = limits.get(name, 0)
        return Explanation(
            layer=Layer.RLIMIT,
            rule=rule or f"RLIMIT_{name.upper()} is {_amount(value)}",
            proof=f"{call} returned {error}; the process's limit is {_amount(value)}",
            flag=f"--ulimit {RLIMIT_FLAGS.get(name, name)}=N",
            gives_away=gives,
        )

    if error == "EAGAIN" and call in FORKS:
        return _fork(refusal, confinement)
    if error == "EMFILE":
        if call.startswith(("inotify", "fanotify")):
            return Explanation(
                layer=Layer.KERNEL,
                rule="fs.inotify.max_user_instances of the user namespace or host is reached",
                proof=f"{call} returned EMFILE",
                advice="raise the sysctl on the host; it is not a setting of the container",
            )
        return rlimit("nofile", "memory of the kernel, up to N open files for each process")
    if error == "ENFILE":
        return Explanation(
            layer=Layer.KERNEL,
            rule="the host's table of files is full (fs.file-max)",
            proof=f"{call} returned ENFILE",
        )
    if error == "EFBIG":
        return rlimit("fsize", "disk space: larger files")
    if call in ("mlock", "mlock2", "mlockall") or (
        error == "EAGAIN" and call in ("mmap", "mremap")
    ):
        return rlimit("memlock", "N bytes that cannot be swapped out")
    if error == "ENOMEM":
        if limits.get("as", UNLIMITED) < UNLIMITED >> 1:
            return rlimit("as", "virtual memory, up to N bytes")
        if limits.get("data", UNLIMITED) < UNLIMITED >> 1:
            return rlimit("data", "memory, up to N bytes")
        return Explanation(
            layer=Layer.KERNEL,
            rule="the kernel does not overcommit that much memory",
            proof=f"{call} returned ENOMEM, and no rlimit is set",
        )
    if error == "EPERM" and call in ("setrlimit", "prlimit64") and not refusal.refused:
        return Explanation(
            layer=Layer.KERNEL,
            rule="a limit of open files above fs.nr_open of the host, for each user",
            proof=f"{call} returned EPERM without a question for a capability",
            harmless=True,
        )
    if error == "EACCES" and call == "setpriority":
        return rlimit("nice", "priority over other containers")
    return None


def _space(
    refusal: Refusal, confinement: Confinement, facts: FileFacts | None
) -> Explanation | None:
    if refusal.errno not in ("ENOSPC", "EDQUOT"):
        return None
    if refusal.syscall == "inotify_add_watch":
        return Explanation(
            layer=Layer.KERNEL,
            rule="fs.inotify.max_user_watches is reached",
            proof="inotify_add_watch returned ENOSPC",
            advice="raise the sysctl on the host",
        )
    if refusal.syscall in ("unshare", *FORKS):
        return Explanation(
            layer=Layer.KERNEL,
            rule="the limit of nested namespaces is reached (user.max_*_namespaces, 32 levels)",
            proof=f"{refusal.syscall} returned {refusal.errno}",
        )
    mount = next(
        (each for each in reversed(confinement.mounts) if each.device == refusal.device), None
    ) or (confinement.mount_of(refusal.path) if refusal.path.startswith("/") else None)
    if mount is None:
        return None
    size = next((o for o in mount.super_options if o.startswith("size=")), "")
    proof = f"{refusal.syscall} returned {refusal.errno} on {mount.target} ({mount.fstype} {size})"
    if mount.fstype == "tmpfs":
        shm = mount.target == "/dev/shm"
        return Explanation(
            layer=Layer.MOUNT_SIZE,
            rule=f"{mount.target} is a tmpfs of {size.removeprefix('size=') or 'half the memory'}",
            proof=proof,
            flag="--shm-size SIZE" if shm else f"--tmpfs {mount.target}:size=SIZE",
            gives_away="memory, up to SIZE; it counts for the container's memory limit",
        )
    return Explanation(
        layer=Layer.MOUNT_SIZE,
        rule=f"the file system of {mount.target} ({mount.fstype}) is full, or its quota is used up",
        proof=proof,
        flag="--storage-opt size=SIZE" if mount.target == "/" else "",
        gives_away="disk space of the host, up to SIZE" if mount.target == "/" else "",
        advice="free space on the host: jaula system df, jaula system prune",
    )


# --- network -------------------------------------------------------------------------------------


def _network(
    refusal: Refusal, confinement: Confinement, facts: FileFacts | None
) -> Explanation | None:
    call, error = refusal.syscall, refusal.errno
    if call == "socket" and error in ("EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"):
        name = _FAMILY_NAMES.get(refusal.args[0], str(refusal.args[0]))
        return Explanation(
            layer=Layer.KERNEL,
            rule=f"this kernel has no {name}, or not this type and protocol of it",
            proof=f"the filter let the call pass: the kernel returned {error}",
            harmless=refusal.args[0] == socket.AF_INET6,
        )
    if call not in _NETWORK_CALLS:
        return None
    fields = socket_address(refusal.text) if refusal.text else {}
    address, port = str(fields.get("address", "")), fields.get("port")
    place = f"{address}:{port}" if port is not None else address
    proof = f"{call} returned {error} for {place or 'the address'}"
    if error == "ETIMEDOUT":
        proof = f"the connection to {place} ended in state SYN_SENT: no packet came back"

    def result(
        layer: Layer, rule: str, flag: str = "", gives: str = "", advice: str = "", more: str = ""
    ) -> Explanation:
        return Explanation(
            layer=layer, rule=rule, proof=proof + more, flag=flag, gives_away=gives, advice=advice
        )

    if error == "EADDRINUSE":
        return result(
            Layer.NETWORK,
            f"a socket of the container's network namespace has {place} already",
            advice="another process, or SO_REUSEADDR after a restart",
        )
    if error == "EADDRNOTAVAIL" and call == "bind":
        return result(
            Layer.NETWORK,
            f"no interface of the container has the address {address}",
            "--network host",
            "the host's interfaces, ports and abstract sockets",
            "bind 0.0.0.0 in the container; -p ADDRESS:PORT:PORT selects the host's address",
        )
    if (
        confinement.egress is not None
        and error not in ("EADDRINUSE", "EADDRNOTAVAIL")
        and call != "bind"
        and port is not None
        and not address.startswith(("127.", "::1"))
        and not _is_listed(confinement.egress, address, port)
    ):
        return result(
            Layer.EGRESS,
            f"{place} is not in the container's egress list",
            f"--egress tcp:{f'[{address}]' if ':' in address else address}:{port}",
            "connections to that destination",
            more="; inspect counts the packets as EgressRefused",
        )
    if error == "ECONNREFUSED":
        if fields.get("family") == "unix":
            return result(Layer.NETWORK, f"no process listens at the socket {address}")
        if address.startswith(("127.", "::1")):
            return result(
                Layer.NETWORK,
                f"no process of the container listens at {place}; "
                "localhost is the container itself",
                advice="another container has its name on a common network; the host is "
                "host.docker.internal with --add-host",
            )
        return result(
            Layer.NETWORK,
            f"{address} answered: no process listens at port {port}, or "
            "its firewall rejects the connection",
        )
    if error in ("ENETUNREACH", "EHOSTUNREACH", "ENETDOWN", "EADDRNOTAVAIL", "ETIMEDOUT"):
        if confinement.network_mode == "none":
            return result(
                Layer.NETWORK,
                "the container has no network (--network none)",
                "--network bridge",
                "connections to the network and the internet",
                more="; the namespace has only the interface lo",
            )
        internal = [each.name for each in confinement.networks if each.internal]
        if internal and len(internal) == len(confinement.networks):
            return result(
                Layer.NETWORK,
                f"network {', '.join(internal)} is internal: it has no way out",
                "jaula network connect bridge CONTAINER",
                "connections to the internet",
            )
        if _is_ipv6(address) and error != "ETIMEDOUT":
            return result(
                Layer.NETWORK,
                "the container has no IPv6 route",
                "a network with --ipv6",
                "connections over IPv6",
                "programs try IPv4 next",
            )
        if other := _network_of(confinement.other_networks, address):
            return result(
                Layer.FIREWALL,
                f"{address} is on the network {other}, which the container is not connected to: "
                "the engine drops packets between networks",
                f"jaula network connect {other} CONTAINER",
                f"connections to the containers of {other}, and from them",
            )
        if error == "ETIMEDOUT":
            return result(
                Layer.FIREWALL,
                f"{place} does not answer: a firewall drops the packets, or the host is down",
                advice="containers of different networks cannot connect: jaula network "
                "connect NETWORK CONTAINER",
            )
        return result(
            Layer.NETWORK,
            f"no route to {address}, or its host does not answer",
            advice="jaula network inspect shows the container's networks",
        )
    if error in ("EPERM", "EACCES") and fields.get("family") == "unix":
        return result(
            Layer.PERMISSION,
            f"owner or mode of the socket {address}, or of a directory above it",
            advice="run the program as the socket's user or group: --user, --group-add",
        )
    if error in ("EPERM", "EACCES") and not refusal.refused:
        domain = confinement.landlock
        if domain and domain.handled_access_net and fields.get("family") in ("inet", "inet6"):
            return result(
                Layer.LANDLOCK,
                f"the rules of landlock do not allow TCP {call} of port {port}",
                f"--security-opt landlock=tcp-{call}={port}",
                f"TCP port {port}",
            )
        return result(
            Layer.FIREWALL,
            "a firewall rule or a route of the container's network namespace refuses the packet",
            advice="nft list ruleset in the container shows its own rules",
        )
    return None


def _network_of(networks: tuple[Network, ...], address: str) -> str:
    """Return the name of the network that has an address, '' if no network has it."""
    try:
        number = ip_address(address)
        for each in networks:
            if any(number in ip_network(subnet) for subnet in each.subnets):
                return each.name
    except ValueError:
        return ""
    return ""


def _is_ipv6(address: str) -> bool:
    try:
        return ip_address(address).version == 6
    except ValueError:
        return False


def _is_listed(items: tuple[str, ...], address: str, port: int) -> bool:
    """Return whether an egress list names a destination; names are not looked up."""
    try:
        number = ip_address(address)
    except ValueError:
        return False
    return any(
        each.network is not None
        and each.network.version == number.version
        and number in each.network
        and each.first <= port <= each.last
        for each in egress.parse(items)
    )


# --- landlock ------------------------------------------------------------------------------------


def _landlock(
    refusal: Refusal, confinement: Confinement, facts: FileFacts | None
) -> Explanation | None:
    domain, path, call = confinement.landlock, refusal.path, refusal.syscall
    if domain is None or refusal.errno not in ("EACCES", "EPERM", "EXDEV"):
        return None

    def result(rule: str, option: str, gives: str, detail: str = "") -> Explanation:
        return Explanation(
            layer=Layer.LANDLOCK,
            rule=rule,
            proof=f"{_passed(refusal)}; "
            + (detail or "no rule of the container's Landlock domain allows it"),
            flag=f"--security-opt landlock={option}",
            gives_away=gives,
        )

    if domain.scoped and call in ("kill", "tgkill", "pidfd_send_signal"):
        return result("the domain may not signal processes outside of it (scope-signal)",
                      "off", "the second border around files and processes")  # fmt: skip
    if not path.startswith("/"):
        return None
    rights = _rights(refusal)
    files = facts.opened if facts is not None else ()
    if not files:
        files = (OpenedFile(path=path, target=path),)
    for file in files:
        granted = file.rights
        if granted is None:
            granted = granted_by_path(domain, file.target)
        for right, option in rights:
            if not domain.handled_access_fs & right or granted & right:
                continue
            if file.hard_link and not _hard_links_differ(confinement, file):
                continue
            return result(*_landlock_rule(domain, file, path, right, option))
    return None


def _landlock_rule(
    domain: Ruleset, file: OpenedFile, path: str, right: int, option: str
) -> tuple[str, str, str, str]:
    """Return the rule that is missing, the option that adds it, what it gives away, and a proof."""
    rule = f"no rule allows to {option} {path}"
    if file.path != path and option == "execute":
        rule = f"no rule allows to execute {file.path}, which the kernel opens to execute {path}"
    if file.target != file.path:
        rule += f" (it is {file.target})"
    if file.hard_link:
        rule += (
            f"; {file.hard_link}, which has a rule, is a hard link of it, and overlayfs gives each "
            "hard link of an image's layer an inode of its own"
        )
    listed = [each.path for each in domain.paths if each.access & right]
    shown = ", ".join(listed[:_SHOWN_RULES]) or "none"
    if len(listed) > _SHOWN_RULES:
        shown += f" and {len(listed) - _SHOWN_RULES} more"
    detail = f"the rules to {option} are for {shown}"
    if file.inode:
        detail += f"; none is for the inode {file.inode} of {file.target} or a directory above it"
    return rule, f"{option}={file.target}", f"{option} access to {file.target}", detail


def granted_by_path(domain: Ruleset, path: str) -> int:
    """Return the rights on a path without symbolic links, if inodes are not known."""
    granted = 0
    for rule in domain.paths:
        if is_within(path, rule.path):
            granted |= rule.access
    return granted


def _hard_links_differ(confinement: Confinement, file: OpenedFile) -> bool:
    mount = confinement.mount_of(file.target)
    return mount is None or mount.fstype == "overlay"


def _rights(refusal: Refusal) -> list[tuple[int, str]]:
    """Return the rights that a call needs, with the option that gives each."""
    if refusal.syscall in EXECS:
        return [(int(FS.EXECUTE), "execute")]
    if refusal.syscall in _CHANGES:
        return [(int(_CHANGES[refusal.syscall]), "write")]
    if refusal.syscall not in OPENS:
        return []
    flags = refusal.args[2 if refusal.syscall == "openat" else 1]
    if refusal.syscall in ("creat", "openat2"):
        flags = os.O_WRONLY | os.O_CREAT if refusal.syscall == "creat" else 0
    if flags & os.O_DIRECTORY:
        return [(int(FS.READ_DIR), "read")]
    rights = []
    if flags & os.O_ACCMODE != os.O_WRONLY:
        rights.append((int(FS.READ_FILE), "read"))
    if flags & os.O_ACCMODE:
        rights.append((int(FS.WRITE_FILE), "write"))
    if flags & os.O_TRUNC:
        rights.append((int(FS.TRUNCATE), "write"))
    if flags & os.O_CREAT:
        rights.append((int(FS.MAKE_REG), "write"))
    return rights


# --- EPERM and EACCES without a refused capability -----------------------------------------------


def _passed(refusal: Refusal) -> str:
    """Return what shows that no layer before the call's own checks refused it."""
    if refusal.reported:
        return f"the runtime: {refusal.reported}"
    return "the filter let the call pass, and the kernel refused no capability in it"


def _no_capability(
    refusal: Refusal, confinement: Confinement, facts: FileFacts | None
) -> Explanation | None:
    if refusal.errno not in ("EPERM", "EACCES"):
        return None
    proof = _passed(refusal)
    call = refusal.syscall
    if confinement.landlock and call in (
        "mount",
        "umount2",
        "pivot_root",
        "move_mount",
        "mount_setattr",
        "fsmount",
        "ptrace",
    ):
        return Explanation(
            layer=Layer.LANDLOCK,
            rule=f"a process in a Landlock domain may not {call}",
            proof=proof,
            flag="--security-opt landlock=off",
            gives_away="the second border around the files of the container",
        )
    if call == "mount" and refusal.args[3] & _MS_REMOUNT:
        return Explanation(
            layer=Layer.USER_NAMESPACE,
            rule=f"flags of the mount {refusal.path} are locked: the process is in a user "
            "namespace below the one that it was mounted in",
            proof=proof,
            advice="the program is in a user namespace that it made itself (unshare, bubblewrap)",
        )
    if call == "setgroups":
        return Explanation(
            layer=Layer.ID_MAP,
            rule="the user namespace was created with 'setgroups deny', as an unprivileged user "
            "must create it",
            proof=proof,
            advice="use the container's own user namespace, or an engine that runs as root",
        )
    if call in ("mknod", "mknodat"):
        return Explanation(
            layer=Layer.DEVICE,
            rule="no rule of the container's cgroup allows to make this device node",
            proof=proof,
            flag="--device PATH",
            gives_away="that device of the host",
        )
    path = refusal.path
    if facts is not None and not facts.device and (rule := _mode(refusal, confinement, facts)):
        return Explanation(
            layer=Layer.PERMISSION,
            rule=f"{rule}; the process is user {_who(refusal, confinement)}",
            proof=proof,
            advice="change owner or mode of the file in the image or volume",
        )
    if confinement.label:
        return Explanation(
            layer=Layer.LSM,
            rule=f"the label {confinement.label} may not {call}"
            + (f" {path}" if path.startswith("/") else ""),
            proof=f"{proof}; the audit log of the host names the rule",
            flag="--security-opt apparmor=PROFILE or label=type:TYPE",
            gives_away="what the other profile or type allows",
        )
    if call == "ptrace":
        return Explanation(
            layer=Layer.KERNEL,
            rule="the process is traced already, or Yama's kernel.yama.ptrace_scope refuses",
            proof=proof,
        )
    if path.startswith(("/proc/", "/sys/")):
        return Explanation(
            layer=Layer.PERMISSION,
            rule=f"{path} belongs to root of the host; root of the container is another user",
            proof=proof,
            flag=HOST_USERS,
            gives_away=HOST_USERS_GIVES,
        )
    if path and refusal.errno == "EACCES" and not refusal.filesystem:
        return Explanation(
            layer=Layer.PERMISSION,
            rule="owner or mode of the file, or of a directory above it",
            proof=proof,
            advice="change owner or mode of the file in the image or volume",
        )
    return None


def _mode(refusal: Refusal, confinement: Confinement, facts: FileFacts) -> str:
    """Return which owner and mode can refuse a call, '' if none can.

    Groups of a process are not known, so a file is open if both its group and others have the bit.
    """
    if "CAP_DAC_OVERRIDE" in refusal.effective and confinement.inside(facts.uid) is not None:
        return ""
    for directory in facts.closed:
        if not _has_bits(refusal, directory.mode, directory.uid, stat.S_IXOTH):
            return _owner_of(f"the directory {directory.target}", directory, confinement)
    bits = _bits(refusal)
    if refusal.syscall in EXECS:
        for file in facts.opened:
            if not _has_bits(refusal, file.mode, file.uid, bits):
                return _owner_of(file.path, file, confinement)
        if facts.opened:
            return ""
    if bits and not facts.directory and _has_bits(refusal, facts.mode, facts.uid, bits):
        return ""
    if facts.directory and _has_bits(refusal, facts.mode, facts.uid, stat.S_IWOTH | stat.S_IXOTH):
        return ""
    return _owner(facts, confinement)


def _bits(refusal: Refusal) -> int:
    """Return the bits of a mode that a call needs of a file, as those of others; 0: not known."""
    if refusal.syscall in EXECS:
        return stat.S_IXOTH
    if refusal.syscall not in ("open", "openat"):
        return 0
    access = refusal.args[2 if refusal.syscall == "openat" else 1] & os.O_ACCMODE
    return {os.O_RDONLY: stat.S_IROTH, os.O_WRONLY: stat.S_IWOTH}.get(
        access, stat.S_IROTH | stat.S_IWOTH
    )


def _has_bits(refusal: Refusal, mode: int, uid: int, bits: int) -> bool:
    if refusal.fsuid == uid:
        return mode >> 6 & bits == bits
    return mode & bits == bits and mode >> 3 & bits == bits


def _owner_of(name: str, file: OpenedFile, confinement: Confinement) -> str:
    uid = confinement.inside(file.uid)
    owner = f"user {uid}" if uid is not None else f"user {file.uid} of the host"
    return f"{name} has mode {stat.S_IMODE(file.mode):04o} and belongs to {owner}"
