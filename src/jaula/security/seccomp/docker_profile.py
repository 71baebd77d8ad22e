"""Parse Docker's seccomp profile files (``--security-opt seccomp=FILE``).

Follows moby ``profiles/seccomp/seccomp_linux.go``, and containers-common for the ``errno`` names in
podman's files. A file is the OCI document with conditions: a rule applies if every ``includes``
holds and no ``excludes`` does.

The parser is stricter than Docker's: an unknown key, action, comparison or architecture is an
error, because a misspelt rule would be an unnoticed hole.
"""

from __future__ import annotations

import errno
from collections.abc import Collection

import msgspec

from jaula.errors import InvalidRequest
from jaula.kernel.capabilities import NAMES
from jaula.kernel.seccomp import ARCHITECTURES, NATIVE
from jaula.security.seccomp.constants import ACTIONS, COMPARISONS, FLAGS
from jaula.spec.runtime_spec import Seccomp, Syscall, SyscallArg

MAX_BYTES = 1 << 20

DOCKER_ARCHITECTURES: dict[str, str] = {
    "SCMP_ARCH_X86_64": "amd64",
    "SCMP_ARCH_X86": "x86",
    "SCMP_ARCH_AARCH64": "arm64",
    "SCMP_ARCH_RISCV64": "riscv64",
    "SCMP_ARCH_PPC64LE": "ppc64le",
    "SCMP_ARCH_S390X": "s390x",
    "SCMP_ARCH_LOONGARCH64": "loongarch64",
}
"""The names of architectures in ``includes.arches``."""


class _Object(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    pass


class _ArchMap(_Object, frozen=True):
    architecture: str
    sub_architectures: list[str] | None = None


class _Filter(_Object, frozen=True):
    caps: list[str] | None = None
    arches: list[str] | None = None
    min_kernel: str | None = None


class _Arg(_Object, frozen=True):
    index: int
    value: int
    op: str
    value_two: int = 0


class _Rule(_Object, frozen=True):
    action: str
    name: str = ""
    names: list[str] | None = None
    errno_ret: int | None = None
    errno: str = ""
    args: list[_Arg] | None = None
    comment: str = ""
    includes: _Filter | None = None
    excludes: _Filter | None = None


class _Profile(_Object, frozen=True):
    default_action: str
    default_errno_ret: int | None = None
    default_errno: str = ""
    architectures: list[str] | None = None
    arch_map: list[_ArchMap] | None = None
    flags: list[str] | None = None
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: list[_Rule] | None = None


def parse(data: bytes, capabilities: Collection[str], kernel_release: str) -> Seccomp:
    """Resolve a profile for a container with these capabilities on this kernel.

    :raises InvalidRequest: when a key or value is not valid; the error names it.
    """
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"the seccomp profile is larger than {MAX_BYTES} bytes")
    try:
        profile = msgspec.json.decode(data, type=_Profile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the seccomp profile cannot be read: {error}") from None
    if profile.architectures and profile.arch_map:
        raise InvalidRequest("the seccomp profile has both architectures and archMap")
    if profile.listener_path:
        raise InvalidRequest("a seccomp profile with listenerPath is not accepted")
    _known("defaultAction", profile.default_action, ACTIONS)
    for flag in profile.flags or ():
        _known("flag", flag, FLAGS)
    version = _version(kernel_release)
    return Seccomp(
        default_action=profile.default_action,
        default_errno_ret=_errno(profile.default_errno, profile.default_errno_ret),
        architectures=_architectures(profile),
        flags=tuple(profile.flags or ()),
        syscalls=tuple(
            _syscall(rule)
            for rule in profile.syscalls or ()
            if _applies(rule, frozenset(capabilities), version)
        ),
    )


def _architectures(profile: _Profile) -> tuple[str, ...]:
    names = list(profile.architectures or ())
    for entry in profile.arch_map or ():
        for name in (entry.architecture, *(entry.sub_architectures or ())):
            _known("architecture", name, ARCHITECTURES)
        if entry.architecture == NATIVE:
            names = [entry.architecture, *(entry.sub_architectures or ())]
    for name in names:
        _known("architecture", name, ARCHITECTURES)
    return tuple(names)


def _applies(rule: _Rule, capabilities: frozenset[str], version: tuple[int, int]) -> bool:
    """Return whether a rule applies. All its conditions are validated first."""
    native = DOCKER_ARCHITECTURES.get(NATIVE, "")
    includes, excludes = rule.includes or _Filter(), rule.excludes or _Filter()
    for part in (includes, excludes):
        for name in part.caps or ():
            _known("capability", name, NAMES)
    minimum = _version(includes.min_kernel) if includes.min_kernel else None
    upper_bound = _version(excludes.min_kernel) if excludes.min_kernel else None
    return (
        not (includes.arches and native not in includes.arches)
        and not (excludes.arches and native in excludes.arches)
        and not (includes.caps and not capabilities.issuperset(includes.caps))
        and not (excludes.caps and not capabilities.isdisjoint(excludes.caps))
        and not (minimum and version < minimum)
        and not (upper_bound and version >= upper_bound)
    )


def _syscall(rule: _Rule) -> Syscall:
    if rule.name and rule.names:
        raise InvalidRequest("a seccomp rule has both name and names", hint=f"it is {rule.name!r}")
    names = tuple(rule.names or ((rule.name,) if rule.name else ()))
    if not names:
        raise InvalidRequest("a seccomp rule names no system call")
    _known("action", rule.action, ACTIONS)
    args = []
    for arg in rule.args or ():
        _known("comparison", arg.op, COMPARISONS)
        if not 0 <= arg.index <= 5:
            raise InvalidRequest(f"seccomp argument index {arg.index} is not between 0 and 5")
        if not (0 <= arg.value < 1 << 64 and 0 <= arg.value_two < 1 << 64):
            raise InvalidRequest(f"seccomp argument value of {names[0]} is not unsigned 64-bit")
        args.append(SyscallArg(arg.index, arg.value, arg.op, arg.value_two))
    return Syscall(names, rule.action, _errno(rule.errno, rule.errno_ret), tuple(args))


def _errno(name: str, number: int | None) -> int | None:
    if name:
        value = getattr(errno, name, None) if name.startswith("E") else None
        if not isinstance(value, int):
            raise InvalidRequest(f"unknown errno {name!r} in the seccomp profile")
        if number is not None and number != value:
            raise InvalidRequest(f"seccomp errno {name} is {value}, errnoRet says {number}")
        return value
    if number is not None and not 0 <= number <= 0xFFFF:
        raise InvalidRequest(f"seccomp errno {number} is not between 0 and 65535")
    return number


def _known(what: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise InvalidRequest(
            f"unknown seccomp {what} {value[:64]!r}", hint="one of " + ", ".join(sorted(known))
        )


def _version(release: str) -> tuple[int, int]:
    """Parse ``6.18.0-rc1`` or ``6.18`` as (6, 18)."""
    major, _, rest = release.partition(".")
    minor = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    if not (major.isascii() and major.isdigit() and minor.isascii() and minor):
        raise InvalidRequest(f"kernel version {release[:64]!r} is not of the form 4.8")
    return int(major), int(minor)
