"""``jaula tree``: processes as the host sees them, with the namespaces that change at each one.

In the manner of ``pstree -S``: behind a name stand the pid and the namespaces in which the process
differs from its parent. Evidence: /proc/<pid>/stat and the links in /proc/<pid>/ns. A process whose
links may not be read shows ``?``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

import msgspec

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


class ProcessEntry(msgspec.Struct, frozen=True):
    """``namespaces`` is None where they may not be read."""

    pid: int
    parent: int
    name: str
    namespaces: Mapping[str, str] | None = None


class Node(msgspec.Struct, frozen=True):
    """A process to draw: its text and what is below it."""

    text: str
    children: tuple[Node, ...] = ()


def processes(proc_root: str = "/proc") -> dict[int, ProcessEntry]:
    """Every process; those that end meanwhile are left out."""
    found = {}
    for name in os.listdir(proc_root):
        if name.isascii() and name.isdigit():
            try:
                entry = _read(proc_root, int(name))
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[entry.pid] = entry
    return found


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
    clean = "".join(c if c.isprintable() else "?" for c in name)
    return ProcessEntry(pid, int(tail.split()[1]), clean, namespaces if readable else None)


def build(entries: Mapping[int, ProcessEntry], roots: Sequence[int] = ()) -> tuple[Node, ...]:
    """What to draw: everything below process 1, or ``roots`` with their ancestors and all below.

    A root that does not exist gives no node.
    """
    below: dict[int, list[int]] = {}
    for entry in entries.values():
        below.setdefault(entry.parent, []).append(entry.pid)
    shown: set[int] | None = None
    if roots:
        shown = set()
        for root in roots:
            if root in entries:
                shown |= set(_ancestors(entries, root)) | set(_descendants(below, root))
    tops = sorted(
        pid
        for pid, entry in entries.items()
        if (shown is None or pid in shown)
        and (entry.parent not in entries or (shown is not None and entry.parent not in shown))
    )
    if shown is None:
        tops = [pid for pid in tops if entries[pid].name != "kthreadd"]
    return tuple(_node(entries, below, shown, top) for top in tops)


def _ancestors(entries: Mapping[int, ProcessEntry], pid: int) -> Iterable[int]:
    seen: set[int] = set()
    while pid in entries and pid not in seen:
        seen.add(pid)
        yield pid
        pid = entries[pid].parent


def _descendants(below: Mapping[int, Sequence[int]], pid: int) -> Iterable[int]:
    waiting, seen = [pid], set()
    while waiting:
        at = waiting.pop()
        if at not in seen:
            seen.add(at)
            yield at
            waiting += below.get(at, ())


def _node(
    entries: Mapping[int, ProcessEntry],
    below: Mapping[int, Sequence[int]],
    shown: set[int] | None,
    pid: int,
) -> Node:
    entry = entries[pid]
    children = tuple(
        _node(entries, below, shown, child)
        for child in sorted(below.get(pid, ()), key=lambda c: (entries[c].name, c))
        if (shown is None or child in shown) and child != pid
    )
    return Node(f"{entry.name}({','.join((str(pid), *changes(entries, entry)))})", children)


def changes(entries: Mapping[int, ProcessEntry], entry: ProcessEntry) -> tuple[str, ...]:
    """Namespaces in which a process differs from its parent, by name."""
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
    """Lines in pstree's ASCII form."""
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


def render(roots: Sequence[int] = (), proc_root: str = "/proc") -> str:
    """The tree as text; see :func:`build` for ``roots``."""
    nodes = build(processes(proc_root), roots)
    return "\n".join(line for node in nodes for line in draw(node))
