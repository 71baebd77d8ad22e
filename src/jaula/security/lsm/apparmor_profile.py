"""The text of the AppArmor profile of containers: files that a container's root must not access.

Follows apparmor.d(5). The other layers (namespaces, masked paths, capabilities, seccomp) do not
rely on it. It confines if one of them is relaxed or fails. It also prevents containers from tracing
or signalling processes of another profile in a shared namespace.

Facts about rules: ``deny`` overrides every permission and is not logged. Paths are those inside the
container. An unconfined process may trace and read a confined one without a rule, but needs a rule
to send it a signal. Processes under a stack have the whole stack as their peer: a rule for each of
its profiles would permit more, so the stack has a rule of its own.

The kernel's name of the profile depends on its text. So the engines of a host, whose versions or
labels may differ, do not replace the profile under the containers of each other.
"""

from __future__ import annotations

from collections.abc import Iterable

from jaula.sha256 import sha256
from jaula.spec.apparmor_name import DIGITS, NAME

_WRITES = "wklx"  # everything but reading


def loaded_name(engine: str) -> str:
    """Return the kernel's name of the profile for containers of an engine with this label."""
    digest = sha256(text(engine=engine).encode()).hexdigest()
    return f"{NAME}-{digest[:DIGITS]}"


def text(name: str = NAME, *, engine: str = "unconfined") -> str:
    """Return a complete profile for apparmor_parser.

    ``engine`` is the label of the processes that manage containers. The profile uses no abstraction
    or tunable of the host, so it is the same on every host.
    """
    peers = dict.fromkeys(("unconfined", engine))
    own = [name] if engine == "unconfined" else [name, stacked(name, engine)]
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
        *(f"  signal (send, receive) peer={label}," for label in own),
        *(f"  ptrace (trace, read, tracedby, readby) peer={label}," for label in own),
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


def stacked(name: str, engine: str) -> str:
    """Return the label of a container whose profile is stacked on that of a confined engine.

    The kernel orders the profiles of a label by their names (security/apparmor/label.c).
    """
    return "//&".join(sorted({name, *engine.split("//&")}))


def all_but(top: str, names: Iterable[str]) -> list[str]:
    """Return patterns that match all paths below ``top`` except those below ``top/name/name...``.

    A pattern of apparmor.d(5) cannot exclude a word, so the word is excluded letter by letter.
    """
    patterns = []
    prefix = top
    for name in names:
        for index, letter in enumerate(name):
            partial = f"{prefix}/{name[:index]}"
            patterns.append(f"{partial}[^{letter}/]*{{,/**}}")
            if index:
                patterns.append(f"{partial}{{,/**}}")
        patterns.append(f"{prefix}/{name}[^/]*{{,/**}}")
        prefix = f"{prefix}/{name}"
    return patterns
