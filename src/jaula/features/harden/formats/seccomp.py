"""The seccomp profile in Docker's format, which podman and Kubernetes read too. Pure.

Source: moby ``profiles/seccomp``, the OCI runtime specification and libseccomp.

A call that the engine's default filter allows with some arguments only, such as clone(2) without
new namespaces, keeps that condition. Docker, podman and Kubernetes apply the filter before their
runtime starts the program, so the calls of the runtime are in it too.

Facts about libseccomp: a rule without conditions overrides a rule of the same call with conditions.
So a refusal of one argument of a call that is allowed otherwise cannot be expressed.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from typing import Any

from jaula.features.harden.formats import needs
from jaula.features.harden.tally import words
from jaula.kernel.seccomp import NATIVE
from jaula.security.seccomp.seccomp_filter import default_profile
from jaula.spec.confinement_profile import Architecture, Profile
from jaula.spec.runtime_spec import Syscall

ARCHITECTURES: dict[Architecture, str] = {
    "x86_64": "SCMP_ARCH_X86_64",
    "x86": "SCMP_ARCH_X86",
    "x32": "SCMP_ARCH_X32",
    "aarch64": "SCMP_ARCH_AARCH64",
}
RUNTIME = words(
    """close close_range epoll_ctl epoll_pwait execve exit exit_group fcntl fstat fstatfs futex
    getdents64 getpid gettid madvise mmap munmap nanosleep newfstatat openat prctl read readlinkat
    rt_sigaction rt_sigprocmask rt_sigreturn sched_yield sigaltstack tgkill write"""
)
"""Calls of runc and crun between the filter and the program."""
PRIVILEGED_RUNTIME = words(
    """brk capget capset chdir clone dup3 epoll_create1 eventfd2 faccessat2 fchown getcwd getppid
    getuid ioctl lseek mprotect open openat2 pipe2 pread64 prlimit64 sched_getaffinity
    set_robust_list set_tid_address setgid setgroups setsid setuid stat statfs statx umask uname"""
)
"""More of them without no-new-privileges: the filter needs CAP_SYS_ADMIN, so it comes early."""


def render(profile: Profile) -> str:
    """Return the JSON document.

    :raises InvalidRequest: when a value of the profile is not valid.
    """
    return json.dumps(document(profile), indent=2) + "\n"


def document(profile: Profile) -> dict[str, Any]:
    """Return the document: the engine's default filter if the profile lists no calls."""
    profile, seccomp = needs.checked(profile), needs.checked_calls(profile)
    capabilities = {f"CAP_{name}" for name in needs.capabilities(profile)}
    default = default_profile(capabilities)
    architectures = [ARCHITECTURES[each] for each in sorted(seccomp.syscalls)]
    names = {name for each in seccomp.syscalls.values() for name in each}
    unavailable = {name for each in seccomp.unavailable.values() for name in each}
    if not names:
        names = {name for rule in default.syscalls for name in rule.names}
        architectures = [NATIVE]
    rules = list(_rules(names, default.syscalls))
    own = RUNTIME if profile.process.no_new_privileges else RUNTIME + PRIVILEGED_RUNTIME
    if runtime := sorted(set(own) - names):
        for rule in _rules(set(runtime), default.syscalls):
            rules.append(rule | {"comment": "of the runtime, before it starts the program"})
    allowed = {name for rule in rules for name in rule["names"]}
    if absent := sorted(unavailable - allowed | ({"clone3"} - allowed)):
        rules.append(
            {"names": absent, "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS,
             "comment": "unavailable, so that the C library uses an older call"}
        )  # fmt: skip
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": architectures,
        "syscalls": rules,
    }


def _rules(names: set[str], default: tuple[Syscall, ...]) -> Iterator[dict[str, Any]]:
    """Yield a rule for the calls without conditions, then those with the default's conditions."""
    conditions: dict[str, list[Syscall]] = {}
    free: set[str] = set()
    for rule in default:
        for name in rule.names:
            if name in names:
                if rule.action == "SCMP_ACT_ALLOW" and not rule.args:
                    free.add(name)
                conditions.setdefault(name, []).append(rule)
    free |= names - conditions.keys()  # of a container that had more than the default
    if free:
        yield {"names": sorted(free), "action": "SCMP_ACT_ALLOW"}
    for name in sorted(names - free):
        for rule in conditions[name]:
            if rule.action != "SCMP_ACT_ALLOW" and any(
                other.action == "SCMP_ACT_ALLOW" for other in conditions[name]
            ):
                continue
            document: dict[str, Any] = {"names": [name], "action": rule.action}
            if rule.errno_ret is not None:
                document["errnoRet"] = rule.errno_ret
            if rule.args:
                document["args"] = [
                    {
                        "index": arg.index,
                        "value": arg.value,
                        "valueTwo": arg.value_two,
                        "op": arg.op,
                    }
                    for arg in rule.args
                ]
            yield document
