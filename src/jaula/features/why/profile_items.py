"""The remedy in a container's profile: the item that the flag of an explanation stands for. Pure.

An explicit ``--security-opt landlock=`` or ``--egress`` takes the place of the profile's lists, so
for these the profile is the only place (:mod:`jaula.engine.containers.profile_request`).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import msgspec

from jaula.features.why.confinement import Confinement
from jaula.features.why.layers import Explanation, Layer
from jaula.features.why.refusal import Refusal
from jaula.security.capability_sets import DEFAULT

_ARCHITECTURES = {"": "x86_64", "i386": "x86", "x32": "x32"}
_LANDLOCK_LISTS = ("read", "write", "execute")
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def with_profile(
    explanation: Explanation, refusal: Refusal, confinement: Confinement
) -> Explanation:
    """Return an explanation with the remedy in the container's profile, if it has a document."""
    if not confinement.profile or explanation.harmless:
        return explanation
    changes, replaced = _changes(explanation.flag)
    beyond = any(each not in DEFAULT for each in _capabilities(explanation.flag))
    if explanation.layer is Layer.SECCOMP and not _listed(refusal, confinement):
        replaced = explanation.profile_rule is None  # the list refuses the call with the flag too
        architecture = _ARCHITECTURES.get(refusal.abi, "x86_64")
        key = f"seccomp.syscalls.{architecture}"
        if not replaced:
            return _lacking(explanation, key, (refusal.syscall,), confinement.profile)
        changes.append(f'add "{refusal.syscall}" to {key}')
    if not changes:
        return explanation
    return msgspec.structs.replace(
        explanation,
        flag="" if replaced else explanation.flag,
        in_profile=f"{' and '.join(changes)} of the profile {confinement.profile}"
        + ("; the default refuses it too" if beyond else ", which is the reason"),
    )


def _capabilities(flag: str) -> list[str]:
    words = flag.split()
    return [f"CAP_{word}" for n, word in enumerate(words) if n and words[n - 1] == "--cap-add"]


def _lacking(
    explanation: Explanation, key: str, items: tuple[str, ...], profile: str
) -> Explanation:
    text = ", ".join(f'"{each}"' for each in items)
    return msgspec.structs.replace(
        explanation,
        in_profile=f"add {text} to {key} of the profile {profile}, which is the reason",
        lacking=(key, items),
    )


def similar(explanation: Explanation) -> Explanation:
    """Return what explanations share that differ in the item that one list lacks."""
    if explanation.lacking is None:
        return explanation
    return msgspec.structs.replace(
        explanation, profile_rule=None, in_profile="", lacking=(explanation.lacking[0], ())
    )


def joined(explanations: Sequence[Explanation], profile: str) -> Explanation:
    """Return one explanation for several that are :func:`similar`."""
    first = explanations[0]
    if first.lacking is None or len(explanations) == 1:
        return first
    items = tuple(item for each in explanations if each.lacking for item in each.lacking[1])
    rule = first.profile_rule
    if rule is not None:
        rule = msgspec.structs.replace(rule, names=items)
    return msgspec.structs.replace(
        _lacking(first, first.lacking[0], items, profile), profile_rule=rule
    )


def _listed(refusal: Refusal, confinement: Confinement) -> bool:
    calls = confinement.profile_calls
    return calls is None or refusal.syscall in calls


def _changes(flag: str) -> tuple[list[str], bool]:
    """Return the changes that a flag stands for, and whether the flag would replace the profile."""
    changes: list[str] = []
    replaced = False
    without = flag.startswith("without ")
    words = iter(shlex.split(flag.removeprefix("without ").replace("'", "")))
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            value = next(words, "")
        match name:
            case "--cap-add":
                changes.append(f'add "{value}" to capabilities')
            case "--device":
                changes.append(f'add "{value}" to devices')
            case "--egress":
                changes.append(f'add "{value}" to network.egress')
                replaced = True
            case "--network" if value == "bridge":
                changes.append('remove mode = "none" from network')
            case "--pids-limit":
                changes.append(f"set limits.pids to {value}")
            case "--memory" if value[-1:] in _UNITS:
                changes.append(f"set limits.memory to {int(value[:-1]) * _UNITS[value[-1]]}")
            case "--tmpfs":
                path, _, options = value.partition(":")
                changes.append(f'add "{path}" = "{options}" to files.tmpfs')
            case "--user":
                changes.append(f'set process.user to "{value}"')
            case "--security-opt" if without and value == "no-new-privileges":
                changes.append("set process.no-new-privileges to false")
            case "--security-opt" if value.startswith("landlock="):
                kind, _, path = value.removeprefix("landlock=").partition("=")
                if kind in _LANDLOCK_LISTS:
                    changes.append(f'add "{path}" to files.{kind}')
                    replaced = True
    return changes, replaced
