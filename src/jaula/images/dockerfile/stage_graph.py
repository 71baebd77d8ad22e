"""Select the stages of a Dockerfile that a target needs, and order them.

Source: the Dockerfile reference, sections FROM, 'Understand how ARG and FROM interact', ONBUILD and
'Predefined ARGs'.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum

import msgspec

from jaula.images.dockerfile.ast import (
    Arg,
    Copy,
    Dockerfile,
    Instruction,
    LintWarning,
    Onbuild,
    Run,
    Stage,
)
from jaula.images.dockerfile.budget import BuildBudget
from jaula.images.dockerfile.dockerfile_error import DockerfileError, did_you_mean, printable
from jaula.images.dockerfile.dockerfile_parser import parse_trigger
from jaula.images.dockerfile.expand import Substitution
from jaula.images.reference import familiar

PROXIES = frozenset(
    name
    for word in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (word, word.lower())
)
"""Arguments that need no ARG. Without one they are not part of history and cache key."""

_BUILDER_ARGUMENTS = ("BUILDKIT_", "SOURCE_DATE_EPOCH")
"""Prefixes of arguments that are for the builder, not for the Dockerfile."""


class Source(StrEnum):
    """The kind of origin of files: a stage, an image, a context of the client, or nothing."""

    STAGE = "stage"
    IMAGE = "image"
    CONTEXT = "context"
    SCRATCH = "scratch"


class Origin(msgspec.Struct, frozen=True):
    """The origin that a FROM or a ``from`` names. ``stage`` is an index, -1 for other kinds."""

    kind: Source
    name: str
    stage: int = -1


class PlannedStage(msgspec.Struct, frozen=True):
    """A stage that the target needs.

    ``platform`` is '' for the target's. ``instructions`` are the triggers of the base and the
    stage's own. ``needs`` are the indices of the stages that it depends on. ``origins`` resolves
    each ``from`` of its COPY and ``RUN --mount``.
    """

    stage: Stage
    base: Origin
    platform: str
    instructions: tuple[Instruction, ...]
    needs: tuple[int, ...]
    origins: Mapping[str, Origin]


class StageGraph(msgspec.Struct, frozen=True):
    """``stages`` are in topological order; the last one is the target.

    ``build_args`` are the client's. ``arguments`` are further values for an ARG without a default:
    those before the first FROM, and the platform's. ``hidden`` is in the environment of every RUN,
    but not in history and cache key (the proxies). ``unused`` are arguments that no ARG declares.
    """

    dockerfile: Dockerfile
    stages: tuple[PlannedStage, ...]
    build_args: Mapping[str, str]
    arguments: Mapping[str, str]
    hidden: Mapping[str, str]
    unused: tuple[str, ...]
    warnings: tuple[LintWarning, ...]


def plan(
    dockerfile: Dockerfile,
    *,
    target: str = "",
    build_args: Mapping[str, str] = {},
    platform: str = "linux/amd64",
    build_platform: str = "",
    contexts: Collection[str] = (),
    triggers: Mapping[str, Sequence[str]] = {},
    budget: BuildBudget | None = None,
) -> StageGraph:
    """Return the stages that ``target`` needs, in order. An empty target is the last stage.

    ``platform`` (``linux/arm/v7``) is the target platform, ``build_platform`` the build machine's
    ('' the same). ``contexts`` are names of the client's named contexts; they take precedence over
    stages and images. ``triggers`` are the ONBUILD texts of images by the name in FROM. A caller
    that needs the images first to know them makes a plan without triggers, and then a second one.
    ``budget`` is that of the build.

    :raises DockerfileError: if the target or a reference is not valid.
    """
    return _Planner(
        dockerfile,
        build_args,
        platform,
        build_platform or platform,
        contexts,
        triggers,
        budget or BuildBudget(),
    ).plan(target)


class _Planner:
    def __init__(
        self,
        dockerfile: Dockerfile,
        build_args: Mapping[str, str],
        platform: str,
        build_platform: str,
        contexts: Collection[str],
        triggers: Mapping[str, Sequence[str]],
        budget: BuildBudget,
    ) -> None:
        self.budget = budget
        self.dockerfile, self.build_args = dockerfile, build_args
        self.contexts, self.triggers = contexts, triggers
        self.warnings = list(dockerfile.warnings)
        self.arguments = platform_arguments(platform, build_platform)
        self.arguments |= {k: v for k, v in build_args.items() if k in self.arguments}
        self.declared: set[str] = set(self.arguments)
        self.planned: dict[int, PlannedStage] = {}
        self.open: set[int] = set()

    def plan(self, target: str) -> StageGraph:
        last = self._target(target)
        self.arguments["TARGETSTAGE"] = self.dockerfile.stages[last].name or "default"
        self._globals()
        self._add(last)
        stages = tuple(self.planned.values())
        for stage in stages:
            for instruction in stage.instructions:
                if isinstance(instruction, Arg):
                    self.declared.update(name for name, _ in instruction.pairs)
        unused = sorted(
            name
            for name in self.build_args
            if name not in self.declared
            and name not in PROXIES
            and not name.startswith(_BUILDER_ARGUMENTS)
        )
        hidden = {name: value for name, value in self.build_args.items() if name in PROXIES}
        return StageGraph(
            self.dockerfile,
            stages,
            dict(self.build_args),
            self.arguments,
            hidden,
            tuple(unused),
            tuple(self.warnings),
        )

    def _target(self, target: str) -> int:
        stages = self.dockerfile.stages
        if not target:
            return len(stages) - 1
        for stage in stages:
            if stage.name == target.lower() and stage.name:
                return stage.index
        if (
            target.isascii()
            and target.isdecimal()
            and len(target) < 5
            and int(target) < len(stages)
        ):
            return int(target)
        names = [stage.name for stage in stages if stage.name]
        raise DockerfileError(
            f'target stage "{printable(target)}" could not be found in {self.dockerfile.name}',
            hint=did_you_mean(target, names)
            or (f"one of {', '.join(names)}"[:300] if names else ""),
        )

    def _globals(self) -> None:
        """Evaluate the arguments before the first FROM; each can use those before it."""
        for instruction in self.dockerfile.arguments:
            substitute = Substitution(
                self.arguments, self.dockerfile.directives.escape, budget=self.budget
            )
            for name, default in instruction.pairs:
                try:
                    name = substitute(name)
                    value = self.build_args.get(name)
                    if value is None and default is not None:
                        value = substitute(default)
                except DockerfileError as error:
                    raise self._at(error, instruction) from None
                self.declared.add(name)
                if value is not None:
                    self.arguments[name] = value

    def _add(self, index: int) -> None:
        """Plan a stage after those it needs. Without recursion, since a chain may be long."""
        pending = [index]
        while pending:
            current = pending[-1]
            if current in self.planned:
                pending.pop()
                continue
            planned = self._stage(self.dockerfile.stages[current])
            missing = [need for need in planned.needs if need not in self.planned]
            if not missing:
                self.planned[current] = planned
                self.open.discard(current)
                pending.pop()
                continue
            self.open.add(current)
            for need in missing:
                if need in self.open:
                    name = self.dockerfile.stages[need].name or str(need)
                    raise self._at(
                        DockerfileError(f"circular dependency detected on stage: {name}"),
                        self.dockerfile.stages[current].base,
                    )
            pending.append(missing[0])

    def _stage(self, stage: Stage) -> PlannedStage:
        base, platform = self._base(stage)
        triggers = self._triggers(base, stage)
        instructions = triggers + stage.instructions
        origins: dict[str, Origin] = {}
        for instruction in instructions:
            if isinstance(instruction, Copy):
                names = [instruction.origin]
            elif isinstance(instruction, Run):
                names = [mount.origin for mount in instruction.mounts]
            else:
                continue
            for name in names:
                if name and name not in origins:
                    try:
                        origins[name] = self._origin(name, stage.index)
                        if origins[name].stage == stage.index:
                            raise DockerfileError(
                                f"invalid from flag value {name}: it is the stage itself"
                            )
                    except DockerfileError as error:
                        raise self._at(error, instruction) from None
        needs = sorted({o.stage for o in (base, *origins.values()) if o.kind is Source.STAGE})
        return PlannedStage(stage, base, platform, instructions, tuple(needs), origins)

    def _base(self, stage: Stage) -> tuple[Origin, str]:
        substitute = Substitution(
            self.arguments, self.dockerfile.directives.escape, budget=self.budget
        )
        try:
            name = substitute(stage.base.base)
            platform = substitute(stage.base.platform)
            if not name:
                raise DockerfileError(
                    f"base name ({stage.base.base}) should not be blank",
                    hint="add an ARG with a default before the first FROM",
                )
            if stage.base.platform and not platform:
                raise DockerfileError(f"empty platform value from expression {stage.base.platform}")
        except DockerfileError as error:
            raise self._at(error, stage.base) from None
        for unset in substitute.unset:
            self.warnings.append(
                LintWarning(
                    "UndefinedArgInFrom",
                    f"FROM argument '{printable(unset)}' is not declared",
                    stage.base.location,
                )
            )
        if (context := self._context(name)) is not None:
            return Origin(Source.CONTEXT, context), platform
        if name == "scratch":
            return Origin(Source.SCRATCH, name), platform
        earlier = self._named(name, range(stage.index - 1, -1, -1))
        if earlier is not None:
            return Origin(Source.STAGE, name, earlier), platform
        return Origin(Source.IMAGE, name), platform

    def _triggers(self, base: Origin, stage: Stage) -> tuple[Instruction, ...]:
        if base.kind is Source.STAGE:
            own = self.dockerfile.stages[base.stage].instructions
            texts: Sequence[str] = [i.trigger for i in own if isinstance(i, Onbuild)]
        else:
            texts = self.triggers.get(base.name, ())
        escape = self.dockerfile.directives.escape
        return tuple(
            parse_trigger(text, base=base.name, location=stage.base.location, escape=escape)
            for text in texts
        )

    def _origin(self, name: str, index: int) -> Origin:
        """Resolve a ``from`` in stage ``index``; earlier stages take precedence."""
        stages = self.dockerfile.stages
        if (context := self._context(name)) is not None:
            return Origin(Source.CONTEXT, context)
        if name.isascii() and name.isdecimal():
            number = int(name) if len(name) < 6 else len(stages)
            if number >= len(stages):
                raise DockerfileError(
                    f"invalid stage index {name[:40]}",
                    hint=f"use a number from 0 to {len(stages) - 1}",
                )
            return Origin(Source.STAGE, name, number)
        if name == "scratch":
            return Origin(Source.SCRATCH, name)
        order = (*range(index - 1, -1, -1), *range(index, len(stages)))
        stage = self._named(name, order)
        return Origin(Source.IMAGE, name) if stage is None else Origin(Source.STAGE, name, stage)

    def _context(self, name: str) -> str | None:
        """Return the named context that replaces a stage or an image; None if there is none.

        Clients shorten the names of contexts: ``alpine`` replaces ``docker.io/library/alpine`` too.
        """
        if name in self.contexts:
            return name
        if not self.contexts:
            return None
        short = (familiar(name) or "").removesuffix(":latest")
        return short if short in self.contexts else None

    def _named(self, name: str, order: Sequence[int]) -> int | None:
        lower = name.lower()
        return next((i for i in order if self.dockerfile.stages[i].name == lower), None)

    def _at(self, error: DockerfileError, instruction: Instruction) -> DockerfileError:
        return self.dockerfile.at(error, instruction.location)


def platform_arguments(platform: str, build_platform: str) -> dict[str, str]:
    """Return ``TARGETPLATFORM``, ``BUILDPLATFORM`` and their parts."""
    arguments = {}
    for prefix, text in (("TARGET", platform), ("BUILD", build_platform)):
        system, _, rest = text.partition("/")
        architecture, _, variant = rest.partition("/")
        arguments[f"{prefix}PLATFORM"] = text
        arguments[f"{prefix}OS"] = system
        arguments[f"{prefix}ARCH"] = architecture
        arguments[f"{prefix}VARIANT"] = variant
    return arguments
