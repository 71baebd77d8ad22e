"""Capabilities and system calls of a profile. Pure.

Facts about capabilities: the kernel asks for some in the course of a call that succeeds without
them. ``MERELY_ASKED`` has these pairs (security/commoncap.c, mm/util.c, io_uring/io_uring.c,
kernel/bpf, fs/xattr.c, fs/proc/array.c). A program that has the capability gets it recorded.

Facts about system calls: a record has a call when it returns. So exit(2) is never in it, and
neither is a wait that a signal ends with the process. ``ALWAYS`` and ``WAITS`` add them.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaula.features.harden.tally import Observation, Tallies, words
from jaula.features.record.record_document import Container
from jaula.spec.confinement_profile import Architecture, Evidence, Seccomp

MERELY_ASKED: dict[str, tuple[str, ...]] = {
    "CAP_SYS_ADMIN": words(
        """brk mmap mmap2 mprotect mremap munmap clone clone3 fork vfork execve execveat shmget
        shmat memfd_create ftruncate fallocate write pwrite64 writev listxattr llistxattr
        flistxattr seccomp exit exit_group"""
    ),
    "CAP_SYS_RESOURCE": ("clone", "clone3", "fork", "vfork"),
    "CAP_IPC_LOCK": ("io_uring_setup", "io_uring_register"),
    "CAP_SETPCAP": ("capset",),
    "CAP_SYS_PTRACE": ("read", "pread64"),
    "CAP_BPF": ("seccomp", "prctl", "setsockopt"),
    "CAP_PERFMON": ("seccomp", "prctl", "setsockopt"),
}
"""Capabilities that the kernel asks for although the call succeeds without them, by call."""

_ALWAYS = ("execve", "exit", "exit_group", "restart_syscall", "rt_sigreturn")
ALWAYS: dict[Architecture, tuple[str, ...]] = {
    "x86_64": _ALWAYS,
    "x32": _ALWAYS,
    "aarch64": _ALWAYS,
    "x86": (*_ALWAYS, "sigreturn"),
}
ALWAYS_REASON = "starts or ends programs and signal handlers"

WAITS: dict[str, str] = {
    "accept": "listen", "accept4": "listen", "clock_nanosleep": "", "epoll_pwait": "epoll_ctl",
    "epoll_wait": "epoll_ctl", "futex": "", "nanosleep": "", "pause": "", "poll": "", "ppoll": "",
    "pselect6": "", "recvfrom": "socket", "recvmsg": "socket", "rt_sigsuspend": "",
    "rt_sigtimedwait": "", "sched_yield": "", "select": "", "wait4": "", "waitid": "",
}  # fmt: skip
"""Calls that wait, and the recorded call that each needs ('': none).

Which one a C library makes, and whether it returns before the end, depends on the moment.
"""
WAITS_REASON = "waits; a record has it by chance, or not if it never returned"

START = words(
    """access arch_prctl brk close faccessat fcntl fstat getcwd getegid geteuid getgid getpid
    getppid getrandom getuid lseek mmap mprotect munmap newfstatat open openat pread64 prctl
    prlimit64 read readlink readlinkat rseq rt_sigaction rt_sigprocmask set_robust_list
    set_tid_address sigaltstack stat statx uname write"""
)
"""Calls of C libraries and loaders when a program starts, for records without the start."""
START_REASON = "starts a program; the start was not recorded"

_ARCHITECTURES: dict[str, Architecture] = {"": "x86_64", "i386": "x86", "x32": "x32"}


def capabilities(
    observations: Sequence[Observation], containers: Sequence[Container], notes: list[str]
) -> tuple[tuple[str, ...], dict[str, Evidence]]:
    """Return the capabilities that were used, without ``CAP_``, and their evidence.

    A process has all of them in a user namespace that it made. Those that the container was not
    given are left out.
    """
    used, asked, foreign = Tallies(), Tallies(), Tallies()
    for number, program, entry, _ in observations:
        if entry.kind != "capability" or not entry.capability.startswith("CAP_"):
            continue
        given = containers[number].capabilities
        if given is not None and entry.capability not in given:
            foreign[entry.capability].add(number, program, entry.count, entry.syscall)
            continue
        merely = entry.syscall in MERELY_ASKED.get(entry.capability, ())
        tallies = asked if merely else used
        tallies[entry.capability.removeprefix("CAP_")].add(
            number, program, entry.count, entry.syscall
        )
    for name in sorted(asked.keys() - used.keys()):
        calls = ", ".join(sorted(asked[name].reasons))
        notes.append(f"CAP_{name} is left out: the kernel merely asked for it ({calls})")
    notes += (
        f"{name} is left out: the container was not given it, and had it in a user namespace of"
        " its own"
        for name in sorted(foreign)
    )
    return tuple(sorted(used)), used.evidence()


def seccomp(
    observations: Sequence[Observation],
    evidence: dict[str, dict[str, Evidence]],
    notes: list[str],
    *,
    started: bool,
) -> Seccomp:
    """Return the system calls that did something, by architecture.

    ``started``: the records have the start of the container.
    """
    calls: dict[Architecture, Tallies] = {}
    results: dict[tuple[Architecture, str], set[str]] = {}
    made: set[tuple[Architecture, str]] = set()  # calls that a filter did not refuse each time
    for number, program, entry, _ in observations:
        if entry.kind != "syscall" or entry.abi not in _ARCHITECTURES:
            continue
        architecture = _ARCHITECTURES[entry.abi]
        tally = calls.setdefault(architecture, Tallies())[entry.syscall]
        tally.add(number, program, entry.count)
        results.setdefault((architecture, entry.syscall), set()).add(entry.errno)
        if entry.layer != "seccomp":
            made.add((architecture, entry.syscall))
    allowed: dict[Architecture, tuple[str, ...]] = {}
    unavailable: dict[Architecture, tuple[str, ...]] = {}
    for architecture, tallies in sorted(calls.items()):
        names: dict[str, Evidence] = {}
        absent: dict[str, Evidence] = {}
        for call in sorted(tallies):
            errors = results[architecture, call]
            if errors == {"ENOSYS"}:
                if not call.isdigit():
                    absent[call] = tallies[call].evidence("ENOSYS each time")
            elif errors == {"EPERM"}:
                notes.append(
                    f"{call} ({architecture}) is not allowed: it failed with EPERM each time"
                )
            elif (architecture, call) not in made:
                notes.append(f"{call} ({architecture}) is not allowed: a filter refused it")
            elif call.isdigit():
                notes.append(f"the system call {call} ({architecture}) has no name here")
            else:
                names[call] = tallies[call].evidence()
        extra = dict.fromkeys(ALWAYS[architecture], ALWAYS_REASON)
        extra |= {
            call: WAITS_REASON for call, needs in WAITS.items() if not needs or needs in names
        }
        if not started:
            extra |= dict.fromkeys(START, START_REASON)
        names |= {
            call: Evidence(reason=reason) for call, reason in extra.items() if call not in names
        }
        allowed[architecture] = tuple(sorted(names))
        evidence[f"seccomp.syscalls.{architecture}"] = dict(sorted(names.items()))
        if absent:
            unavailable[architecture] = tuple(sorted(absent))
            evidence[f"seccomp.unavailable.{architecture}"] = absent
    return Seccomp(syscalls=allowed, unavailable=unavailable)
