"""Shims of containers that do not run, by the kernel's list of processes.

A shim holds the log or a cgroup of its container open, which tells whose it is. After the exit it
lives on until attached clients have read the output.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from functools import partial

from jaula.cgroups.cgroup_path import PREFIX, parent_path
from jaula.engine.fsck.problem import FsckInputs, Problem
from jaula.kernel import process_calls
from jaula.runtime.runtime_client import is_shim
from jaula.runtime.shim.stdio_relay import DRAIN_TIMEOUT

_ID = re.compile(rf"(?:{PREFIX}-)?([0-9a-f]{{64}})")  # of a directory, or of a scope


def check(inputs: FsckInputs) -> Iterator[Problem]:
    """Yield the shims of this engine whose container does not run."""
    ended = {record.id: record.finished_at / 1e9 for record in inputs.records}
    for container_id, pid in inputs.strays(lambda: _shims(inputs)):
        if time.time() - ended.get(container_id, 0.0) < 2 * DRAIN_TIMEOUT:
            continue
        repair = partial(_kill, inputs, container_id, pid)
        problem = f"it is the shim of {container_id}, which does not run"
        yield Problem("shim", pid, problem, "it is killed", repair, container_id)


def _shims(inputs: FsckInputs) -> Iterator[tuple[str, str]]:
    """Yield the container id and the pid of each shim of this engine.

    A container of another engine may be below this one's cgroup parent.
    """
    claims = inputs.services.claims
    foreign = claims.foreign_containers() if claims is not None else set()
    for pid in os.listdir("/proc"):
        container_id = _container_of(inputs, pid) if pid.isdigit() else ""
        if container_id and container_id not in foreign:
            yield container_id, pid


def _container_of(inputs: FsckInputs, pid: str) -> str:
    """Return the id of the container whose shim a process is, or ''."""
    config = inputs.services.config
    paths = config.paths
    parents = (
        f"{paths.root}/containers/",
        f"{paths.run}/containers/",
        f"{parent_path(config.cgroup_parent, systemd=config.systemd_cgroups)}/",
    )
    try:
        if not is_shim(int(pid)):
            return ""
        for fd in os.listdir(f"/proc/{pid}/fd"):
            name = process_calls.fd_name(pid, fd)
            for parent in parents:
                _, separator, rest = name.partition(parent)
                if separator and (match := _ID.match(rest)):
                    return match[1]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""  # it has exited, or is another user's
    return ""


def _kill(inputs: FsckInputs, container_id: str, pid: str) -> None:
    process_calls.kill_if(int(pid), lambda _: _container_of(inputs, pid) == container_id)
