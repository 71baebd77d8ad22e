"""Start the program of sandboxed processes: one process, or the server that forks them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from jaula.sandbox.sandbox_limits import Limits, Rights, worker_ids

_PROGRAM = str(Path(__file__).with_name("sandbox_program.py"))
_OOM_SCORE_ADJ = "800"
"""Less than a spare shim's 1000: in a small cgroup a spare process makes room for a parser."""
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "MALLOC_ARENA_MAX": "1"}


class Task(NamedTuple):
    """What a sandboxed process does. ``subject`` names the bytes in its errors.

    ``function`` is ``module:name``; ``name`` is what ps(1) shows, at most 15 characters.
    """

    name: str
    subject: str
    function: str


def ids() -> tuple[int, int]:
    """Return the user and group id of a sandboxed process of this host."""
    uid_map, gid_map = (
        Path(f"/proc/self/{name}").read_text(encoding="ascii") for name in ("uid_map", "gid_map")
    )
    return worker_ids(uid_map, gid_map, os.geteuid(), os.getegid())


def start(
    task: Task, *, limits: Limits, rights: Rights, descriptors: Sequence[int]
) -> subprocess.Popen[bytes]:
    """Start a sandboxed process of its own, whose function gets the descriptors.

    Each descriptor keeps its number.
    """
    settings = {**work(task, limits, rights), "descriptors": list(descriptors)}
    return execute(settings, descriptors)


def execute(settings: dict[str, Any], descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
    """Execute the program of sandboxed processes. Each descriptor keeps its number."""
    settings = {
        "path": [os.path.abspath(path) for path in sys.path if path],
        "ids": ids(),
        **settings,
    }
    started = subprocess.Popen(
        [sys.executable, "-I", "-S", "-X", "utf8", _PROGRAM, json.dumps(settings)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_ENVIRONMENT,
        cwd="/",
        pass_fds=descriptors,
        start_new_session=True,
    )
    raise_oom_score(started.pid)
    return started


def raise_oom_score(pid: int) -> None:
    """Let the kernel kill a sandboxed process before the engine when memory runs out.

    The engine calls this for each child that it has executed, whose interpreter takes memory before
    its own first line. What that child forks, as git(1) and its helpers, has the score too.
    """
    # An ordinary user may not write to a child that is confined already, which takes it 50 ms.
    with suppress(PermissionError, ProcessLookupError):  # the latter: it has ended already
        Path(f"/proc/{pid}/oom_score_adj").write_text(_OOM_SCORE_ADJ, encoding="ascii")


def work(task: Task, limits: Limits, rights: Rights) -> dict[str, Any]:
    """Return the settings of a process for its work."""
    return {
        "name": task.name,
        "function": task.function,
        "limits": msgspec.to_builtins(limits),
        "rights": msgspec.to_builtins(rights),
    }
