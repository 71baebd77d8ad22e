"""The grammar of a cgroup's path, ``/<parent>/<id>``. Pure."""

from __future__ import annotations

from jaula.errors import InvalidRequest

_LONGEST = 255  # NAME_MAX


def relative(path: str) -> str:
    """``path`` without its leading slash, checked: no ``..``, no empty, odd or overlong part.

    Raises ``InvalidRequest``.
    """
    parts = path.removeprefix("/").split("/")
    for part in parts:
        if not part or part in (".", ".."):
            raise InvalidRequest(f"bad cgroup path {path!r}: empty or dot part")
        if len(part.encode("utf-8", "replace")) > _LONGEST:
            raise InvalidRequest(f"bad cgroup path: a part is longer than {_LONGEST} bytes")
        if not part.isprintable() or not part.isascii():
            raise InvalidRequest(f"bad cgroup path {path!r}: only printable ASCII is allowed")
        if part.startswith(("cgroup.", "-")):
            raise InvalidRequest(f"bad cgroup path {path!r}: {part!r} reads as an interface file")
    return "/".join(parts)


def ancestors(path: str) -> list[str]:
    """The paths above a relative path, topmost first: ``a/b/c`` gives ``a``, ``a/b``."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
