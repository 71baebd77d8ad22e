"""Kernel data of a process, read by the tour itself and not through the engine."""

from __future__ import annotations

import os
from pathlib import Path

NAMESPACES = ("ipc", "mnt", "net", "pid", "user", "uts", "cgroup")


def namespaces(pid: int | str) -> dict[str, str]:
    """Return the links in ``/proc/PID/ns`` by kind."""
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in NAMESPACES}


def status(pid: int | str, *names: str) -> dict[str, str]:
    """Return lines of ``/proc/PID/status`` by their names."""
    rows = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: text.strip() for name, _, text in rows if name in names}


def cgroup_file(pid: int, controller: str, name: str) -> tuple[Path, str]:
    """Return path and content of the file ``name`` in the process's cgroup, v1 or v2.

    :raises FileNotFoundError: when the cgroup has no such file.
    """
    unified = Path("/sys/fs/cgroup")
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            for folder in (controllers, controller):
                file = unified / folder / path.lstrip("/") / name
                if file.exists():
                    return file, file.read_text().strip()
        elif not controllers:
            file = unified / path.lstrip("/") / name
            if file.exists():
                return file, file.read_text().strip()
    raise FileNotFoundError(f"no {name} for process {pid}")
