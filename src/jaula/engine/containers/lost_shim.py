"""Containers whose shim is gone without a word: what it left is read, or done in its place."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from jaula.engine.containers.start import cgroup_path
from jaula.engine.oci_runtimes import container as oci_runtime_container
from jaula.errors import JaulaError, NotFound
from jaula.runtime.external import cgroup_cleanup
from jaula.runtime.protocol import ExitRecord

if TYPE_CHECKING:
    from jaula.engine.containers.exit import ExitHandler
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services

log = logging.getLogger("jaula.containers")


class LostShim:
    """What a lost shim cannot do. ``ending`` books the end."""

    def __init__(self, parts: Services, ending: ExitHandler) -> None:
        self._parts = parts
        self._ending = ending

    def lost(self, container: Container) -> None:
        """The shim's channel closed without an exit: read what it left, or say it was lost."""
        if not container.live:
            return
        run_dir = self._parts.config.paths.container_run(container.id)
        end = self._parts.runtime.exit_record(str(run_dir))
        if end is not None:
            self._ending.exited(container, end)
            return
        end = ExitRecord(137, 9, finished_at=time.time(), error="the container's shim was killed")
        if (run_dir / oci_runtime_container.RUNTIME_FILE).exists():
            self._ending.tasks.spawn(self._clear_and_book(container, end))
            return
        self._clear_cgroup(container)
        self._ending.exited(container, end)

    async def _clear_and_book(self, container: Container, end: ExitRecord) -> None:
        await self.clear(container)
        self._ending.exited(container, end)

    async def clear(self, container: Container) -> None:
        """End a container's processes, remove its cgroup."""
        other = None
        try:
            if (
                other := oci_runtime_container.external_container(
                    self._parts.config.paths, container.id
                )
            ) is not None:
                self._clear_cgroup(container, destroy=False)
                await other.delete()
        except JaulaError as error:
            log.warning("container %s: %s", container.name, error)
        self._clear_cgroup(container)
        if other is not None:
            path = cgroup_path(self._parts, container.record)
            for place in await asyncio.to_thread(cgroup_cleanup.remove, path):
                log.warning("container %s: %s is in use", container.name, place)

    def _clear_cgroup(self, container: Container, *, destroy: bool = True) -> None:
        try:
            with self._parts.cgroups.open(cgroup_path(self._parts, container.record)) as cgroup:
                cgroup.kill()
                if destroy:
                    cgroup.destroy()
        except NotFound:
            return
        except JaulaError as error:
            log.warning("cgroup of container %s: %s", container.name, error)
