"""Open files of the init process that refer outside the container (statement I1).

Evidence: the links in /proc/<pid>/fd and the mount ids in fdinfo. Files that the program opened
cannot be distinguished from inherited ones, so each target counts: a path on a mount outside the
container's table, or a namespace, allows an escape. Pipes, sockets, the null device and terminals
on 0 to 2 connect the program with the engine.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, verdict_of

NULL = (1, 3)  # major, minor
TERMINALS = range(136, 144)  # majors of pseudoterminals (Documentation/admin-guide/devices.txt)


INFO = CheckInfo(
    id="descriptors",
    layer="descriptors",
    title="Open files",
    reason="A descriptor that refers outside allows an escape that no mount table shows.",
    references=("I1", "CVE-2024-21626", "CVE-2016-9962"),
    evidence="/proc/<pid>/fd, fdinfo",
    advice="restart it, and report it: the runtime passes only descriptors 0 to 2",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield one row."""
    mount_ids = {mount.mount_id for mount in container.mounts}
    outside, count = [], 0
    for name in sorted(os.listdir(container.path("fd")), key=int):
        try:
            target = container.link(f"fd/{name}")
            mount = _mount_id(container.read(f"fdinfo/{name}"))
            status = os.stat(container.path(f"fd/{name}"))
        except FileNotFoundError:  # it has been closed
            continue
        count += 1
        if stat.S_ISFIFO(status.st_mode):
            continue  # a pipe; under SELinux it may be named, to have a label
        if leads_out(int(name), target, mount in mount_ids, _device(status)):
            outside.append(f"{name} -> {target}")
    effective = f"{count} open" + (
        f"; outside: {', '.join(outside)}" if outside else ", none outside"
    )
    yield Result(
        "descriptors", "descriptors", "none leads outside", effective, container.path("fd"),
        verdict_of(not outside, None),
    )  # fmt: skip


def leads_out(
    number: int, target: str, mount_known: bool, device: tuple[int, int] | None = None
) -> bool:
    """Return whether an open file refers outside the container.

    ``device`` is (major, minor) of a character device, else None. The null device and terminals are
    recognised by number: on a mount that the reader does not have, the kernel shows only the rest
    of the path.
    """
    if target.startswith("/"):
        if mount_known or target.startswith("/memfd:"):
            return False
        harmless = device is not None and (device == NULL or device[0] in TERMINALS)
        return not (number <= 2 and harmless)
    kind = target.partition(":")[0]
    return kind in ("mnt", "net", "pid", "user", "uts", "ipc", "cgroup", "time")


def _device(status: os.stat_result) -> tuple[int, int] | None:
    if not stat.S_ISCHR(status.st_mode):
        return None
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def _mount_id(text: str) -> int:
    for line in text.splitlines():
        if line.startswith("mnt_id:"):
            return int(line.split()[1])
    return -1
