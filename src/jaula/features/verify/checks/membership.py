"""Membership: every process inside is in the container's cgroups and namespaces, and no other is.

Evidence: /proc/<pid>/cgroup and ns of every process of the host. A process outside its cgroup has
no limits; one in a namespace of the host is not isolated. A process of the host in the container's
cgroup uses its limits and is killed with it; one that holds a namespace of the container can
change it. Another container may share a namespace: its own report names the flag. Of a pod, only
its own containers may. A process of another user namespace with a host id of the container's range
may signal its processes and owns its files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from jaula.features.verify.checks.cgroups import CgroupDirs
from jaula.features.verify.checks.id_maps import parse
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.host_process import HostProcess
from jaula.features.verify.model.result import Result, quantity, verdict_of
from jaula.kernel.openat2 import is_within

ID_LENGTH = 64  # characters of a container id, the name of its cgroup

INFO = CheckInfo(
    id="membership",
    layer="namespaces",
    title="Members of cgroups and namespaces",
    reason="A process that is only in some of the container's cgroups and namespaces has neither "
    "its limits nor its isolation.",
    references=("I9", "I19", "I22", "CIS 5.24", "cgroups(7)", "namespaces(7)", "nsenter(1)"),
    evidence="/proc/<pid>/cgroup, ns and status of every process",
    advice="find the program that moved or joined the process; use jaula exec, not nsenter",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield rows for the processes inside, and for processes of the host."""
    inside = container.members
    bases = own_cgroups(container)
    evidence = f"{container.proc_root}/*/cgroup"
    elsewhere = [
        f"{process.name} {process.pid} at {path} ({names or 'unified'})"
        for process in inside
        for names, path in process.cgroups
        if (base := bases.get(names)) is not None and not is_within(path, base)
    ]
    yield Result(
        "process cgroups", "cgroups", f"all in {quantity(len(bases), 'tree')}",
        "; ".join(elsewhere) or f"{quantity(len(inside), 'process')}, all", evidence,
        verdict_of(not elsewhere, None),
    )  # fmt: skip
    strangers = [
        f"{process.name} {process.pid} ({names or 'unified'})"
        for names, base in bases.items()
        for process in container.snapshot.by_cgroup.get((names, base), ())
        if process not in inside and not container.is_runtime(process)
    ]
    yield Result(
        "cgroup members", "cgroups", "processes of the container only",
        "; ".join(strangers) or "no other process", evidence, verdict_of(not strangers, None),
    )  # fmt: skip
    evidence = f"{container.proc_root}/*/ns"
    hosts = [
        f"{process.name} {process.pid} is in the host's {', '.join(kinds)}"
        for process in inside
        if (kinds := _host_kinds(container, process))
    ]
    yield Result(
        "process namespaces", "namespaces", f"none of the host's {len(container.own_kinds)}",
        "; ".join(hosts) or f"{quantity(len(inside), 'process')}, none", evidence,
        verdict_of(not hosts, None),
    )  # fmt: skip
    yield _holders(container, bases, evidence)
    yield from _id_holders(container)


def own_cgroups(container: AuditedContainer) -> dict[str, str]:
    """Return the path of the container's cgroup in each hierarchy that has it, by controllers."""
    if container.rootless is not None:
        return {}  # such an engine makes no cgroups
    expected = container.linux.cgroups_path or f"/{container.container_id}"
    groups = CgroupDirs(container)
    result = {}
    for names, path in groups.entries:
        if path.endswith(expected):
            result[names] = path
        elif (root := groups.root(names)) is not None and os.path.isdir(root + expected):
            result[names] = expected  # the init process was moved out of it
    return result


def _host_kinds(container: AuditedContainer, process: HostProcess) -> list[str]:
    reader, shim = container.reader_namespaces, container.snapshot.processes.get(container.shim)
    return [
        kind
        for kind in sorted(container.own_kinds)
        if process.namespaces[kind] == reader[kind]
        or (shim is not None and process.namespaces[kind] == shim.namespaces[kind])
    ]


def _holders(container: AuditedContainer, cgroups: dict[str, str], evidence: str) -> Result:
    """Find processes outside in a namespace of the container, whose own ``cgroups`` are given."""
    parents = {os.path.dirname(path) for path in cgroups.values()}
    held: dict[int, tuple[HostProcess, list[str]]] = {}
    for kind in sorted(container.own_kinds):
        for process in container.snapshot.by_namespace.get(container.namespaces[kind], ()):
            if process not in container.members:
                held.setdefault(process.pid, (process, []))[1].append(kind)
    wrong, sharing = [], set()
    for process, kinds in held.values():
        if container.is_runtime(process):
            continue
        member = container.other_of(process)
        if member is not None:
            sharing.add(member.pod_name)
            continue
        other = None if container.pod else _container_of(process, parents)
        if other is not None:
            sharing.add(other[:12])
        else:
            wrong.append(f"{process.name} {process.pid} is in its {', '.join(kinds)}")
    by = f"shared with {', '.join(sorted(sharing))}" if sharing else None
    return Result(
        "namespace holders", "namespaces", by or "the container only",
        "; ".join(wrong) or by or "no other process", evidence, verdict_of(not wrong, by),
    )  # fmt: skip


def _id_holders(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row for processes outside that have a host id of the container's range.

    Such a process may signal the container's processes, and owns its files.
    """
    if container.rootless is not None or not container.own_user_namespace:
        return
    keeps = container.text("UsernsMode").startswith("keep-id")
    ranges = [
        [
            range(first, first + size)
            for _, first, size in parse(container.read(name))
            if not (keeps and size == 1)  # the id of the user that it keeps
        ]
        for name in ("uid_map", "gid_map")
    ]
    namespace = container.namespaces["user"]
    found = [
        f"{process.name} {process.pid} has {kind} {id}"
        for process in container.snapshot.processes.values()
        if process.namespaces["user"] != namespace
        for kind, id in held_ids(process, *ranges)
        if not container.is_runtime(process) and not _descends(container, process, namespace)
    ]
    yield Result(
        "id holders", "users", "the container only", "; ".join(found[:5]) or "no other process",
        f"{container.path('uid_map')}, {container.proc_root}/*/status", verdict_of(not found, None),
    )  # fmt: skip


def _descends(container: AuditedContainer, process: HostProcess, namespace: str) -> bool:
    """Return whether an ancestor is in the user namespace, so that this one was made inside it."""
    seen: HostProcess | None = process
    while seen is not None:
        if seen.namespaces["user"] == namespace:
            return True
        seen = container.snapshot.processes.get(seen.parent)
    return False


def held_ids(
    process: HostProcess, uids: Sequence[range], gids: Sequence[range]
) -> Iterator[tuple[str, int]]:
    """Yield the kind and number of the ids of a process that are in the ranges. Pure."""
    for kind, own, ranges in (("uid", process.uids, uids), ("gid", process.gids, gids)):
        for id in sorted(own):
            if any(id in each for each in ranges):
                yield kind, id


def _container_of(process: HostProcess, parents: set[str]) -> str | None:
    """Return the id of the other container of the engine that a process is in, or None."""
    for _, path in process.cgroups:
        for parent in parents:
            name = path.removeprefix(parent.rstrip("/") + "/").partition("/")[0]
            if path.startswith(parent.rstrip("/") + "/") and len(name) == ID_LENGTH:
                return name
    return None
