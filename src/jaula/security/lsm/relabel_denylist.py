"""Directories of the host that are never relabelled for a container: a system would not survive it.

``-v /etc:/etc:z`` would give every file below /etc to the container's type, and logins and services
would fail from then on. Docker and podman refuse the same, by name; here the name is the one that
the kernel gives to an open directory, so that no link leads past it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from jaula.errors import InvalidRequest

TREES = (
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin",
    "/sys", "/usr",
)  # fmt: skip
"""Refused with everything below."""

TOPS = (
    "/", "/home", "/lost+found", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/var",
    "/var/cache", "/var/lib", "/var/lock", "/var/log", "/var/mail", "/var/run", "/var/spool",
    "/var/tmp",
)  # fmt: skip
"""Refused themselves; a directory of one's own below is fine."""


def check(path: str, *, own: Iterable[str] = ()) -> None:
    """Raises ``InvalidRequest`` where ``path``, absolute and without links, may not be relabelled.

    ``own`` are the engine's directories, which must not lie below it.
    """
    if not path.startswith("/"):
        raise InvalidRequest(f"SELinux relabeling of {path!r} is not allowed: it is not absolute")
    plain = "/" + posixpath.normpath(path).lstrip("/")
    reason = _reason(plain, own)
    if reason:
        raise InvalidRequest(
            f"SELinux relabeling of {plain} is not allowed: {reason}",
            hint="mount a directory of its own, leave out z and Z, or use"
            " --security-opt label=disable",
        )


def _reason(path: str, own: Iterable[str]) -> str:
    if path in TOPS or any(path == tree or path.startswith(f"{tree}/") for tree in TREES):
        return "it belongs to the system"
    if posixpath.dirname(path) == "/home":
        return "it is somebody's whole home directory"
    for directory in own:
        if directory == path or directory.startswith(f"{path.rstrip('/')}/"):
            return "the engine's own files lie below"
    return ""
