"""One stage: its instructions one after the other, each taken from the cache where that has it."""

from __future__ import annotations

import posixpath
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.build_threads import in_thread
from jaula.engine.builder import base_image, copy
from jaula.engine.builder import run as builder_run
from jaula.engine.builder.cache import key as cache_key
from jaula.engine.builder.cache.cache_from import noted
from jaula.engine.builder.cache.lookup import CacheLookup
from jaula.engine.builder.image_state import ImageState
from jaula.engine.builder.mounts.attach import StepMounts
from jaula.engine.builder.mounts.resolve import StepMountRequests
from jaula.images.build.copy import CopyOperation, prepare
from jaula.images.build.dockerfile import ast as words
from jaula.images.build.dockerfile.apply import Scope, change, shell_command
from jaula.images.build.dockerfile.stage_graph import Source
from jaula.storage.trees import copy_tree, open_directory

if TYPE_CHECKING:
    from jaula.engine.builder.build import Build
    from jaula.engine.builder.image_state import Layer
    from jaula.engine.builder.progress import ProgressChannel
    from jaula.images.build.dockerfile.ast import Instruction
    from jaula.images.build.dockerfile.stage_graph import PlannedStage

Ids = tuple[int, int]


class StageRun:
    """One stage of a build."""

    def __init__(
        self, build: Build, planned: PlannedStage, channel: ProgressChannel, first: int
    ) -> None:
        self._build = build
        self._parts = build.parts
        self._planned = planned
        self._channel = channel
        self._first = self._number = first
        self.state = ImageState()
        self.scope = Scope(build.plan)
        self._steps = CacheLookup(build, channel)

    async def run(self) -> None:
        """Carry it out; ``state`` and ``scope`` are what it has come to.

        :raises JaulaError: a step failed; the client was told which.
        """
        try:
            await self._begin(self._planned.stage.base)
            await self._from()
            await self._end()
            for instruction in self._planned.instructions:
                await self._begin(instruction)
                await self._carry_out(instruction)
                await self._end()
        except Exception as error:
            await self._channel.state("failed", error=str(error))
            raise
        finally:
            self._channel.close()

    async def _begin(self, instruction: Instruction) -> None:
        await self._channel.begin(self._number, self._build.total, instruction.headline)
        self._number += 1
        self._steps.cached = False

    async def _end(self) -> None:
        if self._steps.cached and self._number > self._first + 1:
            await self._channel.say(" ---> Using cache\n")
        await self._channel.say(f" ---> {self._build.id_of(self.state)}\n")
        await self._channel.state("cached" if self._steps.cached else "done")

    async def _from(self) -> None:
        planned, build = self._planned, self._build
        supplies, tell = build.supplies, self._channel.put
        platform = planned.platform or build.options.platform
        base = None
        match planned.base.kind:
            case Source.STAGE:
                below = await supplies.stage(planned.base.stage)
                state = msgspec.structs.replace(below.state, command_set=False)
                base = below.scope
            case Source.SCRATCH:
                state = ImageState(platform=base_image.wanted_platform(platform))
            case Source.IMAGE:
                state = await supplies.begin(planned.base.name, platform, tell)
            case Source.CONTEXT if image := supplies.image_behind(planned.base.name):
                state = await supplies.begin(image, platform, tell)
            case Source.CONTEXT:
                state = ImageState(platform=base_image.wanted_platform(platform))
                layer = await self._whole(planned.base.name)
                state = state.step(f"FROM {planned.base.name}", build.clock.now(), layer)
        # triggers of the base are among the instructions already
        config = msgspec.structs.replace(state.config, on_build=())
        state = msgspec.structs.replace(state, config=config)
        self.state = state
        self.scope = Scope(build.plan, config.env, base)

    async def _whole(self, context: str) -> Layer | None:
        """A directory of the client's as a root."""
        build = self._build
        path = await build.supplies.context_path(context)

        def work() -> Layer | None:
            with open_directory(path) as directory:
                return copy.filled(
                    self._parts,
                    (),
                    lambda root: copy_tree(directory, root),
                    build.supplies.pin,
                    newest=build.clock.newest,
                    exact=True,
                )

        return await in_thread(work)

    # -- instructions ------------------------------------------------------------------------

    async def _carry_out(self, instruction: Instruction) -> None:
        state, told = self.state, len(self.scope.warnings)
        instruction = self.scope.take(instruction)
        await self._channel.warnings(self.scope.warnings[told:])
        match instruction:
            case words.Arg():
                self._steps.cached = not self._build.options.no_cache  # nothing is made
                self.state = state.step(
                    instruction.source, state.created or self._build.clock.now()
                )
            case words.Run():
                await self._run(instruction)
            case words.Copy() | words.Add():
                await self._copy(instruction)
            case words.Workdir():
                await self._workdir(instruction)
            case words.Maintainer():
                self.state = msgspec.structs.replace(state, author=instruction.author)
                await self._change(instruction)
            case _:
                await self._change(instruction)

    async def _change(self, instruction: Instruction) -> None:
        state = self.state
        config = change(state.config, instruction, own_command=state.command_set)
        if isinstance(instruction, words.Cmd):
            state = msgspec.structs.replace(state, command_set=True)
        key = cache_key.of_change(state, instruction.source)
        _, created = await self._steps.step(key, instruction, _nothing)
        self.state = state.step(instruction.source, created, config=config)

    async def _workdir(self, instruction: words.Workdir) -> None:
        state, parts, build = self.state, self._parts, self._build
        path = posixpath.normpath(posixpath.join("/", state.config.working_dir, instruction.path))
        config = msgspec.structs.replace(state.config, working_dir=path)

        def work() -> Layer | None:
            with copy.viewed(parts, state.diff_ids) as root:
                if copy.is_directory(root, path):
                    return None
            owner = (0, 0)
            if state.config.user:
                owner = copy.owner_of(parts, state.diff_ids, state.config.user)
            return copy.filled(
                parts,
                state.diff_ids,
                copy.make_directory(path, owner),
                build.supplies.pin,
                newest=build.clock.newest,
                exact=True,
            )

        async def make() -> Layer | None:
            return await in_thread(work)

        key = cache_key.of_directory(state, path, build.clock.epoch)
        layer, created = await self._steps.step(key, instruction, make)
        self.state = state.step(instruction.source, created, layer, config, comment=noted(key))

    async def _copy(self, instruction: words.Copy | words.Add) -> None:
        state, supplies = self.state, self._build.supplies
        origin = instruction.origin if isinstance(instruction, words.Copy) else ""
        owner = None
        if instruction.chown:
            owner = await in_thread(copy.owner_of, self._parts, state.diff_ids, instruction.chown)
        layers = None
        if origin:
            layers = await supplies.layers_of(self._planned, origin, self._channel.put)
        quick = ""
        if layers is not None:  # they do not change, so nothing of them needs to be read
            quick = self._key_of_copy(instruction, ["layers", *layers], owner)
            if (known := self._steps.found(quick)) is not None:
                layer, created = self._steps.taken(known)
                comment = noted(known.key)
                self.state = state.step(instruction.source, created, layer, comment=comment)
                return
        with ExitStack() as held:
            tree = await supplies.tree(self._planned, origin, held, self._channel.put)

            def look() -> tuple[CopyOperation, str]:
                taking = prepare(instruction, tree, supplies.remotes, supplies.cancellation)
                return taking, taking.digest()

            taking, content = await in_thread(look)
            for text in taking.unmatched:
                await self._channel.say(f" ---> nothing matches {text}\n")
            key = self._key_of_copy(instruction, [content], owner)
            layer, created = await self._steps.step(
                key, instruction, lambda: self._placed(instruction, taking, owner), quick
            )
        self.state = state.step(instruction.source, created, layer, comment=noted(key))

    def _key_of_copy(
        self, instruction: words.Copy | words.Add, content: list[str], owner: Ids | None
    ) -> str:
        owners = [f"{owner[0]}:{owner[1]}"] if owner is not None else []
        return cache_key.of_copy(
            self.state,
            instruction.source,
            [*content, *owners],
            link=instruction.link,
            epoch=self._build.clock.epoch,
        )

    async def _placed(
        self, instruction: words.Copy | words.Add, taking: CopyOperation, owner: Ids | None
    ) -> Layer | None:
        state, build = self.state, self._build
        workdir = state.config.working_dir or "/"
        return await in_thread(
            copy.filled,
            self._parts,
            () if instruction.link else state.diff_ids,
            lambda root: taking.copy_to(root, workdir, owner),
            build.supplies.pin,
            newest=build.clock.newest,
            exact=not (isinstance(instruction, words.Copy) and instruction.origin),
        )

    async def _run(self, instruction: words.Run) -> None:
        state, build = self.state, self._build
        host = build.limits_of(instruction)
        requests = StepMountRequests(build, self._planned, state, instruction, self._channel.put)
        async with requests:
            arguments = (
                (requests.script_path,)
                if instruction.script
                else shell_command(
                    state.config, instruction.command, shell_form=instruction.shell_form
                )
            )
            given = [f"{name}={value}" for name, value in self.scope.arguments().items()]

            async def make() -> Layer | None:
                wanted = await requests.mounts()
                hidden = [f"{n}={v}" for n, v in build.plan.hidden.items()]
                command = builder_run.RunCommand(
                    arguments=arguments,
                    environment=(*given, *state.config.env, *hidden, *requests.environment),
                    host=host,
                    build=build.id,
                    newest=build.clock.newest,
                )
                await self._channel.say(" ---> Running in a container\n")
                return await builder_run.run(
                    build.containers,
                    state,
                    command,
                    StepMounts(self._parts, wanted),
                    build.judge,
                    self._channel.say,
                    build.supplies.pin,
                    build.later,
                )

            key = cache_key.of_run(
                state,
                (*arguments, instruction.script),
                flags=instruction.flags,
                environment=(*given, *state.config.env),
                mounted=await requests.digests(),
                network=host.network_mode,
                hosts=host.extra_hosts,
                epoch=build.clock.epoch,
            )
            layer, created = await self._steps.step(key, instruction, make)
        about = f"|{len(given)} {' '.join(given)} " if given else ""
        text = f"RUN {about}{' '.join(arguments)}"
        self.state = state.step(text, created, layer, comment=noted(key))


async def _nothing() -> None:
    return None
