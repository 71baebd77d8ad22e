"""An engine that is killed at a chosen step of a rollback, or whose restores meet an obstacle.

A step is a change of a directory (mkdir, rename, rmdir), a write of a record, or a call of a method
of the rollback; see :mod:`counted_steps`. An obstacle is named by the file ``obstacle`` beside
FAULT: its name in :data:`OBSTACLES`, and ``all`` if the restore of the former state meets it, too.
``full`` and ``lost`` are faults of the record that a checkpoint of a running container writes last.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from counted_steps import CountedSteps, main

OBSTACLE = Path(sys.argv[1]).with_name("obstacle")


def replace(steps: CountedSteps) -> None:
    from jaula.engine.model.container_store import ContainerStore
    from jaula.features.checkpoint.checkpoints import Checkpoints
    from jaula.features.checkpoint.rollback_container import Rollbacks

    for name in ("mkdir", "rename", "rmdir"):
        steps.count(os, name)
    steps.count(ContainerStore, "save", ends=True)
    steps.count(Checkpoints, "save_and_end", ends=True)
    for name in ("_complete", "_continue", "_undo", "_clear"):
        steps.count(Rollbacks, name)
    steps.during(Rollbacks, "rollback")
    _meet_obstacles()


def _meet_obstacles() -> None:
    from jaula.engine.containers.start import Starter
    from jaula.engine.model.container_store import ContainerStore
    from jaula.errors import Unavailable

    save = ContainerStore.save

    def save_record(self: Any, container: Any) -> None:
        text = OBSTACLE.read_text() if OBSTACLE.exists() else ""
        is_ending = container.live and container.record.manually_stopped
        if text == "full" and is_ending:
            raise Unavailable("no space left on device")
        save(self, container)
        if text == "lost" and is_ending:
            os.kill(container.shim.shim_pid, signal.SIGKILL)

    ContainerStore.save = save_record  # type: ignore[method-assign]
    ask: Callable[..., Any] = Starter._ask_runtime

    async def ask_runtime(self: Any, container: Any, request: Any, *args: Any) -> Any:
        text = OBSTACLE.read_text() if OBSTACLE.exists() else ""
        name, _, which = text.partition(" ")
        restore = request.restore if name in OBSTACLES else None
        if restore is not None and (which == "all" or "/before-rollback-" not in restore.images):
            OBSTACLES[name](container, request)
        return await ask(self, container, request, *args)

    Starter._ask_runtime = ask_runtime  # type: ignore[method-assign]


def _fail(container: Any, request: Any) -> None:
    from jaula.errors import RuntimeFailure

    raise RuntimeFailure("an obstacle")


def _damage(container: Any, request: Any) -> None:
    os.unlink(f"{request.restore.images}/pages-1.img")


def _remove_source(container: Any, request: Any) -> None:
    for mount in container.record.mounts:
        if mount.type == "bind":
            os.unlink(mount.source)


def _limit_memory(container: Any, request: Any) -> None:
    path = Path(request.bundle, "config.json")
    spec = json.loads(path.read_bytes())
    spec["linux"]["resources"]["memory"] = {"limit": 256 << 10, "swap": 256 << 10}
    path.write_text(json.dumps(spec))


def _kill_criu(container: Any, request: Any) -> None:
    def kill() -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            shim = container.starting.shim_pid if container.starting is not None else 0
            for pid in _programs("/criu"):
                if {shim, os.getpid()} & _ancestors(pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    return
            time.sleep(0.001)

    threading.Thread(target=kill, daemon=True).start()


def _programs(end: str) -> list[int]:
    """Return the processes whose program's path ends so."""
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(ValueError, OSError):
            if os.readlink(f"/proc/{int(entry)}/exe").endswith(end):
                found.append(int(entry))
    return found


def _ancestors(pid: int) -> set[int]:
    found: set[int] = set()
    with contextlib.suppress(OSError):
        while pid > 1:
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
            pid = int(text.rpartition(")")[2].split()[1])
            found.add(pid)
    return found


OBSTACLES = {
    "fail": _fail,
    "damage": _damage,
    "source": _remove_source,
    "memory": _limit_memory,
    "criu": _kill_criu,
}

if __name__ == "__main__":
    main(replace)
