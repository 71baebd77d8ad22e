"""One build request, from its context to its last message.

The first build loads this module, and with it all that reads Dockerfiles and fetches sources. An
engine that never builds does not have these modules in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from jaula.engine.containers import validate
from jaula.engine.networks import endpoints
from jaula.engine.parsers import in_text_thread
from jaula.engine.threads import in_thread
from jaula.errors import Conflict, InvalidRequest
from jaula.features.build.builder.build_image import Build
from jaula.features.build.builder.build_sources import (
    CONTEXT,
    BuildSources,
    fetch_context,
    unpack_context,
)
from jaula.features.build.builder.local_context import receive_dockerfile
from jaula.features.build.builder.mounts.ssh_agent import ssh_agent
from jaula.features.build.builder.subrequest import answer
from jaula.features.build.files.context_directory import NAMES, ContextLocation
from jaula.features.build.files.remote.git import GitRepositories
from jaula.features.build.files.remote.http_download import Downloads
from jaula.features.build.files.remote.remote import RemoteSources
from jaula.images.dockerfile.budget import BuildBudget
from jaula.images.reference import parse
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.http.proxy_choice import Proxies, configured_proxies
from jaula.spec.api_documents import ContainerCreate
from jaula.storage.trees import DIRECTORY_FLAGS

if TYPE_CHECKING:
    from pathlib import Path

    from jaula.engine.model.services import Services
    from jaula.features.build.build_options import BuildOptions
    from jaula.features.build.builder.build_result import BuildResult
    from jaula.features.build.builder.build_session import BuildSession
    from jaula.features.build.builder.job import Authorize, BuildServices
    from jaula.images.store.image_quota import Quota
    from jaula.state.container_records import ResolvedRequest

Document = dict[str, Any]
_FROM_SESSION = "client-session"  # BuildKit clients send this remote if the body is the context


async def run_request(
    shared: BuildServices,
    options: BuildOptions,
    stream: AsyncIterator[bytes] | None,
    resolved: ResolvedRequest,
    quota: Quota,
    authorize: Authorize,
) -> AsyncGenerator[Document, None]:
    """Build an image and yield Docker's messages. See :meth:`~.service.Builds.build`."""
    _check(shared, options, resolved)
    services, owner = shared.services, quota.owner
    async with AsyncExitStack() as held:
        session = None
        if options.session:
            session = await shared.sessions.find(options.session, owner)
        directory = create_directory(shared.work)
        cleanup = held.enter_context(_cleanup_after(shared, directory))
        cancellation = Cancellation()
        held.callback(cancellation.cancel)
        remotes = open_remotes(services, options, directory, held, session, cancellation)
        context = str(directory / CONTEXT)
        dockerfile: ContextLocation | None = None
        sources = BuildSources(
            services,
            shared.distribution,
            options,
            directory,
            session,
            remotes,
            cancellation,
            quota,
            shared.results,
            shared.local_directories,
        )
        if sources.local is not None:
            cleanup.before(sources.local.keep)
        if options.remote and options.remote != _FROM_SESSION:
            text = await fetch_context(options.remote, context, remotes, cancellation)
            if text is not None:
                sources.has_context = False
                dockerfile = ContextLocation(NAMES[0], text)
        elif options.local is None or options.remote == _FROM_SESSION:
            if stream is None:
                raise InvalidRequest("the request has no build context")
            await unpack_context(stream, context, cancellation)
        if options.local is not None and sources.local is not None:
            async for message in receive_dockerfile(sources.local, options):
                yield message
            dockerfile = sources.local.dockerfile or dockerfile
        if options.subrequest:
            budget = BuildBudget()
            work = partial(answer, options, dockerfile, directory, services.images, budget)
            values = await in_text_thread(owner, budget, work)
            yield {"result": values, "attachments": ()}
            return
        build = Build(
            services=services,
            containers=shared.containers,
            cache=shared.cache,
            cache_dirs=shared.cache_dirs,
            options=options,
            directory=directory,
            quota=quota,
            authorize=authorize,
            sources=sources,
        )
        task = shared.running.start(build.run(dockerfile), options.build_id, owner)
        held.push_async_callback(_end, task, cancellation)
        async for message in build.progress.read():
            if not options.quiet:
                yield message
        try:
            result = await task
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            raise Conflict("the build was cancelled") from None
        cleanup.succeeded = True
        for message in _final_messages(services, options, result):
            yield message


def _check(shared: BuildServices, options: BuildOptions, resolved: ResolvedRequest) -> None:
    """Reject a request that is invalid with every Dockerfile."""
    for name in options.names:
        if parse(name).digest is not None:
            raise InvalidRequest(f"{name!r} has a digest; an image is tagged with a name and a tag")
    if options.build_id and shared.running.has(options.build_id):
        raise Conflict(f"build {options.build_id} is running already")
    body = ContainerCreate(cmd=("true",), host_config=options.host)
    validate.check(shared.services, body, resolved)
    endpoints.select_networks(body, shared.services.network_store.find)


def create_directory(work: Path) -> Path:
    """Return a new directory for one build, with an empty one for its context."""
    directory = work / os.urandom(16).hex()
    (directory / CONTEXT).mkdir(mode=0o755, parents=True)
    directory.chmod(0o700)
    return directory


def open_remotes(
    services: Services,
    options: BuildOptions,
    directory: Path,
    held: AsyncExitStack | ExitStack,
    session: BuildSession | None,
    cancellation: Cancellation,
) -> RemoteSources:
    """Return the transports of one build. ``held`` closes them."""
    descriptor = os.open(directory, DIRECTORY_FLAGS)
    held.callback(os.close, descriptor)
    config = services.config.registry
    host_network = options.host.network_mode == "host"
    agent, loop = None, asyncio.get_running_loop()
    if session is not None:
        agent = partial(ssh_agent, session, loop)

    def secret(id: str) -> bytes | None:
        """Return a secret of the client. For the threads of remote sources."""
        if session is None:
            return None
        return asyncio.run_coroutine_threadsafe(session.secret(id), loop).result()

    def proxies() -> Proxies:
        return configured_proxies(
            config.http_proxy, config.https_proxy, config.no_proxy, os.environ
        )

    def downloads() -> Downloads:
        return Downloads(proxies(), cancellation, host_network=host_network)

    def repositories() -> GitRepositories:
        return GitRepositories(
            cancellation,
            host_network=host_network,
            proxies=proxies(),
            agent=agent,
            secret=secret,
        )

    return held.enter_context(RemoteSources(descriptor, downloads, repositories))


def remove_directory(directory: Path) -> None:
    """Remove the directory of a build. Blocks."""
    shutil.rmtree(directory, ignore_errors=True)


def _final_messages(
    services: Services, options: BuildOptions, result: BuildResult
) -> list[Document]:
    exported = {"result": result.response, "attachments": result.attachments}
    if result.image is None:
        return [exported]
    image = result.image
    names = [str(parse(name)) for name in result.names]
    if options.exports is not None:  # as dockerd: not by its classic builder
        services.events.emit("image", "create", image.id, {"name": image.id})
    for name in names:
        services.events.emit("image", "tag", image.id, {"name": name})
    if options.exports is not None:
        return [exported]
    if options.quiet:
        return [{"stream": f"{image.id}\n"}]
    messages: list[Document] = [
        {"aux": {"ID": image.id}},
        {"stream": f"Successfully built {image.id.removeprefix('sha256:')[:12]}\n"},
    ]
    messages += [{"stream": f"Successfully tagged {name}\n"} for name in names]
    return messages


async def _end(task: asyncio.Task[BuildResult], cancellation: Cancellation) -> None:
    """Cancel a build whose client is gone, and wait for its end."""
    if not task.done():
        cancellation.cancel()
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await asyncio.shield(asyncio.gather(task, return_exceptions=True))


class _Cleanup:
    """The work that is left after a build. A build that succeeded leaves no garbage."""

    def __init__(self, services: Services, directory: Path) -> None:
        self.succeeded = False
        self._services = services
        self._directory = directory
        self._work: list[Callable[[], None]] = []

    def before(self, work: Callable[[], None]) -> None:
        """Run ``work`` before the build's directory is removed."""
        self._work.append(work)

    def run(self) -> None:
        """Remove the build's directory, and garbage after a failure. Runs in a thread."""
        for work in self._work:
            work()
        remove_directory(self._directory)
        if not self.succeeded:
            self._services.images.collect()


@contextmanager
def _cleanup_after(shared: BuildServices, directory: Path) -> Iterator[_Cleanup]:
    """Remove a build's directory in the background; only the end of the engine waits for it."""
    cleanup = _Cleanup(shared.services, directory)
    try:
        yield cleanup
    finally:
        shared.cleanups.spawn(in_thread(cleanup.run))
