"""The allow-list of sysctls that a container may set: namespaced ones only (statement I24).

Follows sysctl(2), namespaces(7) and Docker: a sysctl of a namespace that is shared with the host
cannot be set. Names may have dots or slashes, as in sysctl(8): the first separator decides.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from jaula.errors import InvalidRequest
from jaula.spec.runtime_spec import IDMapping

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
"""Sysctls below /proc/sys/net belong to the network namespace, except in the initial one. Global
ones are absent or read-only there."""

_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")


def normalize(name: str) -> str:
    """Return the path of a sysctl below /proc/sys.

    :raises InvalidRequest: when ``name`` is not a sysctl name.
    """
    for letter in name:
        if letter in "./":
            dotted = letter == "."
            break
    else:
        dotted = False
    path = name.translate(str.maketrans("./", "/.")) if dotted else name
    parts = path.split("/")
    if len(parts) < 2 or not all(
        part and set(part) <= _ALLOWED and part.strip(".") for part in parts
    ):
        raise InvalidRequest(
            f"sysctl {name[:128]!r} is not a name", hint="such as net.core.somaxconn"
        )
    return path


UNPRIVILEGED_PORT_START = "net.ipv4.ip_unprivileged_port_start"
PING_GROUP_RANGE = "net.ipv4.ping_group_range"
_ALL_GROUPS = (0, 2147483647)


def network_defaults(gid_mappings: Sequence[IDMapping]) -> dict[str, str]:
    """Return the sysctls that Docker sets in a network namespace of a container's own.

    Every program may bind ports below 1024, and send ICMP echo requests without a raw socket.
    ``gid_mappings`` are the container's, empty without a user namespace. The kernel compares the
    host's ids of the range, so it goes from the group with the lowest of them to the highest. Pure.
    """
    rows = sorted(gid_mappings, key=lambda row: row.host_id)
    low, high = _ALL_GROUPS
    if rows:
        low, high = rows[0].container_id, rows[-1].container_id + rows[-1].size - 1
    return {UNPRIVILEGED_PORT_START: "0", PING_GROUP_RANGE: f"{low} {high}"}


def with_network_defaults(
    requested: Mapping[str, str], gid_mappings: Sequence[IDMapping]
) -> dict[str, str]:
    """Return the requested sysctls and the defaults that they do not replace. Pure."""
    defaults = network_defaults(gid_mappings)
    if not requested:
        return defaults
    names = {normalize(name) for name in requested}
    return {
        **{name: value for name, value in defaults.items() if normalize(name) not in names},
        **requested,
    }


def check(name: str, value: str, shared: Collection[str]) -> None:
    """Check that a container may set a sysctl.

    ``shared`` are the namespaces that it shares with the host: ``network``, ``ipc``, ``uts``.

    :raises InvalidRequest: when the sysctl is not of its own namespaces or the value is not valid.
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
            hint="a container may set sysctls of its namespaces: net.*, kernel.msg*, kernel.shm*, "
            "kernel.sem, kernel.domainname, fs.mqueue.*",
        )
    if kind in shared:
        raise InvalidRequest(f'sysctl "{name}" not allowed in host {kind} namespace')
    if not value or len(value) > 1024 or not value.replace("\t", "").isprintable():
        raise InvalidRequest(f"sysctl '{name}' needs a value of one line")
