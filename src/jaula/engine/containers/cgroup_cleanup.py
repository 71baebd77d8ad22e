"""Removal of cgroups that outlive their container: retried until they are gone.

A cgroup can be removed only when its last process has exited (kernel ``cgroup-v1/cgroups.rst`` and
``cgroup-v2.rst``). A killed process may take time: thousands of processes that exit at once on a
busy machine, one that waits for a device, or one that another program moved into the cgroup. The
shim waits for two seconds and exits; from then on the engine retries.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING

from jaula.cgroups import cgroup_path as cgroup_paths
from jaula.engine.containers.container_cgroup import cgroup_path
from jaula.errors import JaulaError, NotFound
from jaula.runtime.external import foreign_cgroups

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.tasks import BackgroundTasks

log = logging.getLogger("jaula.containers")
_PAUSE = 0.25  # seconds before the first retry; each pause is twice the previous one
_MAX_PAUSE = 30.0  # seconds
_GONE_TIMEOUT = 10.0  # seconds for which a start waits


def container_cgroups(services: Services) -> Iterator[tuple[str, str]]:
    """Yield the container id and the path of each cgroup of a container below the engine's parent.

    It may be that of a spare init, or of a container without a record. The containers of other
    engines are left out: a request to them may name this parent.
    """
    config = services.config
    foreign = services.claims.foreign_containers() if services.claims is not None else set()
    parent = cgroup_paths.parent_path(config.cgroup_parent, systemd=config.systemd_cgroups)
    for name in {name for each in cgroup_directories(services, parent) for name in _names(each)}:
        container_id = cgroup_paths.container_id(name)
        if container_id and container_id not in foreign:
            yield container_id, f"{parent}/{name}"


def cgroup_directories(services: Services, path: str) -> set[str]:
    """Return the directories of a cgroup in all hierarchies."""
    try:
        with services.cgroups.open(path) as cgroup:
            return set(cgroup.locations().values())
    except NotFound:
        return set()


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def remove_strays(services: Services) -> None:
    """Remove the empty cgroups of containers without a record, below the engine's parent.

    A spare init leaves one when it is killed together with its shim and the helper.
    """
    known = {each.id for each in (*services.container_store, *services.container_store.steps())}
    for container_id, path in container_cgroups(services):
        if container_id in known:
            continue
        try:
            with services.cgroups.open(path) as stray:
                if not stray.pids():
                    stray.destroy()
        except JaulaError as error:
            log.warning("cannot remove the cgroup of no container %s: %s", path, error)


class CgroupReaper:
    """Removes cgroups in tasks of ``background``."""

    def __init__(self, services: Services, background: BackgroundTasks) -> None:
        self._services = services
        self._background = background
        self.removals: dict[str, asyncio.Task[None]] = {}

    def remove(self, container: Container) -> None:
        """Remove the cgroup of a container that does not run; a start cancels the removal."""
        self.remove_path(cgroup_path(self._services, container.record), container)

    def remove_path(self, path: str, container: Container | None = None) -> None:
        """Remove a cgroup by its path, for a container that may have no record any more."""
        if path in self.removals:
            return
        task = self.removals[path] = self._background.spawn(self._until_gone(path, container))
        task.add_done_callback(lambda _: self.removals.pop(path, None))

    async def gone(self, container: Container) -> None:
        """Wait for a removal in progress: until then the container cannot be started again.

        The caller does not hold the container's lock, which the removal takes. After 10 seconds
        the start is tried: its error names the process that does not exit.
        """
        task = self.removals.get(cgroup_path(self._services, container.record))
        if task is not None:
            await asyncio.wait({task}, timeout=_GONE_TIMEOUT)

    async def remove_locked(self, container: Container) -> None:
        """Do a removal in progress as :meth:`gone`; the caller holds the container's lock."""
        path, end = cgroup_path(self._services, container.record), time.monotonic() + _GONE_TIMEOUT
        while path in self.removals and time.monotonic() < end:
            problem = await asyncio.to_thread(self._try, path)
            if not problem:
                return
            await asyncio.sleep(_PAUSE)

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
                log.warning("cgroup %s: %s; retrying", path, problem)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE)

    def _try(self, path: str) -> str:
        """Kill the processes in a cgroup and remove it; return why it cannot be removed, or ''."""
        try:
            with self._services.cgroups.open(path) as cgroup:
                cgroup.kill()
                cgroup.destroy(0.0)
        except NotFound:
            pass  # an external runtime may have created cgroups of other controllers
        except (JaulaError, OSError) as error:
            return str(error)
        if self._services.config.runtimes and (left := foreign_cgroups.remove(path)):
            return f"{', '.join(left)} in use"
        return ""
