"""jaula's annotations in an OCI spec: Landlock rules, and how bind mounts are made.

The OCI runtime specification has no fields for them. The component that creates the spec decides
their content; the runtime applies it.

``io.jaula.landlock`` holds the rules as JSON. Rights are the kernel's bits
(include/uapi/linux/landlock.h). A right that is handled and granted by no rule is refused.

``io.jaula.beneath`` maps the source of a bind mount to the directory that bounds it. An operator
can allow a user to mount anything below a directory. That user may be able to place a symbolic link
there, so the path alone does not identify the source. For these mounts the runtime opens the source
below the directory without following links.

``io.jaula.idmap-optional`` lists the destinations of bind mounts that are mounted without an id map
where their file system cannot have one.

``io.jaula.host-binds`` lists the destinations of bind mounts whose sources are opened in the host's
mount namespace. It is set if mounts of the host do not propagate into the engine's: a source may be
on a mount that was made after the engine's start.

``io.jaula.version`` is the version of the engine that started the container, which had its own
defaults.
"""

from __future__ import annotations

import msgspec

from jaula.errors import InvalidRequest

LANDLOCK_ANNOTATION = "io.jaula.landlock"
BIND_ROOT_ANNOTATION = "io.jaula.beneath"
IDMAP_OPTIONAL_ANNOTATION = "io.jaula.idmap-optional"
HOST_BINDS_ANNOTATION = "io.jaula.host-binds"
VERSION_ANNOTATION = "io.jaula.version"
MOUNT_ANNOTATIONS = (BIND_ROOT_ANNOTATION, IDMAP_OPTIONAL_ANNOTATION, HOST_BINDS_ANNOTATION)
"""Annotations that say how mounts are prepared."""


class _Document(
    msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True
):
    pass


class PathRule(_Document, frozen=True):
    """Rights beneath an absolute path in the container, or on a file at that path.

    ``create``: rights on the nearest directory above, except the root, that exists when the process
    starts. They apply if the path does not exist, or is a socket or fifo, which programs replace.
    """

    path: str
    access: int
    create: int = 0


class PortRule(_Document, frozen=True):
    """Rights on a TCP port."""

    port: int
    access: int


class Ruleset(_Document, frozen=True):
    """One Landlock domain; ``joined`` includes processes that join the container later."""

    handled_access_fs: int = 0
    handled_access_net: int = 0
    scoped: int = 0
    paths: tuple[PathRule, ...] = ()
    ports: tuple[PortRule, ...] = ()
    joined: bool = False


def encode_ruleset(ruleset: Ruleset) -> str:
    """Return the text of the Landlock annotation."""
    return msgspec.json.encode(ruleset).decode()


def decode_ruleset(text: str) -> Ruleset:
    """Decode the Landlock annotation.

    :raises InvalidRequest: when the text is not a valid ruleset.
    """
    try:
        ruleset = msgspec.json.decode(text, type=Ruleset)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"annotation {LANDLOCK_ANNOTATION}: {error}") from None
    bits = (ruleset.handled_access_fs, ruleset.handled_access_net, ruleset.scoped)
    allowed = (
        *(n for r in ruleset.paths for n in (r.access, r.create)),
        *(r.access for r in ruleset.ports),
    )
    if not any(bits) or not all(0 <= n < 1 << 64 for n in (*bits, *allowed)):
        raise InvalidRequest(
            f"annotation {LANDLOCK_ANNOTATION}: it handles no rights, or has invalid rights"
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
                f"annotation {LANDLOCK_ANNOTATION}: port {port.port} or its rights are not valid"
            )
    return ruleset


def encode_bind_roots(roots: dict[str, str]) -> str:
    """Encode a map of source to directory; a NUL byte separates paths, which cannot contain one."""
    return "\0".join(path for pair in roots.items() for path in pair)


def decode_bind_roots(text: str) -> dict[str, str]:
    """Decode the map of source to directory.

    :raises InvalidRequest: when a source has no directory.
    """
    paths = text.split("\0") if text else []
    if len(paths) % 2:
        raise InvalidRequest(f"annotation {BIND_ROOT_ANNOTATION}: a path without its directory")
    return dict(zip(paths[::2], paths[1::2], strict=True))


def encode_destinations(destinations: tuple[str, ...]) -> str:
    """Encode a list of paths, separated by NUL bytes."""
    return "\0".join(destinations)


def decode_destinations(text: str) -> frozenset[str]:
    """Decode a list of paths."""
    return frozenset(text.split("\0")) if text else frozenset()


def path_below(source: str, directory: str) -> str | None:
    """Return ``source`` relative to ``directory``: '' for the directory itself, None if outside."""
    if source == directory:
        return ""
    start = directory.rstrip("/") + "/"
    return source.removeprefix(start) if source.startswith(start) else None
