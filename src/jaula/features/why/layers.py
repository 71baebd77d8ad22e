"""The layers of a container that refuse operations, and what each relaxation gives away. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from jaula.spec.runtime_spec import Syscall


class Layer(StrEnum):
    """A part of the kernel or the engine that refuses."""

    SECCOMP = "seccomp"
    CAPABILITY = "capability"
    USER_NAMESPACE = "user namespace"
    ID_MAP = "id map"
    NO_NEW_PRIVS = "no new privileges"
    LSM = "lsm"
    LANDLOCK = "landlock"
    MASKED_PATH = "masked path"
    READ_ONLY_PATH = "read-only path"
    READ_ONLY_MOUNT = "read-only mount"
    MOUNT_FLAG = "mount flag"
    MOUNT_SIZE = "size of a file system"
    DEVICE = "device rule"
    PIDS_LIMIT = "pids limit"
    MEMORY_LIMIT = "memory limit"
    RLIMIT = "rlimit"
    NETWORK = "network"
    FIREWALL = "firewall"
    EGRESS = "egress list"
    PERMISSION = "file permission"
    PROGRAM = "program"
    SIGNAL = "signal"
    KERNEL = "kernel"


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a refusal happened. ``flag`` is the smallest relaxation, empty if no flag allows it.

    ``profile_rule`` is the rule that ``seccomp=FILE`` in the flag stands for. ``in_profile`` is the
    remedy in the document of the container's profile, if it has one. ``lacking`` is a list of the
    profile that is the only reason, and the items that it lacks.
    """

    layer: Layer
    rule: str
    proof: str
    flag: str = ""
    gives_away: str = ""
    advice: str = ""  # a remedy that is not a flag
    harmless: bool = False  # programs expect this error and go on
    profile_rule: Syscall | None = None
    in_profile: str = ""
    lacking: tuple[str, tuple[str, ...]] | None = None


GIVES_AWAY: dict[str, str] = {
    "CAP_CHOWN": "owners of files of the container",
    "CAP_DAC_OVERRIDE": "file modes: reads and writes every file of its ids",
    "CAP_DAC_READ_SEARCH": "file modes for reading, and open_by_handle_at",
    "CAP_FOWNER": "operations on files of other users of the container",
    "CAP_FSETID": "set-user-ID bits that survive a write",
    "CAP_KILL": "signals to processes of other users of the container",
    "CAP_SETGID": "any group of the container",
    "CAP_SETUID": "any user of the container",
    "CAP_SETPCAP": "changes of its own capability sets",
    "CAP_LINUX_IMMUTABLE": "immutable files, which the engine cannot remove either",
    "CAP_NET_BIND_SERVICE": "ports below 1024 in its network namespace",
    "CAP_NET_BROADCAST": "nothing: the kernel does not use it",
    "CAP_NET_ADMIN": "addresses, routes and firewall of its network namespace, and much code of "
    "the kernel that was written for root",
    "CAP_NET_RAW": "raw packets: spoofing and scanning on its network",
    "CAP_IPC_LOCK": "locked memory without a limit",
    "CAP_IPC_OWNER": "System V objects of other users of the container",
    "CAP_SYS_MODULE": "the kernel: a module is the kernel's own code",
    "CAP_SYS_RAWIO": "the host's memory and devices",
    "CAP_SYS_CHROOT": "chroot(2), and with it open_tree of other roots",
    "CAP_SYS_PTRACE": "memory and credentials of every process of the container",
    "CAP_SYS_PACCT": "process accounting of the whole host",
    "CAP_SYS_ADMIN": "mounts and namespaces, and with them the largest part of the kernel's "
    "attack surface",
    "CAP_SYS_BOOT": "reboot(2): with host users the machine, otherwise its own pid namespace",
    "CAP_SYS_NICE": "priorities, CPU affinity and NUMA placement of its processes",
    "CAP_SYS_RESOURCE": "limits: rlimits, quotas and reserved blocks no longer hold",
    "CAP_SYS_TIME": "the clock of the whole host",
    "CAP_SYS_TTY_CONFIG": "hangup of terminals",
    "CAP_MKNOD": "device nodes; device rules still limit their use",
    "CAP_LEASE": "leases on files of other users of the container",
    "CAP_AUDIT_WRITE": "records in the host's audit log",
    "CAP_AUDIT_CONTROL": "the audit rules of the whole host",
    "CAP_SETFCAP": "file capabilities within its user namespace",
    "CAP_MAC_OVERRIDE": "rules of the LSM Smack",
    "CAP_MAC_ADMIN": "the policy of the LSM",
    "CAP_SYSLOG": "the kernel's log with addresses and data of the host",
    "CAP_WAKE_ALARM": "timers that wake the host",
    "CAP_BLOCK_SUSPEND": "suspension of the host",
    "CAP_AUDIT_READ": "the audit log of the whole host",
    "CAP_PERFMON": "performance counters and with them side channels on the whole host",
    "CAP_BPF": "BPF programs: the verifier is the only border",
    "CAP_CHECKPOINT_RESTORE": "pids and namespaces of checkpointed processes",
}

HOST_USERS = "--userns=host"
HOST_USERS_GIVES = "root in the container is root of the host"

HOST_CHECKED: dict[str, str] = {
    "CAP_SYS_TIME": "CAP_SYS_TIME",
    "CAP_SYS_MODULE": "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO": "CAP_SYS_RAWIO",
    "CAP_SYS_PACCT": "CAP_SYS_PACCT",
    "CAP_SYSLOG": "CAP_SYSLOG",
    "CAP_PERFMON": "CAP_PERFMON",
    "CAP_BPF": "CAP_BPF",
    "CAP_DAC_READ_SEARCH": "CAP_DAC_READ_SEARCH",
}
"""Capabilities of rules of the default profile that the kernel checks in the host's user namespace:
the filter and the user namespace both refuse."""

CALL_GIVES_AWAY: dict[str, str] = {
    "io_uring_setup": "most of the kernel behind a call that no filter sees; many CVEs a year",
    "keyctl": "keyrings, which are not namespaced",
    "add_key": "keyrings, which are not namespaced",
    "request_key": "keyrings, and a helper program of the host",
    "userfaultfd": "races in the kernel that a process can widen at will",
    "kexec_load": "the machine: another kernel",
    "kexec_file_load": "the machine: another kernel",
    "swapon": "the host's memory management",
    "swapoff": "the host's memory management",
    "personality": "address randomization of its processes",
    "memfd_secret": "memory that the host's tools cannot read",
    "ioctl": "input into the terminal of the user that attached it (CVE-2017-5226)",
}

RLIMIT_FLAGS: dict[str, str] = {
    "fsize": "fsize", "data": "data", "nproc": "nproc", "nofile": "nofile", "memlock": "memlock",
    "as": "as", "nice": "nice", "rtprio": "rtprio", "msgqueue": "msgqueue", "core": "core",
}  # fmt: skip


def cap_flag(capability: str) -> str:
    """Return the flag that adds a capability."""
    return f"--cap-add {capability.removeprefix('CAP_')}"
