"""One build: parse the Dockerfile, run its stages side by side, store the image.

:meth:`Build.run` reads and parses the Dockerfile, plans the graph of stages that the target needs,
and starts each stage when the stages that it copies from have results
(:mod:`.stage`). A stage takes one instruction after the other: it looks the instruction up in the
cache (:mod:`.cache`), else it changes the configuration, copies files (:mod:`.copy`) or runs a
container (:mod:`.run`), and stores the result as a layer. The state of the target stage becomes the
image.

A RUN may ask for more than the limits of its build: the host's network, or no confinement. The
Dockerfile may come from a stranger, so a right of the client is not a right of the file. Such a RUN
needs both: the entitlement (``--allow``) in the build's options and the rule of the caller.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from jaula.engine.parsers import in_text_thread
from jaula.engine.relaxations import Privilege, Relaxation
from jaula.engine.threads import in_thread, shielded
from jaula.errors import InvalidRequest, NotAuthorized, NotFound, Unsupported
from jaula.features.build.build_options import ProvenanceOptions, is_builtin_frontend
from jaula.features.build.builder import build_attestations, local_context
from jaula.features.build.builder.build_export import Exporter, PlatformResult
from jaula.features.build.builder.build_history import Attachment
from jaula.features.build.builder.build_progress import ProgressStream
from jaula.features.build.builder.build_result import BuildResult
from jaula.features.build.builder.build_sources import CONTEXT, requested_platform
from jaula.features.build.builder.cache_export import CacheExporter
from jaula.features.build.builder.image_state import SourceDateEpoch, image_document
from jaula.features.build.builder.job import BuildJob
from jaula.features.build.builder.squash import squash
from jaula.features.build.builder.stage import StageRun
from jaula.features.build.files import context_directory
from jaula.features.trust.sbom.formats import BuiltImage
from jaula.images.dockerfile.ast import Network, Run, Security
from jaula.images.dockerfile.budget import BuildBudget
from jaula.images.dockerfile.dockerfile_parser import parse
from jaula.images.dockerfile.stage_graph import Source, plan
from jaula.images.image_platform import format_platform, normalize, runnable
from jaula.images.reference import parse as parse_reference
from jaula.images.store.image_store import short
from jaula.kernel import binfmt_misc
from jaula.spec.image_documents import encode
from jaula.storage.trees import open_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence
    from pathlib import Path
    from typing import Any

    from jaula.engine.containers.containers import Containers
    from jaula.engine.model.services import Services
    from jaula.features.build.attestation.statement import Predicate
    from jaula.features.build.build_options import BuildOptions
    from jaula.features.build.builder.build_progress import ProgressChannel
    from jaula.features.build.builder.build_sources import BuildSources
    from jaula.features.build.builder.image_state import ImageState, StageResult
    from jaula.features.build.builder.job import Authorize
    from jaula.features.build.builder.mounts.cache_dirs import CacheDirs
    from jaula.features.build.builder.step_cache import BuildCache
    from jaula.features.build.files.context_directory import ContextLocation
    from jaula.images.dockerfile.ast import Dockerfile
    from jaula.images.dockerfile.stage_graph import StageGraph
    from jaula.images.store.image_quota import Quota
    from jaula.images.store.image_store import Image
    from jaula.spec.api_documents import HostConfig
    from jaula.spec.image_documents import ImageDocument
    from jaula.state.container_records import BuildStep

_NETWORK = "network.host"
_INSECURE = "security.insecure"

log = logging.getLogger("jaula.builds")

Result = TypeVar("Result")


class PlatformRun(NamedTuple):
    """The stages of one platform; ``platform`` is '' for that of this host."""

    platform: str
    graph: StageGraph
    sources: BuildSources


class Build:
    """One build. The owner of ``quota`` is the key of the client that builds.

    ``directory`` belongs to this build and holds its context; the caller removes it.
    """

    def __init__(
        self,
        *,
        services: Services,
        containers: Containers,
        cache: BuildCache,
        cache_dirs: CacheDirs,
        options: BuildOptions,
        directory: Path,
        quota: Quota,
        authorize: Authorize,
        sources: BuildSources,
    ) -> None:
        self.progress = ProgressStream(steps=options.steps)
        self._services = services
        self._containers = containers
        self._cache = cache
        self._cache_dirs = cache_dirs
        self._options = options
        self._directory = directory
        self._quota = quota
        self._authorize = authorize
        self._sources = sources
        self._clock = SourceDateEpoch(options.build_args)
        self._budget = BuildBudget()
        self._deferred: list[asyncio.Task[None]] = []
        self._started = build_attestations.timestamp()
        self._dockerfile = context_directory.ContextLocation("", "")

    async def run(self, dockerfile: ContextLocation | None) -> BuildResult:
        """Run the Dockerfile and return the result; None means the Dockerfile of the context.

        :raises Mistake: when the Dockerfile cannot be parsed.
        :raises JaulaError: when a step failed.
        """
        exporting = None
        try:
            runs = await self._plan(dockerfile)
            if self._options.exports is not None:
                stages = len(runs) * len(runs[0].graph.dockerfile.stages)
                exporting = self.progress.add_channel(stages, "")
            await self._run_stages(runs)
            states = tuple([await self._result(run) for run in runs])
            if exporting is None:
                return BuildResult(
                    await self._store_image(states[0], self._options.names), self._options.names
                )
            return await self._export(runs, states, exporting)
        finally:
            if exporting is not None:
                exporting.close()
            self.progress.complete()
            await shielded(self._finish_deferred())
            self._sources.close()

    async def _result(self, run: PlatformRun) -> ImageState:
        """Return the state of the target stage. A requested platform is that of the image.

        The stage may have another one, by ``FROM --platform=$BUILDPLATFORM`` of a cross build.
        """
        state = (await run.sources.stage(run.graph.stages[-1].stage.index)).state
        if run.platform:
            target, base = normalize(requested_platform(run.platform)), state.platform
            if (target.os, target.architecture) == (base.os, base.architecture):
                target = msgspec.structs.replace(target, variant=target.variant or base.variant)
            state = msgspec.structs.replace(state, platform=target)
        if self._options.squash:
            return await in_thread(squash, self._services, state, self._clock, run.sources.pin)
        return state

    async def _in_text_thread(self, work: Callable[[], Result]) -> Result:
        return await in_text_thread(self._quota.owner, self._budget, work)

    def _defer(self, work: Coroutine[Any, Any, None]) -> None:
        """Start work that the end of the build waits for, but no step."""
        self._deferred.append(asyncio.get_running_loop().create_task(work))

    async def _finish_deferred(self) -> None:
        for result in await asyncio.gather(*self._deferred, return_exceptions=True):
            if isinstance(result, BaseException):
                log.error("a step of a build cannot be removed: %s", result, exc_info=result)

    # -- the plan ------------------------------------------------------------------------------

    async def _plan(self, dockerfile: ContextLocation | None) -> list[PlatformRun]:
        """Return the stages to run for each platform.

        Base images are fetched here, for their ONBUILD triggers.
        """
        options = self._options
        if dockerfile is None:
            dockerfile = await in_thread(read_dockerfile, self._directory, options)
        text, name = dockerfile.text, dockerfile.name
        parsed = await self._in_text_thread(lambda: parse(text, name))
        if options.local is not None:
            _check_syntax(parsed.directives.syntax)
        channel = self.progress.add_channel(-1, "")
        try:
            runs = [
                await self._plan_platform(parsed, platform, channel)
                for platform in options.platforms or (options.platform,)
            ]
            graph = runs[0].graph
            if options.local is not None:
                await channel.put(
                    {
                        "dockerfile": dockerfile.name,
                        "text": dockerfile.text,
                        "stages": len(parsed.stages),
                    }
                )
            if self._sources.local is not None:
                self._sources.local.limit(local_context.used_paths([r.graph for r in runs]))
            await channel.put_warnings(graph.warnings)
            if graph.unused:
                names = ", ".join(graph.unused)
                await channel.write(
                    f"[Warning] One or more build-args [{names}] were not consumed\n"
                )
        finally:
            channel.close()
        self._dockerfile = dockerfile
        return runs

    async def _plan_platform(
        self, parsed: Dockerfile, platform: str, channel: ProgressChannel
    ) -> PlatformRun:
        options = self._options
        sources = self._sources.for_platform(platform) if options.platforms else self._sources
        make_plan = planner(parsed, options, platform, self._budget)
        graph = await self._in_text_thread(make_plan)
        if options.local is not None:
            _check_platforms(graph, platform)
        triggers = {}
        for planned in graph.stages:
            if planned.base.kind is Source.IMAGE:
                base_platform = planned.platform or platform
                image = await self._base_image(sources, planned.base.name, base_platform, channel)
                on_build = image.config.on_build
            elif planned.base.kind is Source.CONTEXT:
                base_platform = planned.platform or platform
                state = await sources.context_state(planned.base.name, base_platform, channel.put)
                on_build = () if state is None else state.config.on_build
            else:
                continue
            if on_build:
                triggers[planned.base.name] = on_build
        if triggers:
            graph = await self._in_text_thread(partial(make_plan, triggers=triggers))
        self._budget.steps(sum(1 + len(planned.instructions) for planned in graph.stages))
        return PlatformRun(platform, graph, sources)

    async def _base_image(
        self, sources: BuildSources, name: str, platform: str, channel: ProgressChannel
    ) -> Image:
        """Find a base image, as an internal step for clients that show these."""
        if self._options.local is None:
            return await sources.image(name, platform, channel.put)
        title = f"load metadata for {parse_reference(name).canonical}"
        shown = {"platform": platform if self._options.platforms else ""}
        await channel.put(local_context.started(title) | shown)
        try:
            image = await sources.image(name, platform, channel.put)
        except Exception as error:
            await channel.put(local_context.ended(title, str(error)) | shown)
            raise
        await channel.put(local_context.ended(title) | shown)
        return image

    # -- the stages ----------------------------------------------------------------------------

    async def _run_stages(self, runs: Sequence[PlatformRun]) -> None:
        loop, first, tasks = asyncio.get_running_loop(), 1, []
        stages = [planned for run in runs for planned in run.graph.stages]
        made: dict[str, asyncio.Future[BuildStep]] = {}
        for number, run in enumerate(runs):
            job = BuildJob(
                id=self._directory.name,
                services=self._services,
                containers=self._containers,
                cache=self._cache,
                cache_dirs=self._cache_dirs,
                sources=run.sources,
                owner=self._quota.owner,
                authorize=self._authorize,
                options=msgspec.structs.replace(self._options, platform=run.platform),
                graph=run.graph,
                step_count=sum(1 + len(planned.instructions) for planned in stages),
                clock=self._clock,
                defer=self._defer,
                made=made,
                step_options=partial(
                    step_options, options=self._options, authorize=self._authorize
                ),
                budget=self._budget,
                image_id=self._image_id,
            )
            offset = number * len(run.graph.dockerfile.stages)
            for planned in run.graph.stages:
                index = planned.stage.index
                channel = self.progress.add_channel(offset + index, planned.stage.name, index)
                result = run.sources.add_stage(index)
                stage = StageRun(job, planned, channel, first)
                tasks.append(loop.create_task(_run_stage(stage, result)))
                first += 1 + len(planned.instructions)
        self.progress.complete()
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done() and (error := task.exception()) is not None:
                    raise error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # -- the image -----------------------------------------------------------------------------

    async def _store_image(self, state: ImageState, tags: Iterable[str]) -> Image:
        blobs = [layer.blob for layer in state.layers]
        names = [str(parse_reference(name)) for name in tags]
        config = encode(self._document(state))
        if (image := self._find_tagged(config, names)) is not None:
            return image
        return await in_thread(self._services.images.add, config, blobs, names, self._quota)

    async def _export(
        self, runs: Sequence[PlatformRun], states: tuple[ImageState, ...], channel: ProgressChannel
    ) -> BuildResult:
        """Write the result to the destinations of the client."""
        if self._options.result:
            self._sources.keep_result(self._options.result, states)
        results = [
            PlatformResult(
                run.platform,
                state,
                encode(self._document(state)),
                partial(self._predicates, run, state),
            )
            for run, state in zip(runs, states, strict=True)
        ]
        exporter = Exporter(
            self._services,
            self._sources,
            self._options,
            results,
            channel.put,
            lambda names: self._store_image(states[0], names),
            self._quota,
        )
        image, names, response = None, list[str](), dict[str, str]()
        for export in self._options.exports or ():
            stored = await exporter.run(export, response)
            if stored is not None:
                image = stored
                names += export.names
        await self._export_cache(runs, states, channel, response)
        attachments = await in_thread(self._attachments, runs)
        return BuildResult(image, tuple(names), response, attachments)

    def _attachments(self, runs: Sequence[PlatformRun]) -> tuple[Attachment, ...]:
        """Return the provenance of each platform for the history, whether requested or not."""
        requested = self._options.provenance or ProvenanceOptions()
        options = ProvenanceOptions(builder=requested.builder)
        made = []
        for run in runs:
            predicate = build_attestations.provenance_predicate(options, self._record(run))
            data = msgspec.json.encode(predicate.content)
            platform = run.platform if self._options.platforms else ""
            made.append(Attachment(platform, predicate.kind, data))
        return tuple(made)

    def _record(self, run: PlatformRun) -> build_attestations.ProvenanceRecord:
        return build_attestations.ProvenanceRecord(
            invocation=self._directory.name,
            started=self._started,
            options=self._options,
            dockerfile=(self._dockerfile.name, self._dockerfile.text),
            graph=run.graph,
            sources=run.sources,
        )

    def _predicates(self, run: PlatformRun, state: ImageState) -> list[Predicate]:
        """Return the attestations that the client requests. Blocks."""
        image = BuiltImage(self._image_digest(state), state.created)
        predicates = []
        if self._options.sbom:
            predicates.append(
                build_attestations.sbom_predicate(
                    self._services,
                    state,
                    image,
                    self._options,
                    self._quota.owner,
                    self._sources.cancellation,
                )
            )
        if self._options.provenance is not None:
            predicates.append(
                build_attestations.provenance_predicate(self._options.provenance, self._record(run))
            )
        return predicates

    async def _export_cache(
        self,
        runs: Sequence[PlatformRun],
        states: Sequence[ImageState],
        channel: ProgressChannel,
        response: dict[str, str],
    ) -> None:
        if not self._options.cache_to:
            return
        exporter = CacheExporter(
            self._services, self._sources, self._quota, channel.put, self._clock.now()
        )
        stages = [
            (await run.sources.stage(planned.stage.index)).state
            for run in runs
            for planned in run.graph.stages
        ]
        for export in self._options.cache_to:
            await exporter.run(export, states, stages, response)

    def _find_tagged(self, config: bytes, names: list[str]) -> Image | None:
        """Return the image if it exists and has all names already: nothing is written then.

        The name of an index that has the image is not one of the image alone.
        """
        images = self._services.images
        try:
            image = images.resolve("sha256:" + hashlib.sha256(config).hexdigest())
            if not set(names) <= set(image.names):
                return None
            named = [images.resolve(name) for name in names]
            if any(images.manifest(each).annotations for each in named or [image]):
                return None
            targets = [each.target for each in named]
        except NotFound:
            return None
        return image if all(images.index(target) is None for target in targets) else None

    def _document(self, state: ImageState) -> ImageDocument:
        return image_document(state, dict(self._options.labels), self._clock.now())

    def _image_id(self, state: ImageState) -> str:
        return short(self._image_digest(state))

    def _image_digest(self, state: ImageState) -> str:
        return "sha256:" + hashlib.sha256(encode(self._document(state))).hexdigest()


def read_dockerfile(directory: Path, options: BuildOptions) -> ContextLocation:
    """Return the Dockerfile in the context of a build, and remove the ignored files there.

    :raises InvalidRequest: when the context has none.
    """
    with open_directory(directory / CONTEXT) as context:
        try:
            file = context_directory.dockerfile(context, options.dockerfile)
        except NotFound as error:  # 404 is for images
            raise InvalidRequest(error.message, hint=error.hint) from None
        context_directory.remove_ignored(context, file.name, everything=bool(options.remote))
    return file


def planner(
    parsed: Dockerfile, options: BuildOptions, platform: str, budget: BuildBudget
) -> Callable[..., StageGraph]:
    """Return :func:`~.stage_graph.plan` with the values of a build's options."""
    host_platform = format_platform(requested_platform(""))
    return partial(
        plan,
        parsed,
        target=options.target,
        build_args={name: v for name, v in options.build_args.items() if v is not None},
        platform=platform or host_platform,
        build_platform=host_platform,
        contexts=tuple(options.contexts),
        budget=budget,
    )


async def _run_stage(stage: StageRun, result: asyncio.Future[StageResult]) -> None:
    value = await stage.run()
    if not result.done():
        result.set_result(value)


def _check_platforms(graph: StageGraph, target: str) -> None:
    """Check that the programs of all stages that have a RUN can run here.

    :raises Unsupported: when neither the processor nor an emulator runs them.
    """
    runs = {(p.architecture, p.os) for p in runnable(binfmt_misc.handlers())}
    for planned in graph.stages:
        platform = requested_platform(planned.platform or target)
        has_run = any(isinstance(instruction, Run) for instruction in planned.instructions)
        if has_run and (platform.architecture, platform.os) not in runs:
            raise Unsupported(
                f"programs for {format_platform(platform)} cannot run on this machine",
                hint="register an emulator with binfmt_misc, for example with qemu-user-static",
            )


def _check_syntax(image: str) -> None:
    """Check that ``# syntax=`` names Docker's own frontend.

    :raises Unsupported: when it names another one.
    """
    if image and not is_builtin_frontend(image):
        raise Unsupported(
            f"the frontend {image[:128]!r} of '# syntax=' is not supported",
            hint="only docker/dockerfile, which is built in; no image is run as a frontend",
        )


# -- entitlements ------------------------------------------------------------------------------


def step_options(run: Run, options: BuildOptions, authorize: Authorize) -> HostConfig:
    """Return the limits and modes of one RUN. Pure, except for ``authorize``.

    :raises NotAuthorized: when the build lacks the entitlement, or the caller the privilege.
    """
    host = options.host
    if run.network is Network.NONE:
        host = msgspec.structs.replace(host, network_mode="none")
    elif run.network is Network.HOST and host.network_mode != "host":
        _require_entitlement(options, _NETWORK, "RUN --network=host")
        authorize((Privilege(Relaxation.HOST_NAMESPACE, "network"),))
        host = msgspec.structs.replace(host, network_mode="host")
    if run.security is Security.INSECURE:
        _require_entitlement(options, _INSECURE, "RUN --security=insecure")
        authorize((Privilege(Relaxation.PRIVILEGED),))
        host = msgspec.structs.replace(host, privileged=True)
    return host


def _require_entitlement(options: BuildOptions, entitlement: str, flag: str) -> None:
    if entitlement not in options.allow:
        raise NotAuthorized(
            f"{flag} is not allowed in this build", hint=f"build with --allow {entitlement}"
        )
