"""A process of the host: its parent, namespaces and cgroups."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

KINDS = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
"""Entries of /proc/<pid>/ns that are compared."""


class HostProcess(msgspec.Struct, frozen=True):
    """``namespaces`` are links of /proc/<pid>/ns; ``cgroups`` are (controllers, path).

    ``uids`` and ``gids`` are all ids that the process has or can change to without a capability,
    as the reader's user namespace shows them.
    """

    pid: int
    parent: int
    session: int
    name: str
    namespaces: Mapping[str, str]
    cgroups: tuple[tuple[str, str], ...]
    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()


def read_process(proc_root: str, pid: int) -> HostProcess | None:
    """Return a process; None if it has exited or this user may not read it."""
    directory = f"{proc_root}/{pid}"
    try:
        with open(f"{directory}/stat", encoding="utf-8", errors="replace") as file:
            name, _, fields = file.read().partition("(")[2].rpartition(") ")
        state, parent, _, session = fields.split(" ", 4)[:4]
        if state in "ZX":
            return None
        namespaces = {kind: os.readlink(f"{directory}/ns/{kind}") for kind in KINDS}
        with open(f"{directory}/cgroup", encoding="utf-8", errors="replace") as file:
            cgroups = parse_cgroups(file.read())
        with open(f"{directory}/status", encoding="utf-8", errors="replace") as file:
            uids, gids = parse_ids(file.read())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return HostProcess(pid, int(parent), int(session), name, namespaces, cgroups, uids, gids)


def parse_ids(status: str) -> tuple[frozenset[int], frozenset[int]]:
    """Return the user and group ids in /proc/<pid>/status, supplementary groups included. Pure."""
    fields = {"Uid": frozenset[int](), "Gid": frozenset[int](), "Groups": frozenset[int]()}
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name in fields:
            fields[name] = frozenset(map(int, value.split()))
    return fields["Uid"], fields["Gid"] | fields["Groups"]


def parse_cgroups(text: str) -> tuple[tuple[str, str], ...]:
    """Return (controllers, path) of each hierarchy in /proc/<pid>/cgroup; '' is the v2 one."""
    rows = (line.split(":", 2) for line in text.splitlines())
    return tuple((names, path) for _, names, path in rows)
