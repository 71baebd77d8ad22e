"""Annotations."""

from __future__ import annotations

import msgspec

from jaula.errors import InvalidRequest

LANDLOCK_ANNOTATION = "io.jaula.landlock"
BIND_ROOT_ANNOTATION = "io.jaula.beneath"


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


def encode_ruleset(ruleset: Ruleset) -> str:
    """The annotation's text."""
    return msgspec.json.encode(ruleset).decode()


def decode_ruleset(text: str) -> Ruleset:
    """Read an annotation. Raises ``InvalidRequest`` where it is none of ours."""
    try:
        ruleset = msgspec.json.decode(text, type=Ruleset)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"annotation {LANDLOCK_ANNOTATION}: {error}") from None
    bits = (ruleset.handled_access_fs, ruleset.handled_access_net, ruleset.scoped)
    granted = (*(r.access for r in ruleset.paths), *(r.access for r in ruleset.ports))
    if not any(bits) or not all(0 <= n < 1 << 64 for n in (*bits, *granted)):
        raise InvalidRequest(
            f"annotation {LANDLOCK_ANNOTATION}: it handles no rights, or rights are no bits"
        )
    for rule in ruleset.paths:
        if not rule.path.startswith("/") or "\0" in rule.path:
            raise InvalidRequest(
                f"annotation {LANDLOCK_ANNOTATION}: path {rule.path!r} is not absolute"
            )
        if rule.access & ~ruleset.handled_access_fs:
            raise InvalidRequest(
                f"annotation {LANDLOCK_ANNOTATION}: {rule.path} has rights not handled"
            )
    for port in ruleset.ports:
        if not 0 <= port.port <= 65535 or port.access & ~ruleset.handled_access_net:
            raise InvalidRequest(
                f"annotation {LANDLOCK_ANNOTATION}: port {port.port}: no rule can hold that"
            )
    return ruleset


def encode_bind_roots(bounds: dict[str, str]) -> str:
    """``bounds``: source to directory. No path holds a NUL byte, so it separates them."""
    return "\0".join(path for pair in bounds.items() for path in pair)


def decode_bind_roots(text: str) -> dict[str, str]:
    """Source to directory. Raises ``InvalidRequest`` where it is none of ours."""
    paths = text.split("\0") if text else []
    if len(paths) % 2:
        raise InvalidRequest(f"annotation {BIND_ROOT_ANNOTATION}: a path without its directory")
    return dict(zip(paths[::2], paths[1::2], strict=True))


def path_below(source: str, directory: str) -> str | None:
    """The part of ``source`` below ``directory``: empty for itself, None where it is elsewhere."""
    if source == directory:
        return ""
    start = directory.rstrip("/") + "/"
    return source.removeprefix(start) if source.startswith(start) else None
