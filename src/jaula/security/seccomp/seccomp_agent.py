"""A filter that passes chosen calls to a seccomp agent before they are made.

Source: seccomp_unotify(2), runtime-spec config-linux.md ("Seccomp", ``listenerPath``). The agent of
a record answers with SECCOMP_USER_NOTIF_FLAG_CONTINUE. What the filter refuses it refuses as
before: an error has precedence over a notification.
"""

from __future__ import annotations

from jaula.kernel import seccomp as kernel
from jaula.kernel.seccomp import NATIVE, SECCOMP_FILTER_FLAG
from jaula.spec.runtime_spec import Seccomp, Syscall

CALLS = (
    "execve", "execveat", "open", "creat", "openat", "openat2", "socket", "connect", "bind",
    "listen", "mount", "umount2", "move_mount", "setuid", "setgid", "setreuid", "setregid",
    "setresuid", "setresgid", "setgroups", "exit_group",
)  # fmt: skip
"""The calls of which a record is made. ``sendmsg`` passes the listener, and cannot be one."""
_ALLOW, _NOTIFY = "SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY"
_ABIS = {
    "SCMP_ARCH_X86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "SCMP_ARCH_AARCH64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}  # a filter kills a process that uses another one
_KILLABLE = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"


def with_listener(profile: Seccomp | None, path: str) -> Seccomp:
    """Return a filter that allows what ``profile`` allows, and passes :data:`CALLS` to an agent.

    ``profile`` is None for a container without a filter, ``path`` the socket of the agent.
    """
    if profile is None:
        profile = Seccomp(default_action=_ALLOW, architectures=_ABIS.get(NATIVE, ()))
    rules: list[Syscall] = []
    for rule in profile.syscalls:
        if rule.action != _ALLOW:
            rules.append(rule)
            continue
        for names, action in (
            (tuple(name for name in rule.names if name not in CALLS), _ALLOW),
            (tuple(name for name in rule.names if name in CALLS), _NOTIFY),
        ):
            if names:
                rules.append(Syscall(names, action, rule.errno_ret, rule.args))
    if profile.default_action == _ALLOW:
        rules.append(Syscall(CALLS, _NOTIFY))  # the most restrictive rule decides
    flags = set(profile.flags)
    if kernel.filter_flag_available(SECCOMP_FILTER_FLAG.WAIT_KILLABLE_RECV):
        flags.add(_KILLABLE)
    return Seccomp(
        default_action=profile.default_action,
        default_errno_ret=profile.default_errno_ret,
        architectures=profile.architectures,
        flags=tuple(sorted(flags)),
        listener_path=path,
        syscalls=tuple(rules),
    )
