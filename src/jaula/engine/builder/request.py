"""One request for a build, from its context to its last message.

Loaded with the first build, with all that reads Dockerfiles and fetches: an engine that never
builds does not have it in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from jaula.engine.build_threads import in_thread
from jaula.engine.builder.build import Build
from jaula.engine.builder.context import from_address, from_body
from jaula.engine.builder.mounts.ssh_agent import listening
from jaula.engine.builder.sources import CONTEXT, BuildSources
from jaula.engine.containers import create as creating
from jaula.engine.networks import endpoints
from jaula.errors import Conflict, InvalidRequest
from jaula.images.build.remote.git import GitRepositories
from jaula.images.build.remote.http import Downloads
from jaula.images.build.remote.remote import RemoteSources
from jaula.images.reference import parse
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.http.proxy import configured_proxies
from jaula.spec.api import ContainerCreate
from jaula.storage.trees import DIRECTORY_FLAGS

if TYPE_CHECKING:
    from pathlib import Path

    from jaula.engine.builder.client_session import ClientSession
    from jaula.engine.builder.entitlements import Judge
    from jaula.engine.builder.service import Builds
    from jaula.engine.model.services import Services
    from jaula.images.store.store import Image
    from jaula.spec.build import BuildOptions
    from jaula.state.records import ResolvedRequest

Document = dict[str, Any]
_FROM_SESSION = "client-session"  # what BuildKit's clients call a context that is the body here


async def carry_out(
    builds: Builds,
    options: BuildOptions,
    stream: AsyncIterator[bytes],
    resolved: ResolvedRequest,
    owner: str,
    judge: Judge,
) -> AsyncGenerator[Document, None]:
    """Build an image; Docker's messages. See :meth:`~.builds.Builds.build`."""
    _check(builds, options, resolved)
    parts = builds.parts
    async with AsyncExitStack() as held:
        session = None
        if options.session:
            session = await builds.sessions.find(options.session, owner)
        directory = _directory(builds.work)
        tidying = held.enter_context(_tidied(builds, directory))
        cancellation = Cancellation()
        held.callback(cancellation.cancel)
        remotes = _remotes(parts, options, directory, held, session, cancellation)
        context = str(directory / CONTEXT)
        text = None
        if options.remote and options.remote != _FROM_SESSION:
            text = await from_address(options.remote, context, remotes, cancellation)
        else:
            await from_body(stream, context, cancellation)
        supplies = BuildSources(
            parts, builds.distribution, options, directory, session, remotes, cancellation
        )
        build = Build(builds, options, directory, owner, judge, supplies)
        task = builds.running(build.run(text), options.build_id, owner)
        held.push_async_callback(_ended, task, cancellation)
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
        for message in _done(parts, options, image):
            yield message


def _check(builds: Builds, options: BuildOptions, resolved: ResolvedRequest) -> None:
    """What is wrong whatever the Dockerfile says."""
    for name in options.names:
        if parse(name).digest is not None:
            raise InvalidRequest(f"{name!r} names a digest; an image is given a name and a tag")
    if options.build_id and builds.runs(options.build_id):
        raise Conflict(f"build {options.build_id} is running already")
    body = ContainerCreate(cmd=("true",), host_config=options.host)
    creating.check(builds.parts, body, resolved)
    endpoints.select_networks(body, builds.parts.networks.find)


def _directory(work: Path) -> Path:
    directory = work / os.urandom(16).hex()
    (directory / CONTEXT).mkdir(mode=0o755, parents=True)
    directory.chmod(0o700)
    return directory


def _remotes(
    parts: Services,
    options: BuildOptions,
    directory: Path,
    held: AsyncExitStack,
    session: ClientSession | None,
    cancellation: Cancellation,
) -> RemoteSources:
    descriptor = os.open(directory, DIRECTORY_FLAGS)
    held.callback(os.close, descriptor)
    config = parts.config.registry
    proxies = configured_proxies(config.http_proxy, config.https_proxy, config.no_proxy, os.environ)
    host_network = options.host.network_mode == "host"
    downloads = Downloads(proxies, cancellation, host_network=host_network)
    agent = None
    if session is not None:
        agent = partial(listening, session, asyncio.get_running_loop())
    repositories = GitRepositories(
        cancellation, host_network=host_network, proxies=proxies, agent=agent
    )
    return held.enter_context(RemoteSources(descriptor, downloads, repositories))


def _done(parts: Services, options: BuildOptions, image: Image) -> list[Document]:
    names = [str(parse(name)) for name in options.names]
    for name in names:
        parts.events.emit("image", "tag", image.id, {"name": name})
    if options.quiet:
        return [{"stream": f"{image.id}\n"}]
    told: list[Document] = [
        {"aux": {"ID": image.id}},
        {"stream": f"Successfully built {image.id.removeprefix('sha256:')[:12]}\n"},
    ]
    told += [{"stream": f"Successfully tagged {name}\n"} for name in names]
    return told


async def _ended(task: asyncio.Task[Image], cancellation: Cancellation) -> None:
    """Wait for a build that goes on though nobody reads its messages."""
    if not task.done():
        cancellation.cancel()
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await asyncio.shield(asyncio.gather(task, return_exceptions=True))


class _Cleanup:
    """What is left to do after a build; one that came to its end leaves no garbage."""

    def __init__(self, parts: Services, directory: Path) -> None:
        self.whole = False
        self._parts = parts
        self._directory = directory

    def run(self) -> None:
        """Do it, in a thread."""
        shutil.rmtree(self._directory, ignore_errors=True)
        if not self.whole:
            self._parts.images.collect()


@contextmanager
def _tidied(builds: Builds, directory: Path) -> Iterator[_Cleanup]:
    """Remove a build's directory afterwards; nobody waits for it but the engine's end."""
    tidying = _Cleanup(builds.parts, directory)
    try:
        yield tidying
    finally:
        builds.cleanups.spawn(in_thread(tidying.run))
