"""The limits of a process's cgroup, read from the kernel."""

from __future__ import annotations

from pathlib import Path


def limits(pid: str | int) -> dict[str, float]:
    """Return memory in bytes, cpu in processors, pids (0 for no limit), from files of v1 or v2."""
    groups = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path

    def read(controller: str, v1: str, v2: str) -> list[str]:
        root = Path("/sys/fs/cgroup")
        if controller in groups:
            return (root / controller / groups[controller][1:] / v1).read_text().split()
        return (root / groups[""][1:] / v2).read_text().split()

    quota = read("cpu", "cpu.cfs_quota_us", "cpu.max")
    period = read("cpu", "cpu.cfs_period_us", "cpu.max")
    pids = read("pids", "pids.max", "pids.max")[0]
    return {
        "memory": int(read("memory", "memory.limit_in_bytes", "memory.max")[0]),
        "cpu": int(quota[0]) / int(period[-1]),
        "pids": 0 if pids == "max" else int(pids),
    }
