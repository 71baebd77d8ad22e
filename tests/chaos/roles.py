"""The processes of one engine by role: engine, zygote, spare shim, shim, helper, stage and init.

Facts about names: zygote, shim, helper and stage are forks of the engine's command, so their
command line names the engine's directories; ``comm`` says which. A process of a container has the
engine's cgroup parent in /proc/PID/cgroup.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from harness.engine import PrivateEngine

ROLES = ("engine", "zygote", "shim", "helper", "stage", "init")
_ID = re.compile(r"\b[0-9a-f]{64}\b")


@dataclass(frozen=True)
class Process:
    """One process, as /proc describes it."""

    pid: int
    parent: int
    comm: str
    role: str
    container: str  # its id, or '' if no file of the process names one


def children(pid: int) -> list[int]:
    """Return the children of a process; a process that has exited has none."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(word) for word in (task / "children").read_text().split()]
    return found


def comm(pid: int) -> str:
    """Return the name of a process, or '' if it has exited."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def container_of(pid: int) -> str:
    """Return the id in the cgroup, or else in the open files of a process, or ''."""
    with contextlib.suppress(OSError):
        match = _ID.search(Path(f"/proc/{pid}/cgroup").read_text())
        if match:
            return match[0]
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                match = _ID.search(os.readlink(f"/proc/{pid}/fd/{fd}"))
                if match:
                    return match[0]
    return ""


def zygote(engine: PrivateEngine) -> int:
    """Return the zygote's pid, or 0 if none lives."""
    if engine.process is None:
        return 0
    names = ((pid, comm(pid)) for pid in children(engine.process.pid))
    return next((pid for pid, name in names if name == "jaula-zygote"), 0)


def role_in_start(process: Process) -> str:
    """Return the role in the next start of a (spare) shim or its helper; '' for others."""
    if process.role == "spare":
        return "shim" if children(process.pid) else "helper"
    return "shim" if process.role == "shim" else ""


def processes(engine: PrivateEngine) -> list[Process]:
    """Return every process of the engine and of its containers."""
    marks = (str(engine.root).encode(), str(engine.run).encode())
    found: dict[int, tuple[int, str, bool]] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            command = (directory / "cmdline").read_bytes()
            inside = f"/{engine.cgroup_parent}/" in (directory / "cgroup").read_text()
            if not inside and not any(mark in command for mark in marks):
                continue
            head, _, tail = (directory / "stat").read_text().rpartition(")")
            parent = int(tail.split()[1])
            found[int(directory.name)] = (parent, head.partition("(")[2], inside)
    main = engine.process.pid if engine.process is not None else 0
    answer = []
    for pid, (parent, name, inside) in found.items():
        above = found.get(parent, (0, "", False))
        if pid == main:
            role = "engine"
        elif name == "jaula-zygote" and parent == main:
            role = "zygote"
        elif name == "jaula-zygote" and above[1] == "jaula-zygote":
            role = "spare"  # or its helper
        elif name == "jaula-shim" and inside:
            role = "stage"  # or init before its program
        elif name == "jaula-shim" and above[1] == "jaula-shim":
            role = "helper"
        elif name == "jaula-shim":
            role = "shim"
        elif inside and above[1] == "jaula-shim":
            role = "init"  # or the program of an exec
        else:
            role = "other"
        answer.append(Process(pid, parent, name, role, container_of(pid)))
    return answer
