"""Open files of the first process that lead out of the container (statement I1).

Evidence: the links in /proc/<pid>/fd and the mount ids in fdinfo. What the program opened since its
start cannot be told from what it inherited, so the question is where each one leads: a path on a
mount that the container's table does not have, or a namespace, is a way out. Pipes, sockets, the
null device and terminals as 0 to 2 are how the engine speaks with the program.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from jaula.audit.row import Row, judge
from jaula.audit.subject import Subject

STANDARD = ("/dev/null", "/dev/pts/", "/dev/console", "/dev/ptmx", "/dev/tty")


def check(subject: Subject) -> Iterator[Row]:
    """One row."""
    known = {mount.mount_id for mount in subject.mounts}
    outside, count = [], 0
    for name in sorted(os.listdir(subject.path("fd")), key=int):
        try:
            target = subject.link(f"fd/{name}")
            mount = _mount_id(subject.read(f"fdinfo/{name}"))
        except FileNotFoundError:  # closed meanwhile
            continue
        count += 1
        if leads_out(int(name), target, mount in known):
            outside.append(f"{name} -> {target}")
    effective = f"{count} open" + (
        f"; outside: {', '.join(outside)}" if outside else ", none outside"
    )
    yield Row(
        "descriptors", "descriptors", "none leads outside", effective, subject.path("fd"),
        judge(not outside, None),
    )  # fmt: skip


def leads_out(number: int, target: str, mount_known: bool) -> bool:
    """Whether an open file is a way out of the container."""
    if target.startswith("/"):
        if mount_known or target.startswith("/memfd:"):
            return False
        return not (number <= 2 and target.startswith(STANDARD))
    kind = target.partition(":")[0]
    return kind in ("mnt", "net", "pid", "user", "uts", "ipc", "cgroup", "time")


def _mount_id(text: str) -> int:
    for line in text.splitlines():
        if line.startswith("mnt_id:"):
            return int(line.split()[1])
    return -1
