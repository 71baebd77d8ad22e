"""The use cases of building: ``/build`` and what is kept for the next one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaula.engine import create as creating
from jaula.engine import memberships
from jaula.engine.building import pruning
from jaula.engine.building.agents import listening
from jaula.engine.building.build import Build
from jaula.engine.building.cache import BuildCache
from jaula.engine.building.mount_caches import MountCaches
from jaula.engine.building.mounts import remove_places, step_places
from jaula.engine.building.receiving import from_address, from_body
from jaula.engine.building.session import Session, Sessions
from jaula.engine.building.supplies import CONTEXT, Supplies
from jaula.engine.building.threads import in_thread
from jaula.errors import Conflict, InvalidRequest, NotFound
from jaula.images.reference import parse
from jaula.images.registry.cancellation import Cancellation
from jaula.spec.api import ContainerCreate
from jaula.storage.trees import FOLDER

if TYPE_CHECKING:
    from jaula.engine.building.entitlements import Judge
    from jaula.engine.containers import Containers
    from jaula.engine.distribution import Distribution
    from jaula.engine.parts import Parts
    from jaula.images.build.remotes import Remotes
    from jaula.images.store import Image
    from jaula.spec.build import BuildOptions, PruneOptions

log = logging.getLogger("jaula.builds")
Document = dict[str, Any]


class Builds:
    """All builds of an engine."""

    def __init__(self, parts: Parts, containers: Containers, distribution: Distribution) -> None:
        self.parts = parts
        self.containers = containers
        self.distribution = distribution
        self.cache = BuildCache(parts.database, parts.images)
        self.mount_caches = MountCaches(parts.config.paths)
        self.sessions = Sessions()
        self._work = parts.config.paths.root / "build" / "work"
        self._running: dict[str, tuple[str, asyncio.Task[Image]]] = {}
        self._tasks: set[asyncio.Task[Image]] = set()
        self._cleaning: set[asyncio.Task[None]] = set()

    def sweep(self) -> None:
        """Remove what a killed engine's builds left; before anything is served."""
        for place in step_places(self.parts.config.paths):
            remove_places(place)
        shutil.rmtree(self._work, ignore_errors=True)
        self.mount_caches.sweep()

    async def build(
        self,
        options: BuildOptions,
        stream: AsyncIterator[bytes],
        *,
        owner: str,
        judge: Judge,
    ) -> AsyncIterator[Document]:
        """Build an image; Docker's messages. It ends when nobody reads them any more.

        :raises InvalidRequest: the context or the Dockerfile cannot be read.
        :raises StepFailed: a step's program failed.
        """
        self._check(options)
        async with AsyncExitStack() as held:
            session = None
            if options.session:
                session = await self.sessions.find(options.session, owner)
            directory = self._directory()
            tidying = held.enter_context(self._tidied(directory))
            cancellation = Cancellation()
            held.callback(cancellation.cancel)
            remotes = self._remotes(options, directory, held, session, cancellation)
            context = str(directory / CONTEXT)
            text = None
            if options.remote and options.remote != "client-session":
                text = await from_address(options.remote, context, remotes, cancellation)
            else:
                await from_body(stream, context, cancellation)
            supplies = Supplies(
                self.parts, self.distribution, options, directory, session, remotes, cancellation
            )
            build = Build(self, options, directory, owner, judge, supplies)
            task = asyncio.get_running_loop().create_task(build.run(text))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            held.push_async_callback(_ended, task, cancellation)
            if options.build_id:
                self._running[options.build_id] = (owner, task)
                held.callback(self._running.pop, options.build_id, None)
            async for message in build.messages.read():
                if not options.quiet:
                    yield message
            try:
                image = await task
            except asyncio.CancelledError:
                if not task.cancelled():
                    raise
                raise Conflict("the build was cancelled") from None
            tidying.whole = True
            for message in self._done(options, image):
                yield message

    @contextmanager
    def _tidied(self, directory: Path) -> Iterator[_Tidying]:
        """Remove a build's directory afterwards; nobody waits for it but the engine's end."""
        tidying = _Tidying(self.parts, directory)
        try:
            yield tidying
        finally:
            task = asyncio.get_running_loop().create_task(in_thread(tidying.run))
            self._cleaning.add(task)
            task.add_done_callback(self._cleaning.discard)

    def _check(self, options: BuildOptions) -> None:
        """What is wrong whatever the Dockerfile says."""
        for name in options.names:
            if parse(name).digest is not None:
                raise InvalidRequest(f"{name!r} names a digest; an image is given a name and a tag")
        if options.build_id and options.build_id in self._running:
            raise Conflict(f"build {options.build_id} is running already")
        body = ContainerCreate(cmd=("true",), host_config=options.host)
        creating.check(self.parts, body)
        memberships.chosen(body, self.parts.networks.find)

    def _directory(self) -> Path:
        directory = self._work / os.urandom(16).hex()
        (directory / CONTEXT).mkdir(mode=0o755, parents=True)
        directory.chmod(0o700)
        return directory

    def _remotes(
        self,
        options: BuildOptions,
        directory: Path,
        held: AsyncExitStack,
        session: Session | None,
        cancellation: Cancellation,
    ) -> Remotes:
        from jaula.images.build.downloads import Downloads
        from jaula.images.build.remotes import Remotes
        from jaula.images.build.repositories import Repositories
        from jaula.images.registry.proxies import configured

        descriptor = os.open(directory, FOLDER)
        held.callback(os.close, descriptor)
        config = self.parts.config.registry
        proxies = configured(config.http_proxy, config.https_proxy, config.no_proxy, os.environ)
        host_network = options.host.network_mode == "host"
        downloads = Downloads(proxies, cancellation, host_network=host_network)
        agent = None
        if session is not None:
            agent = partial(listening, session, asyncio.get_running_loop())
        repositories = Repositories(
            cancellation, host_network=host_network, proxies=proxies, agent=agent
        )
        return held.enter_context(Remotes(descriptor, downloads, repositories))

    def _done(self, options: BuildOptions, image: Image) -> list[Document]:
        names = [str(parse(name)) for name in options.names]
        for name in names:
            self.parts.events.emit("image", "tag", image.id, {"name": name})
        if options.quiet:
            return [{"stream": f"{image.id}\n"}]
        told: list[Document] = [
            {"aux": {"ID": image.id}},
            {"stream": f"Successfully built {image.id.removeprefix('sha256:')[:12]}\n"},
        ]
        told += [{"stream": f"Successfully tagged {name}\n"} for name in names]
        return told

    async def cancel(self, build_id: str, owner: str | None) -> None:
        """End a build that was started with an id of its client's; ``owner`` None: anybody's.

        :raises NotFound: none of that id runs.
        """
        whose, task = self._running.get(build_id, ("", None))
        if task is None or owner not in (None, whose):
            raise NotFound(f"no build of the id {build_id[:64]!r} is running")
        task.cancel()

    async def prune(self, options: PruneOptions) -> Document:
        """Remove what is kept for further builds."""
        return await pruning.prune(self, options)

    def usage(self) -> list[Document]:
        """Docker's documents of what is kept; from any thread."""
        return pruning.listed(self)

    async def close(self) -> None:
        """End every build; nothing is left of them."""
        self.sessions.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*self._cleaning, return_exceptions=True)


async def _ended(task: asyncio.Task[Image], cancellation: Cancellation) -> None:
    """Wait for a build that goes on though nobody reads its messages."""
    if not task.done():
        cancellation.cancel()
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await asyncio.shield(asyncio.gather(task, return_exceptions=True))


class _Tidying:
    """What is left to do after a build; one that came to its end leaves no garbage."""

    def __init__(self, parts: Parts, directory: Path) -> None:
        self.whole = False
        self._parts = parts
        self._directory = directory

    def run(self) -> None:
        """Do it, in a thread."""
        shutil.rmtree(self._directory, ignore_errors=True)
        if not self.whole:
            self._parts.images.collect()
