"""What the kernel says about a process, read by the tour itself and not through the engine."""

from __future__ import annotations

import os
from pathlib import Path

NAMESPACES = ("ipc", "mnt", "net", "pid", "user", "uts", "cgroup")


def namespaces(pid: int | str) -> dict[str, str]:
    """``/proc/PID/ns``: kind and the link's text."""
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in NAMESPACES}


def status(pid: int | str, *names: str) -> dict[str, str]:
    """Lines of ``/proc/PID/status`` by their names."""
    rows = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: text.strip() for name, _, text in rows if name in names}


def cgroup_file(pid: int, controller: str, name: str) -> tuple[Path, str]:
    """The file ``name`` of the process's cgroup, for a v1 hierarchy or the unified one."""
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
