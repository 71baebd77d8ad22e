"""A seccomp profile that allows the refused calls too, in Docker's format. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from jaula.spec.runtime_spec import Seccomp, Syscall

ALLOW = "SCMP_ACT_ALLOW"


def widened(seccomp: Seccomp, rules: Iterable[Syscall]) -> Seccomp:
    """Return a filter with more rules that allow.

    A rule that refuses is stricter than one that allows. So those of the same calls are left out,
    if the new rule has no condition that separates them.
    """
    rules = tuple(dict.fromkeys(rules))
    whole = {name for rule in rules if not rule.args for name in rule.names}
    kept = []
    for rule in seccomp.syscalls:
        names = rule.names
        if rule.action != ALLOW:
            names = tuple(name for name in names if name not in whole)
        if names:
            kept.append(msgspec.structs.replace(rule, names=names))
    return msgspec.structs.replace(seccomp, syscalls=(*kept, *rules))


def document(seccomp: Seccomp) -> bytes:
    """Return the text of a profile file."""
    return msgspec.json.format(msgspec.json.encode(seccomp), indent=2) + b"\n"
