"""Validation of ``linux.sysctl``: only sysctls of a namespace that the container owns.

Follows config-linux.md "Sysctl", sysctl(2) and namespaces(7). Writing any other would change the
host. Names may contain dots or slashes; the first separator decides, as in sysctl(8).
"""

from __future__ import annotations

from collections.abc import Mapping

from jaula.runtime.validation.field import quote, refuse
from jaula.spec.runtime_spec import Namespace

IPC = frozenset(
    f"kernel/{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni")
) | {"kernel/shm_rmid_forced"}
_MAX_VALUE = 4096  # bytes of a value; the kernel reads a page


def check(sysctls: Mapping[str, str], kinds: Mapping[str, Namespace]) -> None:
    """Validate sysctls; ``kinds`` are the container's namespaces by type.

    :raises InvalidRequest: when a sysctl is not allowed.
    """
    for name, value in sysctls.items():
        field = "linux.sysctl"
        kind = namespace_of(name)
        if name.replace("/", ".") == "kernel.hostname":
            raise refuse(field, "'kernel.hostname' must be set by the field hostname")
        if kind is None:
            raise refuse(field, f"{quote(name)} does not belong to a namespace")
        if kind not in kinds:
            raise refuse(field, f"{quote(name)} needs a namespace of type '{kind}'")
        if len(value) > _MAX_VALUE or "\n" in value.rstrip("\n"):
            raise refuse(field, f"{quote(name)} has a value that is longer than one line")


def sysctl_path(name: str) -> str | None:
    """Return the path below /proc/sys, or None for an invalid name."""
    dot, slash = name.find("."), name.find("/")
    if dot >= 0 and (slash < 0 or dot < slash):
        name = name.translate(str.maketrans("./", "/."))
    parts = name.split("/")
    if len(parts) < 2 or any(part in ("", ".", "..") for part in parts):
        return None
    return name if name.isprintable() else None


def namespace_of(name: str) -> str | None:
    """Return the type of namespace that a sysctl belongs to; None for the host's."""
    path = sysctl_path(name)
    if path is None:
        return None
    if path in IPC or path.startswith("fs/mqueue/"):
        return "ipc"
    if path == "kernel/domainname":
        return "uts"
    return {"net": "network", "user": "user"}.get(path.partition("/")[0])
