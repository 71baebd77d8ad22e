"""The rules of Landlock that a container's processes obey, as an annotation of the spec.

The OCI runtime specification has no field for Landlock, so the rules travel as JSON in the
annotation ``io.jaula.landlock``. Whoever makes the spec decides them; the runtime obeys. Rights are
the kernel's bits (include/uapi/linux/landlock.h); what is handled and in no rule is refused.
"""

from __future__ import annotations

import msgspec

from jaula.errors import InvalidRequest

ANNOTATION = "io.jaula.landlock"


class _Document(
    msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True
):
    pass


class PathRule(_Document, frozen=True):
    """Rights beneath an absolute path in the container; on a file, those that apply to files."""

    path: str
    access: int


class PortRule(_Document, frozen=True):
    """Rights on a TCP port."""

    port: int
    access: int


class Ruleset(_Document, frozen=True):
    """One domain. ``joined``: processes that join the container later enter one like it too."""

    handled_access_fs: int = 0
    handled_access_net: int = 0
    scoped: int = 0
    paths: tuple[PathRule, ...] = ()
    ports: tuple[PortRule, ...] = ()
    joined: bool = False


def encode(ruleset: Ruleset) -> str:
    """The annotation's text."""
    return msgspec.json.encode(ruleset).decode()


def decode(text: str) -> Ruleset:
    """Read an annotation. Raises ``InvalidRequest`` where it is none of ours."""
    try:
        ruleset = msgspec.json.decode(text, type=Ruleset)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"annotation {ANNOTATION}: {error}") from None
    bits = (ruleset.handled_access_fs, ruleset.handled_access_net, ruleset.scoped)
    granted = (*(r.access for r in ruleset.paths), *(r.access for r in ruleset.ports))
    if not any(bits) or not all(0 <= n < 1 << 64 for n in (*bits, *granted)):
        raise InvalidRequest(
            f"annotation {ANNOTATION}: it handles no rights, or rights are no bits"
        )
    for rule in ruleset.paths:
        if not rule.path.startswith("/") or "\0" in rule.path:
            raise InvalidRequest(f"annotation {ANNOTATION}: path {rule.path!r} is not absolute")
        if rule.access & ~ruleset.handled_access_fs:
            raise InvalidRequest(f"annotation {ANNOTATION}: {rule.path} has rights not handled")
    for port in ruleset.ports:
        if not 0 <= port.port <= 65535 or port.access & ~ruleset.handled_access_net:
            raise InvalidRequest(
                f"annotation {ANNOTATION}: port {port.port}: no rule can hold that"
            )
    return ruleset
