"""Shared by the forms of a profile: valid values, volumes, ports, what a form cannot express. Pure.

The values of a profile have a grammar, which a form may rely on: :func:`checked` is the first call
of each. A path may have any character but a zero byte; that of a mount has no colon either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import TypeVar

import msgspec

from jaula.errors import InvalidRequest
from jaula.features.harden.profile_toml import comment
from jaula.security import capability_sets
from jaula.spec.confinement_profile import Profile, Seccomp, check
from jaula.spec.csv_field import quoted

Struct = TypeVar("Struct", bound=msgspec.Struct)

PROGRAM_FILES = "files that it may read and execute"
DESTINATIONS = "destinations that it may connect to"
MASKED = "masked paths"
PIDS = "the number of processes"
_MAX_NAME = 100  # characters of a name before its digest


def checked(profile: Profile) -> Profile:
    """Return a profile whose values have the grammar of their fields, however it was made.

    System calls are in one form only, which checks them by :func:`checked_calls`.

    :raises InvalidRequest: when one has not.
    """
    others = msgspec.structs.replace(profile, seccomp=Seccomp())
    valid = _converted(others, Profile, profile.name)
    check(valid)
    return msgspec.structs.replace(valid, seccomp=profile.seccomp)


def checked_calls(profile: Profile) -> Seccomp:
    """Return the system calls of a profile, whose names have the grammar of one.

    :raises InvalidRequest: when one has not.
    """
    return _converted(profile.seccomp, Seccomp, profile.name)


def _converted(value: Struct, kind: type[Struct], name: str) -> Struct:
    try:
        return msgspec.convert(msgspec.to_builtins(value), kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"profile {name[:80]!r}: {error}") from None


def capabilities(profile: Profile) -> tuple[str, ...]:
    """Return the names of the capabilities, without ``CAP_``.

    :raises InvalidRequest: when one is unknown.
    """
    found = {capability_sets.canonical(name).removeprefix("CAP_") for name in profile.capabilities}
    return tuple(sorted(found))


def settings(profile: Profile) -> dict[str, tuple[str, ...]]:
    """Return the options of ``run`` that give a container what a profile needs, with values.

    The value of an option without one is ''. System calls and listened ports are not in it.
    """
    limits = profile.limits
    memory = (str(limits.memory),) if limits.memory else ()
    found = {
        "user": (profile.process.user,) if profile.process.user else (),
        "security-opt": ("no-new-privileges",) if profile.process.no_new_privileges else (),
        "cap-drop": ("ALL",),
        "cap-add": capabilities(profile),
        "device": profile.devices,
        "read-only": ("",) if profile.files.read_only_root else (),
        "tmpfs": tuple(f"{p}:{o}" if o else p for p, o in profile.files.tmpfs.items()),
        "mount": tuple(
            f"type=volume,src={name},{quoted(f'dst={path}')}"
            for path, name in volume_names(profile).items()
        ),
        "network": (profile.network.mode,) if profile.network.mode else (),
        "pids-limit": (str(limits.pids),) if limits.pids else (),
        "memory": memory,
        "memory-swap": memory,
        "cpus": (decimal(limits.cpus),) if limits.cpus else (),
    }
    return {name: values for name, values in found.items() if values}


def volume_names(profile: Profile) -> Mapping[str, str]:
    """Return the name of the volume for each path; no other path or profile has the same."""
    return _distinct(profile, {path: f"{profile.name}{path}" for path in profile.files.volumes})


def _distinct(profile: Profile, texts: Mapping[str, str]) -> dict[str, str]:
    """Return readable names. One that others could have too ends with a digest, after ``--``."""
    plain = {path: re.sub(r"[^a-zA-Z0-9_.]+", "-", text).strip("-") for path, text in texts.items()}
    shared = [each.lower() for each in plain.values()]
    result = {}
    for path, name in plain.items():
        is_own = shared.count(name.lower()) == 1 and "-" not in profile.name
        is_reference = name.endswith((".volume", ".image", ".build"))  # of another unit of quadlet
        if not is_own or is_reference or len(name) > _MAX_NAME:
            digest = blake2b(f"{profile.name}\0{path}".encode(), digest_size=10).hexdigest()
            name = f"{name[:_MAX_NAME].rstrip('-')}--{digest}"
        result[path] = name
    return result


def seccomp_file(profile: Profile) -> str:
    """Return the name of the seccomp profile's file, beside the document that names it."""
    return f"{profile.name}.seccomp.json"


def ports(profile: Profile) -> tuple[tuple[str, int], ...]:
    """Return protocol and number of the ports that it listens on, without selected ones."""
    found = []
    for item in profile.network.listen or ():
        protocol, _, number = item.partition(":")
        if number.isdigit() and 0 < int(number) < 65536 and protocol in ("tcp", "udp"):
            found.append((protocol, int(number)))
    return tuple(found)


def decimal(value: float) -> str:
    """Return a number without an exponent."""
    return f"{value:.9f}".rstrip("0").rstrip(".")


def comments(profile: Profile, title: str, cannot: tuple[str, ...]) -> Iterator[str]:
    """Yield the comments of a form: its title, what it cannot express, and the notes."""
    yield f"# {comment(title)}"
    if lost := [each for each in cannot if _has(profile, each)]:
        yield "# This form cannot express:"
        yield from (f"#   {each}" for each in lost)
    if profile.notes:
        yield "# Notes of the profile:"
        yield from (f"#   {comment(note)}" for note in profile.notes)


def _has(profile: Profile, need: str) -> bool:
    return {
        PROGRAM_FILES: bool(profile.files.read or profile.files.execute),
        DESTINATIONS: profile.network.egress is not None and profile.network.mode != "none",
        MASKED: bool(profile.files.masked),
        PIDS: bool(profile.limits.pids),
    }.get(need, True)
