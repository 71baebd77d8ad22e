"""One build: what all of its stages share, and the image at its end."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.authority.asks import Ask, Kind
from jaula.engine.building import bases, copying, keys
from jaula.engine.building.lending import find_step
from jaula.engine.building.messages import Messages
from jaula.engine.building.receiving import from_address, from_session
from jaula.engine.building.squashing import squashed
from jaula.engine.building.stage import StageRun
from jaula.engine.building.state import Layer, StageState, document
from jaula.engine.building.threads import in_thread
from jaula.errors import InvalidRequest, JaulaError, NotAuthorized, NotFound
from jaula.images.build import contexts
from jaula.images.build.language.instructions import Network, Security
from jaula.images.build.language.parsing import parse
from jaula.images.build.language.plan import Origin, Source, plan
from jaula.images.build.sources import Tree
from jaula.images.platforms import shown
from jaula.images.reference import parse as parse_reference
from jaula.images.registry.cancellation import Cancellation
from jaula.spec.image import encode
from jaula.storage.folders import opened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import Any

    from jaula.engine.building.builds import Builds
    from jaula.engine.building.session import Session
    from jaula.images.build.language.instructions import Run
    from jaula.images.build.language.plan import Plan, PlannedStage
    from jaula.images.build.remotes import Remotes
    from jaula.images.store import Image
    from jaula.spec.api import HostConfig
    from jaula.spec.build import BuildOptions
    from jaula.spec.image import ImageDocument

    Tell = Callable[[dict[str, Any]], Awaitable[None]]

EPOCH = "SOURCE_DATE_EPOCH"
_IMAGE = "docker-image://"
_NETWORK = "network.host"
_INSECURE = "security.insecure"


class Build:
    """One build. ``judge`` raises for what the caller may not ask for; ``owner`` is who asks.

    ``directory`` is the build's own, below which its context is; it is removed with it.
    """

    def __init__(
        self,
        builds: Builds,
        options: BuildOptions,
        directory: Path,
        owner: str,
        judge: Callable[[tuple[Ask, ...]], object],
        session: Session | None,
        remotes: Remotes,
        cancellation: Cancellation,
    ) -> None:
        self.parts = builds.parts
        self.containers = builds.containers
        self.cache = builds.cache
        self.mount_caches = builds.mount_caches
        self.id = directory.name
        self.options = options
        self.owner = owner
        self.session = session
        self.remotes = remotes
        self.cancellation = cancellation
        self.messages = Messages(steps=options.steps)
        self.epoch = _epoch(options)
        self.plan: Plan
        self.total = 0
        self._distribution = builds.distribution
        self._directory = directory
        self._judge = judge
        self._images: dict[tuple[str, str], asyncio.Task[Image]] = {}
        self._stages: dict[int, asyncio.Future[StageRun]] = {}
        self._pins = ExitStack()
        self._pinned: set[str] = set()
        self._has_context = True
        self._lenders: asyncio.Task[tuple[StageState, ...]] | None = None
        self._contexts: dict[str, asyncio.Task[str]] = {}

    # -- time ----------------------------------------------------------------------------------

    @property
    def newest(self) -> int | None:
        """The latest time of a file, in nanoseconds; None where time is not fixed."""
        return None if self.epoch is None else self.epoch * 1_000_000_000

    def now(self) -> str:
        """What a step's history says."""
        if self.epoch is not None:
            return datetime.fromtimestamp(self.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        now = datetime.fromtimestamp(time.time(), UTC)
        return now.isoformat(timespec="microseconds").replace("+00:00", "Z")

    def time_of(self, created: str) -> str:
        """When a step of the cache was made."""
        return created if self.epoch is None else self.now()

    # -- the whole -----------------------------------------------------------------------------

    async def run(self, text: str | None) -> Image:
        """Carry out the Dockerfile, which is ``text`` or in the context; the image.

        :raises Mistake: the Dockerfile cannot be read.
        :raises JaulaError: a step failed.
        """
        try:
            with self._pins:
                await self._read(text)
                await self._carry_out()
                return await self._image()
        finally:
            for task in (*self._images.values(), *self._contexts.values()):
                task.cancel()
            self.messages.complete()

    async def _read(self, text: str | None) -> None:
        """The plan; images that stages begin with are fetched on the way, for their triggers."""
        options = self.options
        self._has_context = text is None
        found = (options.dockerfile or contexts.NAMES[0], text or "")
        if text is None:
            found = await in_thread(self._dockerfile)
        read = parse(found[1], found[0])
        arguments = {name: v for name, v in options.build_args.items() if v is not None}
        here = shown(bases.wanted_platform(""))
        planning = partial(
            plan,
            read,
            target=options.target,
            build_args=arguments,
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
                    image = await self.image(planned.base.name, platform, channel.put)
                    if image.config.on_build:
                        triggers[planned.base.name] = image.config.on_build
            if triggers:
                self.plan = planning(triggers=triggers)
            if self.options.steps:
                for remark in self.plan.remarks:
                    await channel.put({"remark": msgspec.to_builtins(remark)})
            if self.plan.unused:
                names = ", ".join(self.plan.unused)
                await channel.say(f"[Warning] One or more build-args [{names}] were not consumed\n")
        finally:
            channel.close()
        self.total = sum(1 + len(planned.instructions) for planned in self.plan.stages)

    def _dockerfile(self) -> tuple[str, str]:
        """Its name in the context, and its text."""
        with opened(self._directory / "context") as context:
            try:
                found = contexts.dockerfile(context, self.options.dockerfile)
            except NotFound as error:  # 404 is for images
                raise InvalidRequest(error.message, hint=error.hint) from None
            repository = bool(self.options.remote)
            contexts.leave_out(context, found.name, everything=repository)
        return found.name, found.text

    async def _carry_out(self) -> None:
        loop = asyncio.get_running_loop()
        first, runs = 1, []
        for planned in self.plan.stages:
            index = planned.stage.index
            channel = self.messages.channel(index, planned.stage.name)
            runs.append((index, StageRun(self, planned, channel, first)))
            self._stages[index] = loop.create_future()
            first += 1 + len(planned.instructions)
        self.messages.complete()
        tasks = [loop.create_task(self._one(index, run)) for index, run in runs]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done() and (error := task.exception()) is not None:
                    raise error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for future in self._stages.values():
                future.cancel()

    async def _one(self, index: int, run: StageRun) -> None:
        await run.run()
        future = self._stages[index]
        if not future.done():
            future.set_result(run)

    async def _image(self) -> Image:
        last = (await self.stage(self.plan.stages[-1].stage.index)).state
        if self.options.squash:
            last = await in_thread(squashed, self.parts, last, self.now(), self.pin, self.newest)
        described = self._document(last)
        blobs = [layer.blob for layer in last.layers]
        names = [str(parse_reference(name)) for name in self.options.names]
        return await in_thread(self.parts.images.add, encode(described), blobs, names)

    def _document(self, state: StageState) -> ImageDocument:
        return document(state, dict(self.options.labels), self.now())

    def id_of(self, state: StageState) -> str:
        """What the image would be called, in short, if the build ended here."""
        return hashlib.sha256(encode(self._document(state))).hexdigest()[:12]

    # -- what stages share ---------------------------------------------------------------------

    async def stage(self, index: int) -> StageRun:
        """A stage at its end."""
        return await asyncio.shield(self._stages[index])

    async def image(self, name: str, platform: str, tell: Tell) -> Image:
        """An image by its name, looked for once in a build."""
        task = self._images.get((name, platform))
        if task is None:
            finding = bases.find(
                self.parts,
                self._distribution,
                name,
                platform,
                pull=self.options.pull,
                auths=self.options.auths,
                tell=tell,
            )
            task = self._images[name, platform] = asyncio.get_running_loop().create_task(finding)
        return await asyncio.shield(task)

    def pin(self, digest: str) -> None:
        """Keep a blob and the layer of that name until the build has ended."""
        if digest not in self._pinned:
            self._pinned.add(digest)
            self._pins.enter_context(self.parts.images.pinned((digest,)))

    def keep_layers(self, state: StageState) -> None:
        """The same for all layers that a stage begins with."""
        for layer in state.layers:
            self.pin(layer.diff_id)
            self.pin(layer.blob.digest)

    def own(self, key: str) -> str:
        """A step's key among those of whoever builds: nobody finds what another one made."""
        return keys.owned(key, self.owner)

    async def lent(self, key: str, tell: Tell) -> tuple[Layer | None, str] | None:
        """A step of the images that ``cachefrom`` names; None where they do not have it."""
        if self._lenders is None:
            self._lenders = asyncio.get_running_loop().create_task(self._find_lenders(tell))
        found = find_step(await asyncio.shield(self._lenders), key)
        if found is not None and found[0] is not None:
            self.pin(found[0].diff_id)
            self.pin(found[0].blob.digest)
        return found

    async def _find_lenders(self, tell: Tell) -> tuple[StageState, ...]:
        lenders = []
        for name in self.options.cache_from:
            try:
                image = await self.image(name, self.options.platform, tell)
            except JaulaError as error:  # as Docker: a build goes on without
                await tell({"status": f"Nothing of {name} is used: {error.message}"})
                continue
            lenders.append(bases.state_of(self.parts, image))
            self.keep_layers(lenders[-1])
        return tuple(lenders)

    # -- where files come from -----------------------------------------------------------------

    def origin(self, planned: PlannedStage, name: str) -> Origin:
        """What a ``from`` means; the build's own context is the one without a name."""
        return planned.origins[name] if name else Origin(Source.CONTEXT, "")

    async def layers_of(
        self, planned: PlannedStage, name: str, tell: Tell
    ) -> tuple[str, ...] | None:
        """The layers that a ``from`` means; None where it is a context."""
        origin = self.origin(planned, name)
        match origin.kind:
            case Source.STAGE:
                return (await self.stage(origin.stage)).state.diff_ids
            case Source.IMAGE:
                image_name = origin.name
            case Source.SCRATCH:
                return ()
            case Source.CONTEXT:
                image_name = self.image_behind(origin.name)
        if not image_name:
            return None
        image = await self.image(image_name, self.options.platform, tell)
        self.keep_layers(bases.state_of(self.parts, image))
        return image.layers

    def image_behind(self, context: str) -> str:
        """The image that a context is, '' for one that is a directory."""
        given = self.options.contexts.get(context, "")
        return given.removeprefix(_IMAGE) if given.startswith(_IMAGE) else ""

    async def tree(
        self, planned: PlannedStage, name: str, held: ExitStack, tell: Tell
    ) -> Tree | None:
        """Where a ``from`` looks for files, until ``held`` closes; None without a context."""
        layers = await self.layers_of(planned, name, tell)
        if layers is not None:
            root = await in_thread(held.enter_context, copying.viewed(self.parts, layers))
            return Tree(root, f"stage {name}", keeps_owners=True)
        if not name and not self._has_context:
            return None
        path = await self.context_path(name)
        title = f"the context {name}" if name else "the build context"
        return Tree(held.enter_context(opened(path)), title)

    async def context_path(self, name: str) -> str:
        """The directory of a context, fetched from the client where it is another than the own."""
        if not name:
            if not self._has_context:
                raise InvalidRequest("this build has no context")
            return str(self._directory / "context")
        task = self._contexts.get(name)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._receive(name))
            self._contexts[name] = task
        return await asyncio.shield(task)

    async def _receive(self, name: str) -> str:
        path = self._directory / f"context-{len(self._contexts)}"
        path.mkdir(mode=0o755)
        if address := self.options.contexts.get(name):
            await from_address(address, str(path), self.remotes, self.cancellation)
        elif self.session is not None:
            await from_session(self.session, name, str(path), self.cancellation)
        else:
            raise InvalidRequest(f"the context {name!r} needs a session of the client's")
        return str(path)

    # -- limits --------------------------------------------------------------------------------

    def host_of(self, run: Run) -> HostConfig:
        """The limits and modes of one RUN; what it asks for beyond the build's is judged.

        :raises NotAuthorized: the build did not allow it.
        """
        host = self.options.host
        if run.network is Network.NONE:
            host = msgspec.structs.replace(host, network_mode="none")
        elif run.network is Network.HOST and host.network_mode != "host":
            self._allowed(_NETWORK, "RUN --network=host")
            self._judge((Ask(Kind.HOST_NAMESPACE, "network"),))
            host = msgspec.structs.replace(host, network_mode="host")
        if run.security is Security.INSECURE:
            self._allowed(_INSECURE, "RUN --security=insecure")
            self._judge((Ask(Kind.PRIVILEGED),))
            host = msgspec.structs.replace(host, privileged=True)
        return host

    def _allowed(self, entitlement: str, what: str) -> None:
        if entitlement not in self.options.allow:
            raise NotAuthorized(
                f"{what} is not allowed in this build", hint=f"build with --allow {entitlement}"
            )


def remove_directory(directory: Path) -> None:
    """Remove a build's directory with everything in it."""
    shutil.rmtree(directory, ignore_errors=True)


def _epoch(options: BuildOptions) -> int | None:
    text = options.build_args.get(EPOCH)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 11):
        raise InvalidRequest(f"{EPOCH} {text[:40]!r} is no number of seconds since 1970")
    return int(text)
