"""Which sysctls a container may set: namespaced ones, by allow-list (statement I24).

Follows sysctl(2), namespaces(7) and Docker for the names and the rule that a namespace which is
shared with the host cannot be changed. Names may be written with dots or slashes, as sysctl(8)
allows: the first separator that occurs decides.
"""

from __future__ import annotations

from collections.abc import Collection

from jaula.errors import InvalidRequest

IPC: frozenset[str] = frozenset(
    {
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
        "fs/mqueue/msg_default",
        "fs/mqueue/msg_max",
        "fs/mqueue/msgsize_default",
        "fs/mqueue/msgsize_max",
        "fs/mqueue/queues_max",
    }
)
UTS: frozenset[str] = frozenset({"kernel/domainname"})
NETWORK_PREFIX = "net/"
"""What is below /proc/sys/net in a network namespace other than the first is that namespace's own:
the kernel does not show the global ones there, or shows them read-only."""

_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")


def normalize(name: str) -> str:
    """The path below /proc/sys; raises ``InvalidRequest`` for what is none."""
    for letter in name:
        if letter in "./":
            swap = letter == "."
            break
    else:
        swap = False
    path = name.translate(str.maketrans("./", "/.")) if swap else name
    parts = path.split("/")
    if len(parts) < 2 or not all(
        part and set(part) <= _ALLOWED and part.strip(".") for part in parts
    ):
        raise InvalidRequest(
            f"sysctl {name[:128]!r} is not a name", hint="such as net.core.somaxconn"
        )
    return path


def check(name: str, value: str, shares: Collection[str]) -> None:
    """Refuse a sysctl that is not the container's own.

    ``shares`` names the namespaces that it shares with the host: ``network``, ``ipc``, ``uts``.
    """
    path = normalize(name)
    kind = (
        "ipc"
        if path in IPC
        else "uts"
        if path in UTS
        else "network"
        if path.startswith(NETWORK_PREFIX)
        else None
    )
    if kind is None:
        raise InvalidRequest(
            f"sysctl '{name}' is not allowed",
            hint="only those of a container's own namespaces are: net.*, kernel.msg*, kernel.shm*, "
            "kernel.sem, kernel.domainname, fs.mqueue.*",
        )
    if kind in shares:
        raise InvalidRequest(f'sysctl "{name}" not allowed in host {kind} namespace')
    if not value or len(value) > 1024 or not all(c.isprintable() or c == "\t" for c in value):
        raise InvalidRequest(f"sysctl '{name}' needs one value on one line")
