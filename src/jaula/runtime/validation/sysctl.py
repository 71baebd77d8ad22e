"""``linux.sysctl``: only what belongs to a namespace that the container has for itself.

Follows config-linux.md "Sysctl", sysctl(2) and namespaces(7). Writing any other would change the
host. Names may have dots or slashes; the first separator that occurs decides, as in sysctl(8).
"""

from __future__ import annotations

from collections.abc import Mapping

from jaula.runtime.validation.field import refuse, shown
from jaula.spec.runtime import Namespace

IPC = frozenset(
    f"kernel/{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni")
) | {"kernel/shm_rmid_forced"}
_LONGEST = 4096  # bytes of a value; the kernel reads a page


def check(wanted: Mapping[str, str], kinds: Mapping[str, Namespace]) -> None:
    """Raises ``InvalidRequest``; ``kinds`` are the container's namespaces by type."""
    for name, value in wanted.items():
        field = "linux.sysctl"
        kind = namespace_of(name)
        if name.replace("/", ".") == "kernel.hostname":
            raise refuse(field, "'kernel.hostname' is set by the field hostname")
        if kind is None:
            raise refuse(field, f"{shown(name)} does not belong to a namespace")
        if kind not in kinds:
            raise refuse(field, f"{shown(name)} needs a namespace of type '{kind}'")
        if len(value) > _LONGEST or "\n" in value.rstrip("\n"):
            raise refuse(field, f"{shown(name)} has a value that is longer than one line")


def path_of(name: str) -> str | None:
    """The path below /proc/sys, or None for what is no name."""
    dot, slash = name.find("."), name.find("/")
    if dot >= 0 and (slash < 0 or dot < slash):
        name = name.translate(str.maketrans("./", "/."))
    parts = name.split("/")
    if len(parts) < 2 or any(part in ("", ".", "..") for part in parts):
        return None
    return name if name.isprintable() else None


def namespace_of(name: str) -> str | None:
    """The type of namespace that a sysctl belongs to; None where it is the host's."""
    path = path_of(name)
    if path is None:
        return None
    if path in IPC or path.startswith("fs/mqueue/"):
        return "ipc"
    if path == "kernel/domainname":
        return "uts"
    return {"net": "network", "user": "user"}.get(path.partition("/")[0])
