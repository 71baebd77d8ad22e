"""``jaula tree``: host processes, with the namespaces in which each differs from its parent.

The format is that of ``pstree -S``: after the name stand the pid and the changed namespaces.
Evidence: /proc/<pid>/stat and the links in /proc/<pid>/ns. A process whose links are not readable
shows ``?``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import msgspec

_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


class ProcessEntry(msgspec.Struct, frozen=True):
    """A process; ``namespaces`` is None if they are not readable."""

    pid: int
    parent: int
    name: str
    namespaces: Mapping[str, str] | None = None
    cgroups: str = ""  # content of /proc/<pid>/cgroup; '' if it is not known


class Node(msgspec.Struct, frozen=True):
    """A process to draw: its text and its children."""

    text: str
    children: tuple[Node, ...] = ()


def processes(proc_root: str = "/proc") -> dict[int, ProcessEntry]:
    """Return every process, except those that exit."""
    entries = {}
    for name in os.listdir(proc_root):
        if name.isascii() and name.isdigit():
            try:
                entry = _read(proc_root, int(name))
            except (FileNotFoundError, ProcessLookupError):
                continue
            entries[entry.pid] = entry
    return entries


def _read(proc_root: str, pid: int) -> ProcessEntry:
    with open(f"{proc_root}/{pid}/stat", encoding="utf-8", errors="replace") as file:
        head, _, tail = file.read().rpartition(")")
    name = head.partition("(")[2]
    namespaces: dict[str, str] = {}
    readable = True
    for kind in KINDS:
        try:
            namespaces[kind] = os.readlink(f"{proc_root}/{pid}/ns/{kind}")
        except PermissionError:
            readable = False
            break
        except FileNotFoundError:  # a kernel without this kind, or a zombie
            continue
    try:
        with open(f"{proc_root}/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            cgroups = file.read()
    except OSError:  # the process exits, or the kernel has no cgroups
        cgroups = ""
    clean = "".join(c if c.isprintable() else "?" for c in name)
    parent = int(tail.split()[1])
    return ProcessEntry(pid, parent, clean, namespaces if readable else None, cgroups)


def membership(entries: Mapping[int, ProcessEntry], first: Mapping[int, str]) -> dict[int, str]:
    """Return the container of each process that is in one. Pure.

    ``first`` has the ids of containers by their first process. The cgroup decides: a process of an
    exec has the shim as its parent, and one that has lost its parent is adopted by a process
    that may be another container's. The outermost cgroup with an id counts, since a container
    chooses the names of those below its own. If the first process has no such cgroup, the
    processes below it are the container's.
    """
    ids = frozenset(first.values())
    found = {pid: id for pid, entry in entries.items() if (id := _container(entry.cgroups, ids))}
    without = {pid: id for pid, id in first.items() if pid in entries and pid not in found}
    known = frozenset(found)  # by their cgroups
    for pid in entries if without else ():
        path, current = set[int](), pid
        while current in entries and current not in without and current not in path:
            path.add(current)
            current = entries[current].parent
        if current in without and not path & known:
            found[pid] = without[current]
    return found


def _container(cgroups: str, ids: frozenset[str]) -> str:
    """Return the id in the outermost cgroup that has one of ``ids`` in its name, '' if none has."""
    for line in cgroups.splitlines():
        for name in line.partition(":")[2].partition(":")[2].split("/"):
            for word in _ID.findall(name):
                if word in ids:
                    return str(word)
    return ""


def build(
    entries: Mapping[int, ProcessEntry],
    roots: Sequence[int] = (),
    groups: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> tuple[Node, ...]:
    """Return the trees to draw: all below process 1, or ``roots`` with ancestors and descendants.

    A root that does not exist gives no node. ``groups`` has the first processes of containers by
    the name of their pod: the parents of these processes, the shims, are drawn below that name.
    """
    shims = {
        entries[pid].parent: name for name, pids in groups.items() for pid in pids if pid in entries
    }
    children: dict[int, list[int]] = {}
    for entry in entries.values():
        children.setdefault(entry.parent, []).append(entry.pid)
    selected: set[int] | None = None
    if roots:
        selected = set()
        for root in roots:
            if root in entries:
                selected |= set(_ancestors(entries, root)) | set(_descendants(children, root))
    tops = sorted(
        pid
        for pid, entry in entries.items()
        if (selected is None or pid in selected)
        and (entry.parent not in entries or (selected is not None and entry.parent not in selected))
    )
    if selected is None:
        tops = [pid for pid in tops if entries[pid].name != "kthreadd"]
    return tuple(_grouped(entries, children, selected, shims, tops))


def _ancestors(entries: Mapping[int, ProcessEntry], pid: int) -> Iterable[int]:
    visited: set[int] = set()
    while pid in entries and pid not in visited:
        visited.add(pid)
        yield pid
        pid = entries[pid].parent


def _descendants(children: Mapping[int, Sequence[int]], pid: int) -> Iterable[int]:
    pending, visited = [pid], set()
    while pending:
        current = pending.pop()
        if current not in visited:
            visited.add(current)
            yield current
            pending += children.get(current, ())


def _node(
    entries: Mapping[int, ProcessEntry],
    children: Mapping[int, Sequence[int]],
    selected: set[int] | None,
    shims: Mapping[int, str],
    pid: int,
) -> Node:
    entry = entries[pid]
    below = [
        child
        for child in sorted(children.get(pid, ()), key=lambda c: (entries[c].name, c))
        if (selected is None or child in selected) and child != pid
    ]
    return Node(
        f"{entry.name}({','.join((str(pid), *changes(entries, entry)))})",
        tuple(_grouped(entries, children, selected, shims, below)),
    )


def _grouped(
    entries: Mapping[int, ProcessEntry],
    children: Mapping[int, Sequence[int]],
    selected: set[int] | None,
    shims: Mapping[int, str],
    pids: Sequence[int],
) -> Iterator[Node]:
    """Yield the nodes of processes with one parent: those of a pod below its name, at the end."""
    pods: dict[str, list[Node]] = {}
    for pid in pids:
        node = _node(entries, children, selected, shims, pid)
        if (name := shims.get(pid)) is None:
            yield node
        else:
            pods.setdefault(name, []).append(node)
    for name in sorted(pods):
        yield Node("".join(c if c.isprintable() else "?" for c in name), tuple(pods[name]))


def changes(entries: Mapping[int, ProcessEntry], entry: ProcessEntry) -> tuple[str, ...]:
    """Return the namespaces in which a process differs from its parent."""
    parent = entries.get(entry.parent)
    if parent is None or parent.namespaces is None:
        return ()
    if entry.namespaces is None:
        return ("?",)
    return tuple(
        kind
        for kind in KINDS
        if kind in entry.namespaces
        and kind in parent.namespaces
        and entry.namespaces[kind] != parent.namespaces[kind]
    )


def draw(node: Node) -> list[str]:
    """Return the lines in pstree's ASCII form."""
    if not node.children:
        return [node.text]
    lines = []
    indent = " " * len(node.text)
    last = len(node.children) - 1
    for number, child in enumerate(node.children):
        inner = draw(child)
        if last == 0:
            first, rest = "---", "   "
        elif number == 0:
            first, rest = "-+-", " | "
        elif number == last:
            first, rest = " `-", "   "
        else:
            first, rest = " |-", " | "
        lines.append((node.text if number == 0 else indent) + first + inner[0])
        lines += [indent + rest + line for line in inner[1:]]
    return lines


def render(
    roots: Sequence[int] = (),
    proc_root: str = "/proc",
    groups: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> str:
    """Return the tree as text; :func:`build` describes ``roots`` and ``groups``."""
    nodes = build(processes(proc_root), roots, groups)
    return "\n".join(line for node in nodes for line in draw(node))
