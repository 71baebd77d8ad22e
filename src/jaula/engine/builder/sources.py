"""What the stages of a build are given: images, contexts, trees of files, steps that images lend.

Each is looked for once in a build, by whoever needs it first, and stays until the build's end.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

from jaula.engine.build_threads import in_thread
from jaula.engine.builder import base_image, copy
from jaula.engine.builder.cache.cache_from import find_step
from jaula.engine.builder.context import from_address, from_session
from jaula.errors import InvalidRequest, JaulaError
from jaula.images.build.dockerfile.stage_graph import Origin, Source
from jaula.images.build.sources import Tree
from jaula.storage.trees import open_directory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import Any

    from jaula.engine.builder.client_session import ClientSession
    from jaula.engine.builder.image_state import ImageState, Layer
    from jaula.engine.builder.stage import StageRun
    from jaula.engine.images.registry import RegistryService
    from jaula.engine.model.services import Services
    from jaula.images.build.dockerfile.stage_graph import PlannedStage
    from jaula.images.build.remote.remote import RemoteSources
    from jaula.images.registry.cancellation import Cancellation
    from jaula.images.store.store import Image
    from jaula.spec.build import BuildOptions

    Tell = Callable[[dict[str, Any]], Awaitable[None]]

CONTEXT = "context"
"""The directory of the build's own context, in the build's directory."""
_IMAGE = "docker-image://"


class BuildSources:
    """Of one build. ``session`` is the client's, None where it has none.

    ``has_context`` is false where there is a Dockerfile and nothing else.
    """

    def __init__(
        self,
        parts: Services,
        distribution: RegistryService,
        options: BuildOptions,
        directory: Path,
        session: ClientSession | None,
        remotes: RemoteSources,
        cancellation: Cancellation,
    ) -> None:
        self.session = session
        self.remotes = remotes
        self.cancellation = cancellation
        self.has_context = True
        self._parts = parts
        self._distribution = distribution
        self._options = options
        self._directory = directory
        self._pins = ExitStack()
        self._pinned: set[str] = set()
        self._images: dict[tuple[str, str], asyncio.Task[Image]] = {}
        self._contexts: dict[str, asyncio.Task[str]] = {}
        self._lenders: asyncio.Task[tuple[ImageState, ...]] | None = None
        self._stages: dict[int, asyncio.Future[StageRun]] = {}

    def close(self) -> None:
        """Let go of everything."""
        lenders = () if self._lenders is None else (self._lenders,)
        for waiting in (*self._images.values(), *self._contexts.values(), *lenders):
            waiting.cancel()
        for future in self._stages.values():
            future.cancel()
        self._pins.close()

    # -- stages ----------------------------------------------------------------------------------

    def expect(self, index: int) -> asyncio.Future[StageRun]:
        """A future for a stage's end, which others wait for."""
        future = self._stages[index] = asyncio.get_running_loop().create_future()
        return future

    async def stage(self, index: int) -> StageRun:
        """A stage at its end."""
        return await asyncio.shield(self._stages[index])

    # -- images ----------------------------------------------------------------------------------

    def pin(self, digest: str) -> None:
        """Keep a blob and the layer of that name until the build has ended."""
        if digest not in self._pinned:
            self._pinned.add(digest)
            self._pins.enter_context(self._parts.images.pinned((digest,)))

    def keep(self, layers: tuple[Layer, ...]) -> None:
        """The same for layers that are there."""
        for layer in layers:
            self.pin(layer.diff_id)
            self.pin(layer.blob.digest)

    async def image(self, name: str, platform: str, tell: Tell) -> Image:
        """An image by its name, here or from a registry."""
        task = self._images.get((name, platform))
        if task is None:
            finding = base_image.find(
                self._parts,
                self._distribution,
                name,
                platform,
                pull=self._options.pull,
                auths=self._options.auths,
                tell=tell,
            )
            task = self._images[name, platform] = asyncio.get_running_loop().create_task(finding)
        return await asyncio.shield(task)

    async def begin(self, name: str, platform: str, tell: Tell) -> ImageState:
        """What a stage begins with that is built upon an image."""
        state = base_image.state_of(self._parts, await self.image(name, platform, tell))
        self.keep(state.layers)
        return state

    def image_behind(self, context: str) -> str:
        """The image that a context is, '' for one that is a directory."""
        given = self._options.contexts.get(context, "")
        return given.removeprefix(_IMAGE) if given.startswith(_IMAGE) else ""

    async def lent(self, key: str, tell: Tell) -> tuple[Layer | None, str] | None:
        """A step of the images that ``cachefrom`` names; None where they do not have it."""
        if self._lenders is None:
            self._lenders = asyncio.get_running_loop().create_task(self._find_lenders(tell))
        return find_step(await asyncio.shield(self._lenders), key)

    async def _find_lenders(self, tell: Tell) -> tuple[ImageState, ...]:
        lenders = []
        for name in self._options.cache_from:
            try:
                lenders.append(await self.begin(name, self._options.platform, tell))
            except JaulaError as error:  # as Docker: a build goes on without
                await tell({"status": f"Nothing of {name} is used: {error.message}"})
        return tuple(lenders)

    # -- files -----------------------------------------------------------------------------------

    async def layers_of(
        self, planned: PlannedStage, name: str, tell: Tell
    ) -> tuple[str, ...] | None:
        """The layers that a ``from`` means; None where it is a context."""
        origin = planned.origins[name] if name else Origin(Source.CONTEXT, "")
        match origin.kind:
            case Source.STAGE:
                return (await self.stage(origin.stage)).state.diff_ids
            case Source.IMAGE:
                image = origin.name
            case Source.SCRATCH:
                return ()
            case Source.CONTEXT:
                image = self.image_behind(origin.name)
        if not image:
            return None
        return (await self.begin(image, self._options.platform, tell)).diff_ids

    async def tree(
        self, planned: PlannedStage, name: str, held: ExitStack, tell: Tell
    ) -> Tree | None:
        """Where a ``from`` looks for files, until ``held`` closes; None without a context."""
        layers = await self.layers_of(planned, name, tell)
        if layers is not None:
            root = await in_thread(held.enter_context, copy.viewed(self._parts, layers))
            return Tree(root, f"stage {name}", keeps_owners=True)
        if not name and not self.has_context:
            return None
        path = await self.context_path(name)
        title = f"the context {name}" if name else "the build context"
        return Tree(held.enter_context(open_directory(path)), title)

    async def context_path(self, name: str) -> str:
        """The directory of a context; the build's own has no name.

        :raises InvalidRequest: there is none.
        """
        if not name:
            if not self.has_context:
                raise InvalidRequest("this build has no context")
            return str(self._directory / CONTEXT)
        task = self._contexts.get(name)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._receive(name))
            self._contexts[name] = task
        return await asyncio.shield(task)

    async def _receive(self, name: str) -> str:
        path = self._directory / f"{CONTEXT}-{len(self._contexts)}"
        path.mkdir(mode=0o755)
        if address := self._options.contexts.get(name):
            await from_address(address, str(path), self.remotes, self.cancellation)
        elif self.session is not None:
            await from_session(self.session, name, str(path), self.cancellation)
        else:
            raise InvalidRequest(f"the context {name!r} needs a session of the client's")
        return str(path)
