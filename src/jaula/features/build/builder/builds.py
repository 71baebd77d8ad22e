"""The use cases of the builder: build, cancel, prune, disk usage."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from jaula import __version__, metrics
from jaula.errors import JaulaError
from jaula.features.build.build_options import PruneOptions
from jaula.features.build.builder.build_history import BuildHistory
from jaula.features.build.builder.build_result import BuildResults
from jaula.features.build.builder.client_session import ClientSessions
from jaula.features.build.builder.job import BuildServices, RunningBuilds
from jaula.features.build.builder.local_directories import LocalDirectoryStore
from jaula.features.build.builder.mounts.cache_dirs import CacheDirs
from jaula.features.build.builder.step_cache import BuildCache
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jaula.engine.containers.containers import Containers
    from jaula.engine.images.registry_images import RegistryService
    from jaula.engine.model.services import Services
    from jaula.features.build.build_options import BuildOptions
    from jaula.features.build.builder.job import Authorize
    from jaula.features.build.builder.remote_tree import RemoteTree
    from jaula.images.store.image_names import NameRights
    from jaula.images.store.image_quota import Quota
    from jaula.state.container_records import ResolvedRequest

Document = dict[str, Any]

UNLIMITED = 1 << 64  # bytes: more than any disk has

log = logging.getLogger("jaula.build")


class Builds:
    """All builds of an engine."""

    def __init__(
        self, services: Services, containers: Containers, distribution: RegistryService
    ) -> None:
        self.sessions = ClientSessions()
        self.history = BuildHistory()
        self._shared = BuildServices(
            services=services,
            containers=containers,
            distribution=distribution,
            cache=BuildCache(services.database, services.images),
            cache_dirs=CacheDirs(services.config.paths),
            sessions=self.sessions,
            running=RunningBuilds(),
            results=BuildResults(),
            local_directories=LocalDirectoryStore(services.config.paths),
            cleanups=BackgroundTasks(log, "cleaning up after a build"),
            work=services.config.paths.root / "build" / "work",
        )

    def sweep(self) -> None:
        """Remove the files that builds of a killed engine left. Call it before serving."""
        paths = self._shared.services.config.paths
        mount_points = paths.run / "builds"
        if mount_points.is_dir() and any(mount_points.iterdir()):  # rare, and loads much
            from jaula.features.build.builder.mounts import mount_step

            mount_step.sweep(paths)
        shutil.rmtree(self._shared.work, ignore_errors=True)
        self._shared.cache_dirs.sweep()
        self._shared.local_directories.sweep()

    async def build(
        self,
        options: BuildOptions,
        stream: AsyncIterator[bytes] | None,
        resolved: ResolvedRequest,
        *,
        quota: Quota,
        authorize: Authorize,
        cache_limit: int = UNLIMITED,
    ) -> AsyncIterator[Document]:
        """Build an image and yield Docker's messages. Closing the iterator cancels the build.

        ``stream`` is the archive of the context, None if the options have another context.
        ``resolved`` holds the build's limits and modes, which are authorized already. The owner of
        ``quota`` owns the build, its image and the base images that it pulls. Afterwards its build
        cache takes at most ``cache_limit`` bytes.

        :raises InvalidRequest: when the context or the Dockerfile cannot be read.
        :raises StepFailed: when the program of a step failed.
        """
        from jaula.features.build.builder.build_request import run_request

        started, failure = time.perf_counter(), "error_processing_commands_error"
        metrics.BUILDS.add()
        request = run_request(self._shared, options, stream, resolved, quota, authorize)
        try:
            async with aclosing(request) as messages:
                async for message in messages:
                    yield message
            failure = ""
        except (asyncio.CancelledError, GeneratorExit):
            failure = "build_canceled"
            raise
        finally:
            if cache_limit < UNLIMITED:
                self._shared.cleanups.spawn(self._shrink(quota.owner, cache_limit))
            if failure:
                metrics.BUILDS_FAILED.add(failure)
            else:
                metrics.BUILD_DURATIONS.observe(time.perf_counter() - started)

    def cached_steps(self) -> int:
        """Return the number of steps in the cache."""
        return len(self._shared.cache)

    async def cancel(self, build_id: str, owner: str | None) -> None:
        """Cancel a build by the id that its client chose; ``owner`` None allows any owner.

        :raises NotFound: when no build of this id and owner is running.
        """
        self._shared.running.cancel(build_id, owner)

    def worker(self) -> Document:
        """Return who runs the steps: the engine, its host, and the gateway of the steps."""
        services = self._shared.services
        try:
            gateway = str(services.network_manager.ensure().gateway)
        except JaulaError:
            gateway = ""  # the default network does not work, which `info` reports
        return {
            "ID": services.identity,
            "Name": services.host.hostname,
            "Driver": services.snapshots.name,
            "Version": __version__,
            "Gateway": gateway,
        }

    async def open_remote(self, address: str, session: str, owner: str) -> RemoteTree:
        """Fetch a repository or a file that a client reads before it builds.

        :raises JaulaError: when it cannot be fetched.
        """
        from jaula.features.build.builder.remote_tree import open_remote_tree

        found = await self.sessions.find(session, owner) if session else None
        return await open_remote_tree(self._shared, address, found)

    def release(self, result: str, owner: str) -> None:
        """Release a result that a build has kept for others."""
        self._shared.results.release(owner, result)

    async def prune(self, options: PruneOptions, rights: NameRights | None = None) -> Document:
        """Remove entries of the build cache and return Docker's answer.

        With ``rights`` they are those that this caller may remove.

        :raises InvalidRequest: when a filter is not known.
        """
        from jaula.features.build.builder import prune_cache

        shared = self._shared
        disk = os.statvfs(shared.services.config.paths.root)
        return await prune_cache.prune(
            shared.cache,
            shared.cache_dirs,
            shared.local_directories,
            shared.services.images,
            options,
            disk.f_bavail * disk.f_frsize,
            rights,
        )

    async def _shrink(self, owner: str, maximum: int) -> None:
        """Remove the least recently used entries of a client above ``maximum`` bytes."""
        from jaula.images.store.image_names import NameRights

        await self.prune(PruneOptions(maximum=maximum), NameRights(owner))

    def usage(self, rights: NameRights | None = None) -> list[Document]:
        """Return Docker's documents of the build cache. Safe in any thread.

        With ``rights`` they are those that this caller may remove.
        """
        from jaula.features.build.builder import prune_cache

        shared = self._shared
        return prune_cache.usage(
            shared.cache,
            shared.cache_dirs,
            shared.local_directories,
            shared.services.images,
            rights,
        )

    async def close(self) -> None:
        """End every build and wait until its files are removed."""
        self.sessions.close()
        await self._shared.running.close()
        await self._shared.cleanups.finish()
