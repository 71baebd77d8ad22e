"""Validation of ``linux.seccomp``: config-linux.md "Seccomp"; the filter is compiled elsewhere."""

from __future__ import annotations

from jaula.kernel.seccomp import ARCHITECTURES
from jaula.runtime.validation.field import between, one_of, quote, refuse
from jaula.spec.runtime_spec import Seccomp, Syscall

ACTIONS = tuple(
    f"SCMP_ACT_{name}"
    for name in (
        "KILL",
        "KILL_THREAD",
        "KILL_PROCESS",
        "TRAP",
        "ERRNO",
        "TRACE",
        "NOTIFY",
        "LOG",
        "ALLOW",
    )
)
OPERATORS = tuple(f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))
FLAGS = tuple(
    f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")
)
_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_NOTIFY = "SCMP_ACT_NOTIFY"
_UINT64_MAX = (1 << 64) - 1


def check(seccomp: Seccomp) -> None:
    """Validate a seccomp profile.

    :raises InvalidRequest: when a field is invalid.
    """
    field = "linux.seccomp"
    one_of(f"{field}.defaultAction", seccomp.default_action, ACTIONS)
    if seccomp.default_action == _NOTIFY:
        raise refuse(
            f"{field}.defaultAction", f"{_NOTIFY} would block the runtime's own last system calls"
        )
    _errno(f"{field}.defaultErrnoRet", seccomp.default_action, seccomp.default_errno_ret)
    for index, name in enumerate(seccomp.architectures):
        if name not in ARCHITECTURES:
            one_of(f"{field}.architectures[{index}]", name, tuple(ARCHITECTURES))
    for index, flag in enumerate(seccomp.flags):
        one_of(f"{field}.flags[{index}]", flag, FLAGS)
    for index, rule in enumerate(seccomp.syscalls):
        _rule(f"{field}.syscalls[{index}]", rule)
    if seccomp.listener_path:
        if not seccomp.listener_path.startswith("/"):
            raise refuse(f"{field}.listenerPath", f"{quote(seccomp.listener_path)} is not absolute")
    elif seccomp.listener_metadata:
        raise refuse(f"{field}.listenerMetadata", "requires listenerPath")
    elif any(rule.action == _NOTIFY for rule in seccomp.syscalls):
        raise refuse(f"{field}.listenerPath", f"is missing, but {_NOTIFY} requires it")


def _rule(field: str, rule: Syscall) -> None:
    if not rule.names:
        raise refuse(f"{field}.names", "is empty")
    for name in rule.names:
        if not name or not name.isascii():
            raise refuse(f"{field}.names", f"{quote(name)} is not a system call name")
    for index, name in enumerate(rule.architectures):
        if name not in ARCHITECTURES:
            one_of(f"{field}.architectures[{index}]", name, tuple(ARCHITECTURES))
    one_of(f"{field}.action", rule.action, ACTIONS)
    if rule.action == _NOTIFY and "write" in rule.names:
        raise refuse(f"{field}.action", f"{_NOTIFY} for write would block the runtime itself")
    _errno(f"{field}.errnoRet", rule.action, rule.errno_ret)
    for index, argument in enumerate(rule.args):
        prefix = f"{field}.args[{index}]"
        between(f"{prefix}.index", argument.index, 0, 5)
        one_of(f"{prefix}.op", argument.op, OPERATORS)
        between(f"{prefix}.value", argument.value, 0, _UINT64_MAX)
        between(f"{prefix}.valueTwo", argument.value_two, 0, _UINT64_MAX)


def _errno(field: str, action: str, number: int | None) -> None:
    if number is None:
        return
    between(field, number, 0, 0xFFFF)
    if action not in _ERRNO and number:
        raise refuse(field, f"does not apply to {action}")
