"""The sources of a build: its context, further contexts, base images, results of stages.

A build looks each source up once, when a stage first needs it, and keeps it until the build ends. A
context arrives as the body of the request, from an address, or over the client's session.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack
from copy import copy as shallow_copy
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec

from jaula.engine.threads import (
    feed,
    in_own_thread,
    in_request_thread,
    in_thread,
    shielded,
)
from jaula.errors import InvalidRequest, JaulaError, NotFound
from jaula.features.build.builder import copy_step
from jaula.features.build.builder.client_image import ClientImage, open_image
from jaula.features.build.builder.image_state import ImageState, Layer
from jaula.features.build.builder.local_context import LocalContext, ended, started
from jaula.features.build.builder.step_cache import find_change_in_image, find_in_image
from jaula.features.build.files import context_directory
from jaula.features.build.files.source_archives import Tree
from jaula.images.dockerfile.stage_graph import Origin, Source
from jaula.images.image_platform import host, parse_platform
from jaula.images.reference import parse
from jaula.spec.image_documents import Platform
from jaula.storage.trees import open_directory
from jaula.tasks import awaited_task

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path
    from typing import Any

    from jaula.engine.images.registry_images import RegistryService
    from jaula.engine.model.services import Services
    from jaula.features.build.build_options import BuildOptions, ClientCache
    from jaula.features.build.builder.build_result import BuildResults
    from jaula.features.build.builder.build_session import BuildSession, LocalSession
    from jaula.features.build.builder.image_state import StageResult
    from jaula.features.build.builder.local_directories import LocalDirectoryStore
    from jaula.features.build.builder.step_cache import StepResult
    from jaula.features.build.files.remote.remote import RemoteSources
    from jaula.images.dockerfile.stage_graph import PlannedStage
    from jaula.images.registry.cancellation import Cancellation
    from jaula.images.store.image_quota import Quota
    from jaula.images.store.image_store import Image
    from jaula.spec.api_documents import RegistryAuth

    Report = Callable[[dict[str, Any]], Awaitable[None]]

CONTEXT = "context"
"""The directory of the build's own context, in the directory of the build."""
_IMAGE, _RESULT, _LOCAL, _LAYOUT = "docker-image://", "result:", "local:", "layout:"
"""The forms of a named context; any other is an address."""
_HUB = "docker.io"
_INDEX = "https://index.docker.io/v1/"  # the key of Docker Hub in X-Registry-Config

log = logging.getLogger("jaula.builds")


class _CacheImage(NamedTuple):
    """An image of ``--cache-from``. ``client`` has the layers that the store may lack."""

    state: ImageState
    client: ClientImage | None = None


class BuildSources:
    """The sources of one build. ``session`` belongs to the client, None without one.

    ``has_context`` is false if the client sent a Dockerfile and nothing else.
    """

    def __init__(
        self,
        services: Services,
        distribution: RegistryService,
        options: BuildOptions,
        directory: Path,
        session: BuildSession | None,
        remotes: RemoteSources,
        cancellation: Cancellation,
        quota: Quota,
        results: BuildResults,
        local_directories: LocalDirectoryStore,
    ) -> None:
        self.session = session
        self.remotes = remotes
        self.cancellation = cancellation
        self.has_context = True
        self.local = None
        if options.local is not None and session is not None:
            self.local = LocalContext(
                cast("LocalSession", session), options.local, directory, local_directories
            )
        self._results = results
        self._services = services
        self._distribution = distribution
        self._options = options
        self._quota = quota
        self._directory = directory
        self.lease = self._lease = services.images.lease()
        self._images: dict[tuple[str, str], asyncio.Task[Image]] = {}
        self._contexts: dict[str, asyncio.Task[str]] = {}
        self._cache_images: asyncio.Task[tuple[_CacheImage, ...]] | None = None
        self._client_images: list[ClientImage] = []
        self._layouts: dict[tuple[str, str], asyncio.Task[ImageState]] = {}
        self._stages: dict[int, asyncio.Future[StageResult]] = {}
        self._views: list[BuildSources] = []
        self.used: dict[tuple[str, str], Image] = {}
        """The images that the stages use, by name and platform; '' is the platform of the host."""

    def for_platform(self, platform: str) -> BuildSources:
        """Return the sources of the stages for one platform of several.

        Contexts and images are fetched once for all platforms. The stages and the images in use are
        the platform's own. It is closed with the original.
        """
        view = shallow_copy(self)
        view._options = msgspec.structs.replace(self._options, platform=platform)
        view._cache_images, view._stages, view.used = None, {}, {}
        self._views.append(view)
        return view

    def close(self) -> None:
        """Cancel what is fetched still, and release all pins."""
        for task in (*self._images.values(), *self._contexts.values(), *self._layouts.values()):
            task.cancel()
        for view in (self, *self._views):
            for future in view._stages.values():
                future.cancel()
            if view._cache_images is not None:
                view._cache_images.cancel()
        for image in self._client_images:
            image.close()
        if self.local is not None:
            self.local.close()
        self._lease.close()

    # -- stages ----------------------------------------------------------------------------------

    def add_stage(self, index: int) -> asyncio.Future[StageResult]:
        """Return a future for the result of a stage, which other stages may wait for."""
        future = self._stages[index] = asyncio.get_running_loop().create_future()
        return future

    async def stage(self, index: int) -> StageResult:
        """Wait for a stage and return its result."""
        return await asyncio.shield(self._stages[index])

    # -- images ----------------------------------------------------------------------------------

    def pin(self, digest: str) -> None:
        """Protect the blob and the layer of a digest until the build ends."""
        self._lease.pin(digest)

    def pin_layers(self, layers: tuple[Layer, ...]) -> None:
        """Protect existing layers until the build ends."""
        for layer in layers:
            self._lease.pin(layer.diff_id, layer.blob.digest)

    async def image(self, name: str, platform: str, report: Report) -> Image:
        """Return an image by its name, from the store or from a registry."""
        task = self._images.get((name, platform))
        if task is None:
            fetch = self._find_image(name, platform, report, pull=self._options.pull)
            task = self._images[name, platform] = awaited_task(fetch)
        image = self.used[name, platform] = await asyncio.shield(task)
        return image

    async def _find_image(self, name: str, platform: str, report: Report, *, pull: bool) -> Image:
        return await find_image(
            self._services,
            self._distribution,
            name,
            platform,
            pull=pull,
            auths=self._auth,
            quota=self._quota,
            report=report,
        )

    async def _auth(self, domain: str) -> RegistryAuth | None:
        """Return the client's credentials of a registry."""
        auths = self._options.auths
        auth = auths.get(domain) or auths.get(_INDEX if domain == _HUB else domain)
        if auth is None and self.local is not None:
            auth = await self.local.session.credentials(domain)
        return auth

    async def push(self, name: str, *, unchanged: bool = False) -> AsyncIterator[dict[str, Any]]:
        """Push a name with the client's credentials; yield Docker's messages.

        With ``unchanged``, plain layers are not compressed.
        """
        auth = await self._auth(parse(name).domain)
        async for message in self._distribution.push(
            str(parse(name)), "", auth, self._quota, unchanged=unchanged
        ):
            yield message

    async def push_image(self, name: str, image: Image) -> AsyncIterator[dict[str, Any]]:
        """Push an image under a name that it does not have, with the client's credentials."""
        auth = await self._auth(parse(name).domain)
        async for message in self._distribution.push_image(name, image, auth, self._quota):
            yield message

    async def base_state(self, name: str, platform: str, report: Report) -> ImageState:
        """Return the first state of a stage that is based on an image, and pin its layers.

        :raises NotFound: when the image is removed meanwhile.
        """
        image = await self.image(name, platform, report)
        images = self._services.images
        pinned = images.pin_image(self._lease, image)
        await in_request_thread(partial(images.wait_whole, pinned))
        await in_thread(images.check_blobs, pinned)
        return state_of_image(self._services, pinned)

    async def context_state(self, name: str, platform: str, report: Report) -> ImageState | None:
        """Return the image that a named context is, and pin its layers; None for a directory.

        :raises NotFound: when another build, its client or the image is gone.
        """
        address = self._options.contexts.get(name, "")
        if address.startswith(_IMAGE):
            return await self.base_state(address.removeprefix(_IMAGE), platform, report)
        if address.startswith(_LAYOUT):
            task = self._layouts.get((name, platform))
            if task is None:
                load = self._load_layout(name, address.removeprefix(_LAYOUT), platform, report)
                task = self._layouts[name, platform] = awaited_task(load)
            return await asyncio.shield(task)
        if not address.startswith(_RESULT):
            return None
        own = requested_platform(self._options.platform)
        state = self._results.find(self._quota.owner, address.removeprefix(_RESULT), own)
        self.pin_layers(state.layers)
        return msgspec.structs.replace(
            state,
            base_layers=len(state.layers),
            base_history=len(state.history),
            command_set=False,
        )

    async def _load_layout(
        self, name: str, address: str, platform: str, report: Report
    ) -> ImageState:
        """Receive an image from an OCI layout of the client. No image of the store is made."""
        if self.local is None:
            raise InvalidRequest(f"the context {name!r} needs a session of the client")
        store, _, digest = address.rpartition("@")
        title = f"[context {name}] OCI load from client"
        await report(started(title))
        try:
            image = await open_image(
                self.local.session.content_store(store),
                digest,
                self._services.images,
                self.pin,
                requested_platform(platform or self._options.platform),
            )
            self._client_images.append(image)
            for layer in image.state.layers:
                await image.fetch(layer)
        except JaulaError as error:
            await report(ended(title, str(error)))
            raise
        await report(ended(title))
        return image.state

    def keep_result(self, id: str, states: tuple[ImageState, ...]) -> None:
        """Keep the result of this build for others, beyond the end of the build."""
        lease = self._services.images.lease()
        for state in states:
            for layer in state.layers:
                lease.pin(layer.diff_id, layer.blob.digest)
        self._results.keep(self._quota.owner, id, states, lease.close)

    async def step_from_images(self, key: str, report: Report) -> StepResult | None:
        """Return a step of the images of ``--cache-from``; None if they do not have it."""
        for image in await self._images_with_steps(report):
            step = find_in_image(image.state, key)
            if step is None:
                continue
            if step[0] is not None and image.client is not None:
                try:
                    await image.client.fetch(step[0])
                except JaulaError as error:  # as Docker: the step is made
                    await report({"status": f"cannot use a cached layer: {error.message}"})
                    continue
            return step
        return None

    async def change_from_images(
        self, state: ImageState, text: str, report: Report
    ) -> StepResult | None:
        """Return a change of the configuration from the images of ``--cache-from``, or None."""
        for image in await self._images_with_steps(report):
            step = find_change_in_image(image.state, state, text)
            if step is not None:
                return step
        return None

    async def _images_with_steps(self, report: Report) -> tuple[_CacheImage, ...]:
        if self._cache_images is None:
            self._cache_images = awaited_task(self._fetch_cache_images(report))
        return await asyncio.shield(self._cache_images)

    async def _fetch_cache_images(self, report: Report) -> tuple[_CacheImage, ...]:
        """Return the images that exist. As in Docker, the build continues without the others."""
        images = []
        for name in self._options.cache_from:
            images.append(await self._imported(name, self._cache_image(name, report), report))
        for cache in self._options.client_caches:
            name = f"local:{cache.digest}"
            images.append(await self._imported(name, self._client_cache(cache), report))
        return tuple(image for image in images if image is not None)

    async def _imported(
        self, name: str, load: Coroutine[Any, Any, _CacheImage], report: Report
    ) -> _CacheImage | None:
        """Load a cache, as an internal step for clients that show these; None after a failure."""
        if self.local is None:
            try:
                return await load
            except JaulaError as error:
                if self._options.cache_from_only:  # as dockerd, which does not tell the client
                    log.warning("an image of cachefrom is not used: %s", error.message)
                else:
                    await report({"status": f"cannot use the cache of {name}: {error.message}"})
                return None
        title = f"importing cache manifest from {name}"
        await report(started(title))
        try:
            image = await load
        except JaulaError as error:
            await report(ended(title, error.message))
            return None
        await report(ended(title))
        return image

    async def _client_cache(self, cache: ClientCache) -> _CacheImage:
        """Return a cache in a directory of the client."""
        if self.local is None:
            raise InvalidRequest("this cache needs a session of the client")
        content = self.local.session.content_store(cache.store)
        image = await open_image(content, cache.digest, self._services.images, self.pin)
        self._client_images.append(image)
        return _CacheImage(image.state, image)

    async def _cache_image(self, name: str, report: Report) -> _CacheImage:
        """Return an image of ``--cache-from``.

        A client of BuildKit's protocol means the registry's, which another machine may have pushed
        since; the store's is used if the registry does not answer. A client of the classic builder
        means the store's.
        """
        if self._options.cache_from_only:
            image = self._services.images.pin(self._lease, name)
            return _CacheImage(state_of_image(self._services, image))
        if self.local is not None:
            try:
                await self._find_image(name, self._options.platform, report, pull=True)
            except JaulaError:
                await report({"status": f"using the local image {name} as a cache"})
        return _CacheImage(await self.base_state(name, self._options.platform, report))

    # -- files -----------------------------------------------------------------------------------

    async def layers_of(
        self, planned: PlannedStage, name: str, report: Report
    ) -> tuple[str, ...] | None:
        """Return the layers that a ``from`` refers to; None if it is a context."""
        origin = planned.origins[name] if name else Origin(Source.CONTEXT, "")
        match origin.kind:
            case Source.STAGE:
                return (await self.stage(origin.stage)).state.diff_ids
            case Source.IMAGE:
                image = origin.name
            case Source.SCRATCH:
                return ()
            case Source.CONTEXT:
                platform = self._options.platform
                state = await self.context_state(origin.name, platform, report)
                return None if state is None else state.diff_ids
        return (await self.base_state(image, self._options.platform, report)).diff_ids

    async def tree(
        self, planned: PlannedStage, name: str, held: ExitStack, report: Report
    ) -> Tree | None:
        """Open the files that a ``from`` refers to, until ``held`` closes; None without any."""
        layers = await self.layers_of(planned, name, report)
        if layers is not None:
            root = await in_thread(
                held.enter_context, copy_step.open_layers(self._services, layers)
            )
            return Tree(root, f"stage {name}", keeps_owners=True)
        if not name and not self.has_context:
            return None
        path = await self.context_path(name, report)
        title = f"the context {name}" if name else "the build context"
        return Tree(held.enter_context(open_directory(path)), title)

    async def context_path(self, name: str, report: Report) -> str:
        """Return the directory of a context; the build's own has an empty name.

        :raises InvalidRequest: when the build has no such context.
        """
        if not name:
            if not self.has_context:
                raise InvalidRequest("this build has no context")
            if self.local is not None and self.local.directories.context:
                return await self.local.context(report)
            return str(self._directory / CONTEXT)
        task = self._contexts.get(name)
        if task is None:
            task = self._contexts[name] = awaited_task(self._receive_context(name, report))
        return await asyncio.shield(task)

    async def _receive_context(self, name: str, report: Report) -> str:
        path = self._directory / f"{CONTEXT}-{len(self._contexts)}"
        path.mkdir(mode=0o755)
        address = self._options.contexts.get(name, "")
        if address.startswith(_LOCAL) and self.local is not None:
            await self.local.named(address.removeprefix(_LOCAL), name, str(path), report)
        elif address:
            await fetch_context(address, str(path), self.remotes, self.cancellation)
        elif self.session is not None:
            await self.session.receive_context(name, str(path), self.cancellation)
        else:
            raise InvalidRequest(f"the context {name!r} needs a session of the client")
        return str(path)


# -- contexts ----------------------------------------------------------------------------------


async def unpack_context(stream: AsyncIterator[bytes], path: str, cancel: Cancellation) -> None:
    """Unpack a tar into an empty directory of the engine.

    :raises InvalidRequest: when the tar is damaged or malicious.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    feeding = awaited_task(feed(stream, writing))

    def work() -> None:
        with (
            open(reading, "rb", buffering=1 << 20) as file,
            open_directory(path) as directory,
        ):
            context_directory.receive(file, directory, cancel=cancel)

    unpacking = in_own_thread(work)
    try:
        await asyncio.wait((unpacking,))
        unpacking.result()
        await feeding
    finally:
        feeding.cancel()  # closes the pipe, which ends the thread
        await shielded(asyncio.wait((feeding, unpacking)))


async def fetch_context(
    address: str, path: str, remotes: RemoteSources, cancel: Cancellation
) -> str | None:
    """Fetch a context. Return the text of the Dockerfile if the address has nothing else."""

    def work() -> str | None:
        with open_directory(path) as directory:
            return context_directory.fetch(address, directory, remotes, cancel)

    return await shielded(in_own_thread(work))


# -- base images -------------------------------------------------------------------------------


def requested_platform(text: str) -> Platform:
    """Parse a platform such as ``linux/arm64``; empty means the platform of this host."""
    return parse_platform(text or None) or host()


async def find_image(
    services: Services,
    distribution: RegistryService,
    name: str,
    platform: str,
    *,
    pull: bool,
    auths: Callable[[str], Awaitable[RegistryAuth | None]],
    quota: Quota,
    report: Report,
) -> Image:
    """Return an image for a platform; pull it if it is absent or ``pull`` is set.

    :raises NotFound: when neither the store nor the registry has it.
    :raises ImageRefused: when the operator's image policy does not allow it as a base.
    """
    requested = parse_platform(platform or None)
    if not pull:
        try:
            image = services.images.resolve(name, requested)
        except NotFound:
            pass
        else:
            services.image_policy.check_run(image, name)
            return image
        await report({"status": f"Unable to find image '{parse(name)}' locally"})
    reference = parse(name)
    auth = await auths(reference.domain)
    pulled = name
    try:
        pull_messages = distribution.pull(
            str(reference), "", platform or None, auth, quota, whole=True, keep_names=True
        )
        async for message in pull_messages:
            await report(message)
            label, _, digest = str(message.get("status", "")).partition(": ")
            if label == "Digest":  # its tag may be another owner's, who keeps an older image
                pulled = f"{reference.repository}@{digest}"
    except JaulaError as error:
        error.message = f"cannot pull image {name}: {error.message}"
        raise
    return services.images.resolve(pulled, requested)


def state_of_image(services: Services, image: Image) -> ImageState:
    """Return the first state of a stage that is based on an image."""
    blobs = services.images.manifest(image).layers
    pairs = zip(image.layers, blobs, strict=True)
    return ImageState(
        layers=tuple(Layer(diff_id, blob) for diff_id, blob in pairs),
        config=image.config,
        history=image.document.history,
        platform=image.platform,
        author=image.document.author,
        created=image.created,
        base_layers=len(image.layers),
        base_history=len(image.document.history),
    )
