"""The use cases of building: ``/build`` and what is kept for the next one."""

from __future__ import annotations

import asyncio
import logging
import shutil
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from jaula.engine.builder.cache.store import BuildCache
from jaula.engine.builder.client_session import ClientSessions
from jaula.engine.builder.mounts.cache_dirs import CacheDirs
from jaula.engine.builder.mounts.step_sources import remove_places, step_places
from jaula.errors import NotFound
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from jaula.engine.builder.entitlements import Judge
    from jaula.engine.containers.service import Containers
    from jaula.engine.images.registry import RegistryService
    from jaula.engine.model.services import Services
    from jaula.images.store.store import Image
    from jaula.spec.build import BuildOptions, PruneOptions
    from jaula.state.records import ResolvedRequest

Document = dict[str, Any]

log = logging.getLogger("jaula.build")


class Builds:
    """All builds of an engine. ``work`` holds the directories of those that run."""

    def __init__(
        self, parts: Services, containers: Containers, distribution: RegistryService
    ) -> None:
        self.parts = parts
        self.containers = containers
        self.distribution = distribution
        self.cache = BuildCache(parts.database, parts.images)
        self.mount_caches = CacheDirs(parts.config.paths)
        self.sessions = ClientSessions()
        self.work = parts.config.paths.root / "build" / "work"
        self._named: dict[str, tuple[str, asyncio.Task[Image]]] = {}
        self._builds = BackgroundTasks()  # the client of a build gets its failure
        self.cleanups = BackgroundTasks(log, "cleaning up after a build")

    def sweep(self) -> None:
        """Remove what a killed engine's builds left; before anything is served."""
        for place in step_places(self.parts.config.paths):
            remove_places(place)
        shutil.rmtree(self.work, ignore_errors=True)
        self.mount_caches.sweep()

    async def build(
        self,
        options: BuildOptions,
        stream: AsyncIterator[bytes],
        resolved: ResolvedRequest,
        *,
        owner: str,
        judge: Judge,
    ) -> AsyncIterator[Document]:
        """Build an image; Docker's messages. It ends when nobody reads them any more.

        ``resolved`` are the decisions on the build's limits and modes, which were authorised.

        :raises InvalidRequest: the context or the Dockerfile cannot be read.
        :raises StepFailed: a step's program failed.
        """
        from jaula.engine.builder.request import carry_out

        async with aclosing(carry_out(self, options, stream, resolved, owner, judge)) as messages:
            async for message in messages:
                yield message

    def running(
        self, work: Coroutine[Any, Any, Image], build_id: str, owner: str
    ) -> asyncio.Task[Image]:
        """A build as a task, which can be cancelled by the id that its client gave it."""
        task = self._builds.spawn(work)
        if build_id:
            self._named[build_id] = (owner, task)
            task.add_done_callback(lambda _: self._named.pop(build_id, None))
        return task

    def runs(self, build_id: str) -> bool:
        """Whether a build of that id is going on."""
        return build_id in self._named

    async def cancel(self, build_id: str, owner: str | None) -> None:
        """End a build that was started with an id of its client's; ``owner`` None: anybody's.

        :raises NotFound: none of that id runs.
        """
        whose, task = self._named.get(build_id, ("", None))
        if task is None or owner not in (None, whose):
            raise NotFound(f"no build of the id {build_id[:64]!r} is running")
        task.cancel()

    async def prune(self, options: PruneOptions) -> Document:
        """Remove what is kept for further builds."""
        from jaula.engine.builder.cache import prune as cache_prune

        return await cache_prune.prune(self, options)

    def usage(self) -> list[Document]:
        """Docker's documents of what is kept; from any thread."""
        from jaula.engine.builder.cache import prune as cache_prune

        return cache_prune.listed(self)

    async def close(self) -> None:
        """End every build; nothing is left of them."""
        self.sessions.close()
        await self._builds.close()
        await self.cleanups.finish()
