"""One build: its plan, its stages side by side, the image at its end."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from functools import partial
from typing import TYPE_CHECKING

from jaula.engine.build_threads import in_thread, whole
from jaula.engine.builder import base_image
from jaula.engine.builder.cache import key as cache_key
from jaula.engine.builder.entitlements import limits_of
from jaula.engine.builder.image_state import document
from jaula.engine.builder.progress import ProgressStream
from jaula.engine.builder.source_date_epoch import SourceDateEpoch
from jaula.engine.builder.sources import CONTEXT
from jaula.engine.builder.squash import squashed
from jaula.engine.builder.stage import StageRun
from jaula.errors import InvalidRequest, NotFound
from jaula.images.build import context as build_context
from jaula.images.build.dockerfile.parser import parse
from jaula.images.build.dockerfile.stage_graph import Source, plan
from jaula.images.platform import format_platform
from jaula.images.reference import parse as parse_reference
from jaula.spec.image import encode
from jaula.storage.trees import open_directory

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path
    from typing import Any

    from jaula.engine.builder.entitlements import Judge
    from jaula.engine.builder.image_state import ImageState
    from jaula.engine.builder.service import Builds
    from jaula.engine.builder.sources import BuildSources
    from jaula.images.build.dockerfile.ast import Run
    from jaula.images.build.dockerfile.stage_graph import StageGraph
    from jaula.images.store.store import Image
    from jaula.spec.api import HostConfig
    from jaula.spec.build import BuildOptions
    from jaula.spec.image import ImageDocument

log = logging.getLogger("jaula.builds")


class Build:
    """One build. ``owner`` is who asks.

    ``directory`` is the build's own, below which its context is; it is removed with it.
    """

    def __init__(
        self,
        builds: Builds,
        options: BuildOptions,
        directory: Path,
        owner: str,
        judge: Judge,
        supplies: BuildSources,
    ) -> None:
        self.parts = builds.parts
        self.containers = builds.containers
        self.cache = builds.cache
        self.mount_caches = builds.mount_caches
        self.id = directory.name
        self.options = options
        self.owner = owner
        self.supplies = supplies
        self.clock = SourceDateEpoch(options.build_args)
        self.messages = ProgressStream(steps=options.steps)
        self.plan: StageGraph
        self.total = 0
        self._directory = directory
        self.judge = judge
        self._later: list[asyncio.Task[None]] = []

    async def run(self, text: str | None) -> Image:
        """Carry out the Dockerfile, which is ``text`` or in the context; the image.

        :raises Mistake: the Dockerfile cannot be read.
        :raises JaulaError: a step failed.
        """
        try:
            await self._read(text)
            await self._carry_out()
            return await self._image()
        finally:
            self.messages.complete()
            await whole(self._tidied())
            self.supplies.close()

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Something that the build's end waits for, and no step."""
        self._later.append(asyncio.get_running_loop().create_task(work))

    async def _tidied(self) -> None:
        for result in await asyncio.gather(*self._later, return_exceptions=True):
            if isinstance(result, BaseException):
                log.error("a step of a build cannot be removed: %s", result, exc_info=result)

    # -- the plan ------------------------------------------------------------------------------

    async def _read(self, text: str | None) -> None:
        """The plan; images that stages begin with are fetched on the way, for their triggers."""
        options = self.options
        self.supplies.has_context = text is None
        found = (options.dockerfile or build_context.NAMES[0], text or "")
        if text is None:
            found = await in_thread(self._dockerfile)
        here = format_platform(base_image.wanted_platform(""))
        planning = partial(
            plan,
            parse(found[1], found[0]),
            target=options.target,
            build_args={name: v for name, v in options.build_args.items() if v is not None},
            platform=options.platform or here,
            build_platform=here,
            contexts=tuple(options.contexts),
        )
        self.plan = planning()
        channel = self.messages.channel(-1, "")
        try:
            triggers = {}
            for planned in self.plan.stages:
                if planned.base.kind is Source.IMAGE:
                    platform = planned.platform or options.platform
                    image = await self.supplies.image(planned.base.name, platform, channel.put)
                    if image.config.on_build:
                        triggers[planned.base.name] = image.config.on_build
            if triggers:
                self.plan = planning(triggers=triggers)
            await channel.warnings(self.plan.warnings)
            if self.plan.unused:
                names = ", ".join(self.plan.unused)
                await channel.say(f"[Warning] One or more build-args [{names}] were not consumed\n")
        finally:
            channel.close()
        self.total = sum(1 + len(planned.instructions) for planned in self.plan.stages)

    def _dockerfile(self) -> tuple[str, str]:
        """Its name in the context, and its text."""
        with open_directory(self._directory / CONTEXT) as context:
            try:
                found = build_context.dockerfile(context, self.options.dockerfile)
            except NotFound as error:  # 404 is for images
                raise InvalidRequest(error.message, hint=error.hint) from None
            build_context.remove_ignored(context, found.name, everything=bool(self.options.remote))
        return found.name, found.text

    # -- the stages ----------------------------------------------------------------------------

    async def _carry_out(self) -> None:
        loop, first, tasks = asyncio.get_running_loop(), 1, []
        for planned in self.plan.stages:
            index = planned.stage.index
            channel = self.messages.channel(index, planned.stage.name)
            ended = self.supplies.expect(index)
            run = StageRun(self, planned, channel, first)
            tasks.append(loop.create_task(self._one(run, ended)))
            first += 1 + len(planned.instructions)
        self.messages.complete()
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done() and (error := task.exception()) is not None:
                    raise error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, run: StageRun, ended: asyncio.Future[StageRun]) -> None:
        await run.run()
        if not ended.done():
            ended.set_result(run)

    def own(self, key: str) -> str:
        """A step's key among those of whoever builds: nobody finds what another one made."""
        return cache_key.owned(key, self.owner)

    def limits_of(self, run: Run) -> HostConfig:
        """The limits and modes of one RUN; raises ``NotAuthorized``."""
        return limits_of(run, self.options, self.judge)

    # -- the image -----------------------------------------------------------------------------

    async def _image(self) -> Image:
        last = (await self.supplies.stage(self.plan.stages[-1].stage.index)).state
        if self.options.squash:
            last = await in_thread(squashed, self.parts, last, self.clock, self.supplies.pin)
        blobs = [layer.blob for layer in last.layers]
        names = [str(parse_reference(name)) for name in self.options.names]
        described = encode(self._document(last))
        if (known := self._known(described, names)) is not None:
            return known
        return await in_thread(self.parts.images.add, described, blobs, names)

    def _known(self, described: bytes, names: list[str]) -> Image | None:
        """The image where it is there and has the names already: then nothing is written."""
        try:
            image = self.parts.images.resolve("sha256:" + hashlib.sha256(described).hexdigest())
        except NotFound:
            return None
        return image if set(names) <= set(image.names) else None

    def _document(self, state: ImageState) -> ImageDocument:
        return document(state, dict(self.options.labels), self.clock.now())

    def id_of(self, state: ImageState) -> str:
        """What the image would be called, in short, if the build ended here."""
        return hashlib.sha256(encode(self._document(state))).hexdigest()[:12]
