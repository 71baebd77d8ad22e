"""Bind mounts whose source lies below a directory that bounds it: an annotation for the runtime.

The engine may be told by an operator that somebody can mount what is below a directory. That
person may be able to put a symbolic link there, so the path says nothing about the place. For such
mounts the runtime opens the source below the directory, without following any link.
"""

from __future__ import annotations

from jaula.errors import InvalidRequest

ANNOTATION = "io.jaula.beneath"


def encode(bounds: dict[str, str]) -> str:
    """``bounds``: source to directory. No path holds a NUL byte, so it separates them."""
    return "\0".join(path for pair in bounds.items() for path in pair)


def decode(text: str) -> dict[str, str]:
    """Source to directory. Raises ``InvalidRequest`` where it is none of ours."""
    paths = text.split("\0") if text else []
    if len(paths) % 2:
        raise InvalidRequest(f"annotation {ANNOTATION}: a path without its directory")
    return dict(zip(paths[::2], paths[1::2], strict=True))


def below(source: str, directory: str) -> str | None:
    """The part of ``source`` below ``directory``: empty for itself, None where it is elsewhere."""
    if source == directory:
        return ""
    start = directory.rstrip("/") + "/"
    return source.removeprefix(start) if source.startswith(start) else None
