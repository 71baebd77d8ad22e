"""Calls that a default container must not be able to make, with harmless arguments. Pure.

A call that would change the host has an argument that makes it fail after the permission check: a
wrong magic number, an unknown flag, a missing file, a length of -1.
"""

from __future__ import annotations

import struct

from jaula.features.verify.escape.program import Argument

AT_FDCWD = -100
_ADJ_TICK = struct.pack("<I", 0x4000) + bytes(252)
_HANDLE = struct.pack("<II", 8, 1) + bytes(8)
_NOWHERE = b"/jaula-probe-nowhere\0"

CALLS: tuple[tuple[str, tuple[Argument, ...]], ...] = (
    ("mount", (b"none\0", b"/proc\0", b"tmpfs\0", 0, 0)),
    ("umount2", (b"/proc\0", 2)),
    ("pivot_root", (b"/\0", b"/\0")),
    ("unshare", (0x10000000,)),  # CLONE_NEWUSER
    ("unshare", (0x00020000,)),  # CLONE_NEWNS
    ("setns", (-1, 0)),
    ("clone", (0x10000011, 0, 0, 0, 0)),  # CLONE_NEWUSER, SIGCHLD
    ("clone3", (0, 0)),
    ("fsopen", (b"tmpfs\0", 0)),
    ("open_tree", (AT_FDCWD, b"/\0", 1)),
    ("move_mount", (-1, b"\0", -1, b"\0", 0)),
    ("mount_setattr", (-1, b"\0", 0, 0, 0)),
    ("bpf", (0, 0, 0)),
    ("perf_event_open", (0, 0, -1, -1, 0)),
    ("userfaultfd", (0,)),
    ("io_uring_setup", (1, 0)),
    ("add_key", (b"user\0", b"probe\0", 0, 0, -1)),
    ("request_key", (b"user\0", b"probe\0", 0, 0)),
    ("keyctl", (0, -1, 0)),
    ("init_module", (0, 0, b"\0")),
    ("finit_module", (-1, b"\0", 0)),
    ("delete_module", (b"jaula_probe\0", 0)),
    ("kexec_load", (0, 0, 0, 0xFF00)),
    ("reboot", (0, 0, 0, 0)),
    ("swapon", (_NOWHERE, 0)),
    ("swapoff", (_NOWHERE,)),
    ("acct", (_NOWHERE,)),
    ("iopl", (0,)),
    ("ioperm", (0x80, 0, 0)),
    ("adjtimex", (_ADJ_TICK,)),
    ("syslog", (10, 0, 0)),
    ("quotactl", (0, 0, 0, 0)),
    ("open_by_handle_at", (AT_FDCWD, _HANDLE, 0)),
    ("fanotify_init", (0, 0)),
    ("sethostname", (b"\0", -1)),
    ("setdomainname", (b"\0", -1)),
    ("kcmp", (1, 1, 0, 0, 0)),
    ("pidfd_getfd", (-1, 0, 0)),
    ("move_pages", (1, 0, 0, 0, 0, 0)),
    ("vm86", (0, 0)),
    ("uselib", (_NOWHERE,)),
    ("lookup_dcookie", (0, 0, 0)),
)
"""(name, arguments) of calls that the default filter or a missing capability refuses."""

FAMILIES: tuple[tuple[int, str, int, int], ...] = (
    (38, "AF_ALG", 5, 0),
    (40, "AF_VSOCK", 1, 0),
    (44, "AF_XDP", 3, 0),
    (30, "AF_TIPC", 2, 0),
    (31, "AF_BLUETOOTH", 3, 1),
    (29, "AF_CAN", 3, 1),
    (21, "AF_RDS", 5, 0),
    (9, "AF_X25", 5, 0),
    (42, "AF_QIPCRTR", 2, 0),
    (43, "AF_SMC", 1, 0),
    (15, "AF_KEY", 3, 2),
)
"""(family, name, type, protocol); a kernel without the family counts as a refusal."""

WRITES = (
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/net/ipv4/ip_forward",
    "/sys/kernel/uevent_helper",
    "/sys/power/state",
    "/sys/fs/cgroup/memory/release_agent",
    "/sys/fs/cgroup/cgroup.procs",
    "/sys/kernel/mm/transparent_hugepage/enabled",
)
"""Kernel files whose content is a command to the host."""

NODES = ((0o020666, 1, 1, "memory"), (0o060666, 8, 0, "disk"), (0o020666, 10, 200, "tun"))
"""(mode, major, minor, name) of device nodes that bypass the container."""
