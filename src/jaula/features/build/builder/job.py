"""The values that all builds of an engine share, and those that the stages of one build share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaula.errors import NotFound
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from pathlib import Path

    from jaula.engine.containers.containers import Containers
    from jaula.engine.images.registry_images import RegistryService
    from jaula.engine.model.services import Services
    from jaula.engine.relaxations import Privilege
    from jaula.features.build.build_options import BuildOptions
    from jaula.features.build.builder.build_result import BuildResult, BuildResults
    from jaula.features.build.builder.build_sources import BuildSources
    from jaula.features.build.builder.client_session import ClientSessions
    from jaula.features.build.builder.image_state import ImageState, SourceDateEpoch
    from jaula.features.build.builder.local_directories import LocalDirectoryStore
    from jaula.features.build.builder.mounts.cache_dirs import CacheDirs
    from jaula.features.build.builder.step_cache import BuildCache
    from jaula.images.dockerfile.ast import Run
    from jaula.images.dockerfile.budget import BuildBudget
    from jaula.images.dockerfile.stage_graph import StageGraph
    from jaula.spec.api_documents import HostConfig
    from jaula.state.container_records import BuildStep

Authorize = Callable[["tuple[Privilege, ...]"], int]
"""Raises ``NotAuthorized`` for a privilege that the caller's rule does not grant. Returns the bytes
that the step may write, 0 for any."""


class RunningBuilds:
    """The builds that run now. A client can cancel a build by the id that it chose."""

    def __init__(self) -> None:
        self._by_id: dict[str, tuple[str, asyncio.Task[BuildResult]]] = {}
        self._tasks = BackgroundTasks()  # the client of a build receives its error

    def start(
        self, work: Coroutine[Any, Any, BuildResult], build_id: str, owner: str
    ) -> asyncio.Task[BuildResult]:
        """Run a build as a task; ``build_id`` may be empty."""
        task = self._tasks.spawn(work)
        if build_id:
            self._by_id[build_id] = (owner, task)
            task.add_done_callback(lambda _: self._by_id.pop(build_id, None))
        return task

    def has(self, build_id: str) -> bool:
        """Return whether a build of this id is running."""
        return build_id in self._by_id

    def cancel(self, build_id: str, owner: str | None) -> None:
        """Cancel a build by its id; ``owner`` None allows the build of any owner.

        :raises NotFound: when no build of this id and owner is running.
        """
        build_owner, task = self._by_id.get(build_id, ("", None))
        if task is None or owner not in (None, build_owner):
            raise NotFound(f"no build of the id {build_id[:64]!r} is running")
        task.cancel()

    async def close(self) -> None:
        """Cancel every build and wait for its end."""
        await self._tasks.close()


@dataclass(frozen=True)
class BuildServices:
    """The services that all builds use. ``work`` holds the directories of running builds."""

    services: Services
    containers: Containers
    distribution: RegistryService
    cache: BuildCache
    cache_dirs: CacheDirs
    sessions: ClientSessions
    running: RunningBuilds
    results: BuildResults
    local_directories: LocalDirectoryStore
    cleanups: BackgroundTasks
    work: Path


@dataclass(frozen=True)
class BuildJob:
    """One platform of a build, as its stages see it.

    ``owner`` is the key of the client that builds. ``made`` has the steps that the build has made,
    by key, for all its platforms. ``budget`` bounds the work on its text. ``defer`` runs clean-up
    that the end of the build waits for, but no step. ``step_options`` returns the limits and modes
    of one RUN. ``image_id`` returns the short id that the image would have if the build ended at a
    state.
    """

    id: str
    services: Services
    containers: Containers
    cache: BuildCache
    cache_dirs: CacheDirs
    sources: BuildSources
    owner: str
    authorize: Authorize
    options: BuildOptions
    graph: StageGraph
    step_count: int
    clock: SourceDateEpoch
    defer: Callable[[Coroutine[Any, Any, None]], None]
    made: dict[str, asyncio.Future[BuildStep]]
    step_options: Callable[[Run], HostConfig]
    budget: BuildBudget
    image_id: Callable[[ImageState], str]
