"""The text of the AppArmor profile that containers get: what a container's root must not touch.

Follows apparmor.d(5). The rest of the confinement (namespaces, masks, capabilities, seccomp) does
not count on it; it holds where one of them is lifted or fails, and keeps containers from tracing or
signalling processes of another profile, should they share a namespace with some.

Facts about rules: ``deny`` wins over every permission and is not logged. Paths are those inside the
container, /proc and /sys are wherever a path ends in them there. An unconfined process may trace
and read a confined one without a rule; to send it a signal it needs one.
"""

from __future__ import annotations

from collections.abc import Iterable

NAME = "jaula-default"

_WRITES = "wklx"  # everything but reading


def text(name: str = NAME, *, engine: str = "unconfined") -> str:
    """A whole profile for apparmor_parser; ``engine`` is the label of those who manage containers.

    It needs no abstraction or tunable of the host's, so that it is the same everywhere.
    """
    peers = dict.fromkeys(("unconfined", engine))
    lines = [
        f"profile {name} flags=(attach_disconnected,mediate_deleted) {{",
        "  # what a container does is decided by its capabilities, seccomp filter and mounts",
        "  file,",
        "  capability,",
        "  network,",
        "  unix,",
        "  mqueue,",
        "",
        "  # processes: the container's own, and signals from who manages it",
        *(f"  signal (receive) peer={peer}," for peer in peers),
        f"  signal (send, receive) peer={name},",
        f"  ptrace (trace, read, tracedby, readby) peer={name},",
        *(f"  ptrace (tracedby, readby) peer={peer}," for peer in peers if peer != "unconfined"),
        "",
        "  # no other file system, whatever namespace or capability there is",
        "  deny mount,",
        "  deny remount,",
        "  deny umount,",
        "  deny pivot_root,",
        "",
        "  # the kernel's own files: a container's processes are numbers, all else is the host's",
        f"  deny /proc/* {_WRITES},",
        f"  deny /proc/[a-zA-Z]*/** {_WRITES},",
        "  deny /proc/{kcore,kmem,kmsg,mem,keys,key-users,kallsyms,kpage*,sysrq-trigger} rwklx,",
        "  deny /proc/{timer_list,timer_stats,sched_debug,latency_stats} rwklx,",
        "  deny /proc/{slabinfo,vmallocinfo} rwklx,",
        "  deny /proc/{acpi,scsi,asound}/** rwklx,",
        "",
        "  # devices, firmware, modules, tracing; of /sys only the cgroup tree may be writable",
        *(f"  deny {path} {_WRITES}," for path in all_but("/sys", ("fs", "cgroup"))),
        "  deny /sys/{firmware,hypervisor}/** rwklx,",
        "  deny /sys/kernel/{debug,tracing,security}/{,**} rwklx,",
        "  deny /sys/kernel/vmcoreinfo rwklx,",
        "  deny /sys/devices/virtual/{powercap,thermal}/** rwklx,",
        "",
        "  # the host's memory, should its node be there",
        "  deny /dev/{mem,kmem,port} rwklx,",
        "}",
    ]
    return "\n".join(lines) + "\n"


def all_but(top: str, names: Iterable[str]) -> list[str]:
    """Patterns that match everything below ``top`` except what is below ``top/name/name...``.

    A pattern of apparmor.d(5) has no way to say 'not this word'; it is said letter by letter.
    """
    found = []
    at = top
    for name in names:
        for index, letter in enumerate(name):
            begun = f"{at}/{name[:index]}"
            found.append(f"{begun}[^{letter}/]*{{,/**}}")
            if index:
                found.append(f"{begun}{{,/**}}")
        found.append(f"{at}/{name}[^/]*{{,/**}}")
        at = f"{at}/{name}"
    return found
