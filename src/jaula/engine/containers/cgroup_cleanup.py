"""Cgroups that outlive their container: removed again and again until they are gone.

A cgroup can be removed only when its last process has exited (kernel ``cgroup-v1/cgroups.rst`` and
``cgroup-v2.rst``), and a killed process may take its time: thousands that exit at once on a busy
machine, one that waits for a device, one that somebody has moved in from outside. The shim waits
for two seconds and goes; from then on it is for the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from jaula.engine.containers.start import cgroup_path
from jaula.errors import JaulaError, NotFound
from jaula.runtime.external import cgroup_cleanup

if TYPE_CHECKING:
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.tasks import BackgroundTasks

log = logging.getLogger("jaula.containers")
_PAUSE = 0.25  # seconds before the second try; each pause is twice the one before
_LONGEST = 30.0  # seconds


class CgroupReaper:
    """The cgroups that are being removed, by tasks of ``background``."""

    def __init__(self, parts: Services, background: BackgroundTasks) -> None:
        self._parts = parts
        self._background = background
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def remove(self, container: Container) -> None:
        """Remove the cgroup of a container that does not run; a start meanwhile ends this."""
        self.remove_path(cgroup_path(self._parts, container.record), container)

    def remove_path(self, path: str, container: Container | None = None) -> None:
        """The same by the cgroup's path, for a container that may be on no record any more."""
        if path in self._tasks:
            return
        task = self._tasks[path] = self._background.spawn(self._until_gone(path, container))
        task.add_done_callback(lambda _: self._tasks.pop(path, None))

    async def gone(self, container: Container) -> None:
        """Wait for a removal that is under way: until then the container cannot start again."""
        task = self._tasks.get(cgroup_path(self._parts, container.record))
        if task is not None:
            await asyncio.wait({task})

    async def _until_gone(self, path: str, container: Container | None) -> None:
        pause = _PAUSE
        while True:
            async with contextlib.nullcontext() if container is None else container.lock:
                if container is not None and container.live:
                    return
                problem = await asyncio.to_thread(self._try, path)
            if not problem:
                return
            if pause == _PAUSE:
                log.warning("cgroup %s: %s; trying again", path, problem)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST)

    def _try(self, path: str) -> str:
        """End what is in it and remove it; what keeps it from being removed, or nothing."""
        try:
            with self._parts.cgroups.open(path) as cgroup:
                cgroup.kill()
                cgroup.destroy(0.0)
        except NotFound:
            pass  # where another runtime made some, others may be there
        except (JaulaError, OSError) as error:
            return str(error)
        if self._parts.config.runtimes and (left := cgroup_cleanup.remove(path)):
            return f"{', '.join(left)} in use"
        return ""
