"""One stage of a build: run its instructions in order, and take cached steps where possible."""

from __future__ import annotations

import posixpath
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import msgspec

from jaula import spans
from jaula.engine.oci_spec.start_spec import DEFAULT_PATH
from jaula.engine.parsers import in_text_thread
from jaula.engine.threads import in_own_thread, in_thread, shielded
from jaula.errors import StepFailed
from jaula.features.build.builder import copy_step, run_step, step_cache
from jaula.features.build.builder.build_sources import requested_platform
from jaula.features.build.builder.image_state import ImageState, StageResult
from jaula.features.build.builder.mounts.mount_step import StepMounts
from jaula.features.build.builder.mounts.resolve import StepMountRequests
from jaula.features.build.builder.step_cache import CacheLookup, key_comment
from jaula.features.build.files.copy_files import CopyOperation, prepare
from jaula.images.dockerfile import ast
from jaula.images.dockerfile.apply_instructions import (
    Scope,
    change,
    entries,
    sets_command,
    shell_command,
)
from jaula.images.dockerfile.dockerfile_error import DockerfileError
from jaula.images.dockerfile.stage_graph import Source
from jaula.images.image_platform import format_platform, normalize, parse_platform
from jaula.images.reference import parse as parse_reference
from jaula.spec.image_documents import ImageConfig, Platform
from jaula.storage.trees import copy_tree, open_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jaula.features.build.builder.build_progress import ProgressChannel
    from jaula.features.build.builder.image_state import Layer
    from jaula.features.build.builder.job import BuildJob
    from jaula.images.dockerfile.ast import Instruction
    from jaula.images.dockerfile.stage_graph import PlannedStage

Ids = tuple[int, int]
Result = TypeVar("Result")

COUNTED = frozenset({"FROM", "RUN", "COPY", "ADD", "WORKDIR"})
"""The instructions that are steps for BuildKit: those that change files."""


class StageRun:
    """One stage of a build. ``first`` is the number of its first step in the whole build."""

    def __init__(
        self, job: BuildJob, planned: PlannedStage, channel: ProgressChannel, first: int
    ) -> None:
        self._job = job
        self._services = job.services
        self._sources = job.sources
        self._planned = planned
        self._channel = channel
        self._buildkit = job.options.local is not None  # of the client
        self._first = self._number = first
        self._positions = _positions(planned, first)
        self._instruction: Instruction = planned.stage.base
        self._state = ImageState()
        self._scope = Scope(job.graph, budget=job.budget)
        name = planned.stage.name.lower()
        filtered = [text.lower() for text in job.options.no_cache_stages]
        self._no_cache = job.options.no_cache or bool(name and name in filtered)
        self._cache = CacheLookup(
            job.cache,
            owner=job.owner,
            clock=job.clock,
            no_cache=self._no_cache,
            images_only=job.options.cache_from_only,
            from_images=lambda key: job.sources.step_from_images(key, channel.put),
            keep=job.sources.pin_layers,
            layer_size=lambda diff_id: job.services.layers.info(diff_id).size,
            sync=job.services.images.sync,
            made=job.made,
        )

    async def run(self) -> StageResult:
        """Run the stage and return its result.

        :raises JaulaError: when a step failed; the client has received the number of the step.
        """
        try:
            with self._span(self._planned.stage.base):
                await self._begin_step(self._planned.stage.base)
                await self._from()
                await self._end_step()
            for instruction in self._planned.instructions:
                with self._span(instruction) as span:
                    await self._begin_step(instruction)
                    await self._run_instruction(instruction)
                    await self._end_step()
                    span.set("build.cached", self._cache.cached)
        except Exception as error:
            lines = msgspec.to_builtins(self._instruction.location)
            exit_of = {}
            if isinstance(error, StepFailed):
                exit_of = {"command": error.command, "code": error.exit_code}
            await self._channel.put_state("failed", error=str(error), location=lines, **exit_of)
            raise
        finally:
            self._channel.close()
        return StageResult(self._state, self._scope)

    def _span(self, instruction: Instruction) -> spans.Span | spans.NoSpan:
        """Return the span of a step. Its text is left out, since it may have secrets."""
        attributes: dict[str, spans.Attribute] = {
            "build.step": self._number,
            "build.stage": self._planned.stage.name,
        }
        return spans.span(f"build {instruction.word}", attributes)

    async def _begin_step(self, instruction: Instruction) -> None:
        self._instruction = instruction
        await self._channel.begin_step(
            self._number,
            self._job.step_count,
            instruction.headline,
            word=instruction.word,
            position=self._positions.get(self._number, (0, 0)),
            image=_image_name(self._planned) if instruction.word == "FROM" else "",
            platform=self._platform(instruction),
        )
        self._number += 1
        self._cache.cached = False

    def _platform(self, instruction: Instruction) -> str:
        """Return the platform of a step as BuildKit shows it; '' unless the build has several."""
        options = self._job.options
        if not options.platforms:
            return ""
        base = normalize(requested_platform(self._planned.platform or options.platform))
        arguments = {} if instruction.word == "FROM" else self._scope.arguments()
        return format_platform(base) + target_suffix(base, arguments)

    async def _end_step(self) -> None:
        if self._cache.cached and self._number > self._first + 1:
            await self._channel.write(" ---> Using cache\n")
        image = await self._in_text_thread(lambda: self._job.image_id(self._state))
        await self._channel.write(f" ---> {image}\n")
        await self._channel.put_state("cached" if self._cache.cached else "done")

    async def _from(self) -> None:
        planned, job, sources = self._planned, self._job, self._sources
        platform = planned.platform or job.options.platform
        base_scope = None
        match planned.base.kind:
            case Source.STAGE:
                base = await sources.stage(planned.base.stage)
                state = msgspec.structs.replace(base.state, command_set=False)
                base_scope = base.scope
            case Source.SCRATCH:
                # As in Docker: no base image sets a path. BuildKit sets the directory too.
                directory = "/" if self._buildkit else ""
                config = ImageConfig(env=(f"PATH={DEFAULT_PATH}",), working_dir=directory)
                state = ImageState(config=config, platform=requested_platform(platform))
            case Source.IMAGE:
                state = await sources.base_state(planned.base.name, platform, self._channel.put)
            case Source.CONTEXT:
                state = await self._state_of_context(planned.base.name, platform)
        # The plan has already put the triggers of the base among the instructions.
        config = msgspec.structs.replace(state.config, on_build=())
        self._state = msgspec.structs.replace(state, config=config)
        self._scope = Scope(job.graph, config.env, base_scope, job.budget)

    async def _state_of_context(self, name: str, platform: str) -> ImageState:
        """Return the state of a context that is the base of a stage: an image, or a directory."""
        state = await self._sources.context_state(name, platform, self._channel.put)
        if state is not None:
            return state
        state = ImageState(platform=requested_platform(platform))
        layer = await self._layer_of_context(name)
        return state.step(f"FROM {name}", self._job.clock.now(), layer)

    async def _layer_of_context(self, name: str) -> Layer | None:
        """Return the layer of a context directory that is the base of a stage."""
        path = await self._sources.context_path(name, self._channel.put)

        def work() -> Layer | None:
            with open_directory(path) as directory:
                return copy_step.make_layer(
                    self._services,
                    (),
                    lambda root: copy_tree(directory, root),
                    self._sources.pin,
                    newest=self._job.clock.newest,
                    exact=True,
                )

        return await in_thread(work)

    async def _in_text_thread(self, work: Callable[[], Result]) -> Result:
        """Run work that is proportional to the text of the build outside the event loop."""
        return await in_text_thread(self._job.owner, self._job.budget, work)

    # -- instructions ------------------------------------------------------------------------

    async def _run_instruction(self, instruction: Instruction) -> None:
        state, reported = self._state, len(self._scope.warnings)
        instruction = await self._in_text_thread(partial(self._expand, instruction))
        await self._channel.put_warnings(self._scope.warnings[reported:])
        match instruction:
            case ast.Arg():
                self._cache.cached = not self._no_cache  # an ARG makes no layer
                self._state = state.step(instruction.source, state.created)
            case ast.Run():
                await self._run(instruction)
            case ast.Copy() | ast.Add():
                await self._copy(instruction)
            case ast.Workdir():
                await self._workdir(instruction)
            case ast.Maintainer():
                self._state = msgspec.structs.replace(state, author=instruction.author)
                await self._change_config(instruction)
            case _:
                await self._change_config(instruction)

    def _expand(self, instruction: Instruction) -> Instruction:
        """Return the instruction with its variables replaced. Runs in a thread."""
        state, job = self._state, self._job
        try:
            job.budget.entries(entries(state.config) + len(state.history))
        except DockerfileError as error:
            raise job.graph.dockerfile.at(error, instruction.location) from None
        return self._scope.take(instruction)

    async def _change_config(self, instruction: Instruction) -> None:
        state = self._state
        text = instruction.source

        def work() -> tuple[ImageConfig, str]:
            config = change(
                state.config, instruction, own_command=state.command_set, buildkit=self._buildkit
            )
            return config, step_cache.config_key(state, text)

        config, key = await self._in_text_thread(work)
        if sets_command(instruction):
            state = msgspec.structs.replace(state, command_set=True)
        _, created = await self._cache.get_or_make(
            key,
            instruction,
            _no_layer,
            from_images=lambda: self._sources.change_from_images(state, text, self._channel.put),
        )
        self._state = state.step(instruction.source, created, config=config)

    async def _workdir(self, instruction: ast.Workdir) -> None:
        state, services, job = self._state, self._services, self._job
        path = posixpath.normpath(posixpath.join("/", state.config.working_dir, instruction.path))
        config = msgspec.structs.replace(state.config, working_dir=path)

        def work() -> Layer | None:
            with copy_step.open_layers(services, state.diff_ids) as root:
                if copy_step.is_directory(root, path):
                    return None
            owner = (0, 0)
            if state.config.user:
                owner = copy_step.resolve_owner(services, state.diff_ids, state.config.user)
            return copy_step.make_layer(
                services,
                state.diff_ids,
                copy_step.make_directory(path, owner),
                self._sources.pin,
                newest=job.clock.newest,
                exact=True,
            )

        async def make() -> Layer | None:
            return await in_thread(work)

        key = step_cache.directory_key(state, path, job.clock.epoch)
        layer, created = await self._cache.get_or_make(key, instruction, make)
        self._state = state.step(
            instruction.source, created, layer, config, comment=key_comment(key)
        )

    async def _copy(self, instruction: ast.Copy | ast.Add) -> None:
        state, sources = self._state, self._sources
        origin = instruction.origin if isinstance(instruction, ast.Copy) else ""
        owner = None
        if instruction.chown:
            owner = await in_thread(
                copy_step.resolve_owner, self._services, state.diff_ids, instruction.chown
            )
        layers = None
        if origin:
            layers = await sources.layers_of(self._planned, origin, self._channel.put)
        quick = ""
        if layers is not None:  # layers never change, so a key without reading them is enough
            quick = self._copy_key(instruction, ["layers", *layers], owner)
            if (cached := self._cache.find(quick)) is not None:
                layer, created = self._cache.use(cached)
                comment = key_comment(cached.key)
                self._state = state.step(instruction.source, created, layer, comment=comment)
                return
        with ExitStack() as held:
            tree = await sources.tree(self._planned, origin, held, self._channel.put)

            def resolve() -> tuple[CopyOperation, str]:
                operation = prepare(instruction, tree, sources.remotes, sources.cancellation)
                return operation, operation.digest()

            operation, content = await shielded(in_own_thread(resolve))
            for text in operation.unmatched:
                await self._channel.write(f" ---> no file matches {text}\n")
            key = self._copy_key(instruction, [content], owner)
            layer, created = await self._cache.get_or_make(
                key, instruction, lambda: self._make_copy(instruction, operation, owner), quick
            )
        self._state = state.step(instruction.source, created, layer, comment=key_comment(key))

    def _copy_key(
        self, instruction: ast.Copy | ast.Add, content: list[str], owner: Ids | None
    ) -> str:
        owners = [f"{owner[0]}:{owner[1]}"] if owner is not None else []
        return step_cache.copy_key(
            self._state,
            instruction.source,
            [*content, *owners],
            link=instruction.link,
            epoch=self._job.clock.epoch,
        )

    async def _make_copy(
        self, instruction: ast.Copy | ast.Add, operation: CopyOperation, owner: Ids | None
    ) -> Layer | None:
        state = self._state
        workdir = state.config.working_dir or "/"
        return await in_thread(
            copy_step.make_layer,
            self._services,
            () if instruction.link else state.diff_ids,
            lambda root: operation.copy_to(root, workdir, owner),
            self._sources.pin,
            newest=self._job.clock.newest,
            exact=not (isinstance(instruction, ast.Copy) and instruction.origin),
        )

    async def _run(self, instruction: ast.Run) -> None:
        state, job, sources = self._state, self._job, self._sources
        host = job.step_options(instruction)
        requests = StepMountRequests(job, self._planned, state, instruction, self._channel.put)
        async with requests:
            arguments = (
                (requests.script_path,)
                if instruction.script
                else shell_command(
                    state.config, instruction.command, shell_form=instruction.shell_form
                )
            )
            build_args = [f"{name}={value}" for name, value in self._scope.arguments().items()]

            async def make() -> Layer | None:
                mounts = await requests.mounts()
                hidden = [f"{n}={v}" for n, v in job.graph.hidden.items()]
                command = run_step.RunCommand(
                    arguments=arguments,
                    environment=(*build_args, *state.config.env, *hidden, *requests.environment),
                    host=host,
                    build=job.id,
                    newest=job.clock.newest,
                )
                await self._channel.write(" ---> Running in a container\n")
                return await run_step.run(
                    job.containers,
                    state,
                    command,
                    StepMounts(self._services, mounts),
                    job.authorize,
                    self._channel.write,
                    sources.pin,
                    job.defer,
                )

            key = step_cache.run_key(
                state,
                (*arguments, instruction.script),
                flags=instruction.flags,
                environment=(*build_args, *state.config.env),
                mounted=await requests.digests(),
                network=host.network_mode,
                hosts=host.extra_hosts,
                epoch=job.clock.epoch,
            )
            layer, created = await self._cache.get_or_make(key, instruction, make)
        prefix = f"|{len(build_args)} {' '.join(build_args)} " if build_args else ""
        text = f"RUN {prefix}{' '.join(arguments)}"
        self._state = state.step(text, created, layer, comment=key_comment(key))


def target_suffix(base: Platform, arguments: Mapping[str, str]) -> str:
    """Return ``->arm64`` for a step on ``base`` that builds for another platform. Pure.

    Only a stage that declares ``TARGETPLATFORM`` or a part of it is known to build for another.
    Source: moby/buildkit ``dockerfile2llb`` (``formatTargetPlatform``).
    """
    if text := arguments.get("TARGETPLATFORM"):
        target = parse_platform(text) or base
    else:
        target = Platform(
            arguments.get("TARGETARCH", base.architecture),
            arguments.get("TARGETOS", base.os),
            arguments.get("TARGETVARIANT", base.variant),
        )
    target = normalize(target)
    if target.os != base.os:
        return f"->{format_platform(target)}"
    if target.architecture == base.architecture:
        return ""
    return f"->{target.architecture}" + (f"/{target.variant}" if target.variant else "")


def _positions(planned: PlannedStage, first: int) -> dict[int, tuple[int, int]]:
    """Return place and number of the steps that BuildKit counts, by their number. Pure."""
    words = ["FROM", *(instruction.word for instruction in planned.instructions)]
    counted = [first + index for index, word in enumerate(words) if word in COUNTED]
    return {number: (place, len(counted)) for place, number in enumerate(counted, 1)}


def _image_name(planned: PlannedStage) -> str:
    """Return the full name of the base image of a stage, '' if it is not based on one. Pure."""
    base = planned.base
    return parse_reference(base.name).canonical if base.kind is Source.IMAGE else ""


async def _no_layer() -> None:
    return None
