"""Directories of the host that are never relabelled for a container, because the host would break.

``-v /etc:/etc:z`` would set the container's type on every file below /etc, and logins and services
would fail. Docker and podman refuse the same paths. This check uses the kernel's path of an open
directory, so a symbolic link cannot bypass it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from jaula.errors import InvalidRequest

TREES = (
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin",
    "/sys", "/usr",
)  # fmt: skip
"""Refused, with all paths below."""

TOPS = (
    "/", "/home", "/lost+found", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/var",
    "/var/cache", "/var/lib", "/var/lock", "/var/log", "/var/mail", "/var/run", "/var/spool",
    "/var/tmp",
)  # fmt: skip
"""Refused; a directory below is allowed."""


def check(path: str, *, own: Iterable[str] = ()) -> None:
    """Check that a host path, absolute and without links, may be relabelled.

    ``own`` are the engine's directories, which must not be below it.

    :raises InvalidRequest: when it may not.
    """
    if not path.startswith("/"):
        raise InvalidRequest(f"SELinux relabeling of {path!r} is not allowed: it is not absolute")
    normal_path = "/" + posixpath.normpath(path).lstrip("/")
    reason = _reason(normal_path, own)
    if reason:
        raise InvalidRequest(
            f"SELinux relabeling of {normal_path} is not allowed: {reason}",
            hint="mount another directory, leave out z and Z, or use --security-opt label=disable",
        )


def _reason(path: str, own: Iterable[str]) -> str:
    if path in TOPS or any(path == tree or path.startswith(f"{tree}/") for tree in TREES):
        return "it belongs to the system"
    if posixpath.dirname(path) == "/home":
        return "it is the home directory of a user"
    for directory in own:
        if directory == path or directory.startswith(f"{path.rstrip('/')}/"):
            return "the engine's own files are below it"
    return ""
