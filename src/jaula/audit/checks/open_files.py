"""Open files of the first process that lead out of the container (statement I1).

Evidence: the links in /proc/<pid>/fd and the mount ids in fdinfo. What the program opened since its
start cannot be told from what it inherited, so the question is where each one leads: a path on a
mount that the container's table does not have, or a namespace, is a way out. Pipes, sockets, the
null device and terminals as 0 to 2 are how the engine speaks with the program.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, verdict_of

NULL = (1, 3)
TERMINALS = range(136, 144)  # majors of pseudoterminals (Documentation/admin-guide/devices.txt)


INFO = CheckInfo(
    id="descriptors",
    layer="descriptors",
    title="Open files",
    reason="A descriptor that leads outside is a way out that no mount table shows.",
    references=("I1", "CVE-2024-21626", "CVE-2016-9962"),
    evidence="/proc/<pid>/fd, fdinfo",
    advice="restart it, and report it: the runtime passes nothing beyond 0 to 2",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """One row."""
    known = {mount.mount_id for mount in container.mounts}
    outside, count = [], 0
    for name in sorted(os.listdir(container.path("fd")), key=int):
        try:
            target = container.link(f"fd/{name}")
            mount = _mount_id(container.read(f"fdinfo/{name}"))
            facts = os.stat(container.path(f"fd/{name}"))
        except FileNotFoundError:  # closed meanwhile
            continue
        count += 1
        if stat.S_ISFIFO(facts.st_mode):
            continue  # a pipe; under SELinux one that has a name, and so a label
        if leads_out(int(name), target, mount in known, _device(facts)):
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
    """Whether an open file is a way out of the container; ``device`` where it is a character one.

    The null device and terminals are told by number: on a mount that the reader does not have, the
    kernel shows only what is left of the path.
    """
    if target.startswith("/"):
        if mount_known or target.startswith("/memfd:"):
            return False
        harmless = device is not None and (device == NULL or device[0] in TERMINALS)
        return not (number <= 2 and harmless)
    kind = target.partition(":")[0]
    return kind in ("mnt", "net", "pid", "user", "uts", "ipc", "cgroup", "time")


def _device(facts: os.stat_result) -> tuple[int, int] | None:
    if not stat.S_ISCHR(facts.st_mode):
        return None
    return os.major(facts.st_rdev), os.minor(facts.st_rdev)


def _mount_id(text: str) -> int:
    for line in text.splitlines():
        if line.startswith("mnt_id:"):
            return int(line.split()[1])
    return -1
