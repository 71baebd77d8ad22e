"""Documents about a Dockerfile for ``docker build --call``: its targets, parameters and warnings.

The documents have BuildKit's form, and clients print them. Lines count from 1. Nothing is built.

Pure. Source: moby/buildkit ``frontend/subrequests`` (the documents) and ``frontend/dockerfile``
(which parameters a target has).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jaula.images.dockerfile.apply_instructions import Scope, change, entries
from jaula.images.dockerfile.ast import (
    Arg,
    Dockerfile,
    LintWarning,
    Location,
    MountKind,
    Run,
)
from jaula.images.dockerfile.budget import BuildBudget
from jaula.images.dockerfile.dockerfile_error import DockerfileError
from jaula.images.dockerfile.lint import without_skipped
from jaula.images.dockerfile.stage_graph import PlannedStage, Source, StageGraph
from jaula.spec.image_documents import ImageConfig

Document = dict[str, Any]
BaseConfig = Callable[[str], ImageConfig | None]
"""Return the configuration of a base image by its name; None if it is not known."""


def targets(dockerfile: Dockerfile) -> Document:
    """Return the stages, of which the last one is the default target."""
    listed = []
    for stage in dockerfile.stages:
        target = {
            "name": stage.name,
            "default": stage is dockerfile.stages[-1],
            "description": _comment(dockerfile, stage.base.location, stage.name),
            "base": stage.base.base,
            "platform": stage.base.platform,
        }
        known = {key: value for key, value in target.items() if value}
        listed.append({**known, "location": _location(stage.base.location)})
    return {"targets": listed, "sources": [_source(dockerfile)]}


def outline(graph: StageGraph) -> Document:
    """Return the parameters of the target of ``graph``: build arguments, secrets, ssh agents."""
    dockerfile = graph.dockerfile
    target = graph.stages[-1].stage
    arguments: dict[str, Document] = {}
    secrets: dict[str, Document] = {}
    agents: dict[str, Document] = {}
    for planned in graph.stages:
        for instruction in planned.instructions:
            match instruction:
                case Arg():
                    _add_arguments(arguments, graph, instruction)
                case Run():
                    for mount in instruction.mounts:
                        kinds = {MountKind.SECRET: secrets, MountKind.SSH: agents}
                        if (parameters := kinds.get(mount.kind)) is not None:
                            where = _location(instruction.location)
                            document = {"name": mount.id, "required": mount.required}
                            known = {key: value for key, value in document.items() if value}
                            parameters.setdefault(mount.id, {**known, "location": where})
    used = "\n".join(p.stage.base.base + p.stage.base.platform for p in graph.stages)
    for declared in dockerfile.arguments:
        if any(f"${name}" in used or f"${{{name}" in used for name, _ in declared.pairs):
            _add_arguments(arguments, graph, declared)
    made = {
        "name": target.name,
        "description": _comment(dockerfile, target.base.location, target.name),
        "args": _ordered(arguments),
        "secrets": _ordered(secrets),
        "ssh": _ordered(agents),
        "sources": [_source(dockerfile)],
    }
    return {key: value for key, value in made.items() if value}


def lint(
    name: str,
    text: str,
    warnings: Iterable[LintWarning],
    error: DockerfileError | None = None,
) -> Document:
    """Return the warnings about a Dockerfile, and the error that would end its build."""
    document: Document = {
        "warnings": [
            {
                "ruleName": warning.rule,
                "url": warning.url,
                "detail": warning.message,
                "location": _location(warning.location),
            }
            for warning in warnings
        ],
        "sources": [
            {
                "filename": name,
                "language": "Dockerfile",
                "data": b64encode(text.encode()).decode(),
            }
        ],
    }
    if error is not None:
        line = Location(error.line or 1, error.line or 1)
        document["buildError"] = {"message": error.reason, "location": _location(line)}
    return document


def all_warnings(
    graph: StageGraph, base_config: BaseConfig, budget: BuildBudget
) -> list[LintWarning]:
    """Return the warnings of a build of ``graph``, and those about variables that are not set.

    Variables of a base image whose configuration is not known could be set: its stages have none of
    these warnings.

    :raises DockerfileError: when an instruction is not valid.
    """
    warnings = list(graph.warnings)
    scopes: dict[int, tuple[Scope, ImageConfig, bool]] = {}
    for planned in graph.stages:
        base_scope, config, known = _base(planned, scopes, base_config)
        scope = Scope(graph, config.env, base_scope, budget)
        for instruction in planned.instructions:
            budget.entries(entries(config))
            config = change(config, scope.take(instruction))
        scopes[planned.stage.index] = scope, config, known
        if known:
            warnings += scope.warnings
    return without_skipped(warnings, graph.dockerfile.directives)


def _base(
    planned: PlannedStage,
    scopes: dict[int, tuple[Scope, ImageConfig, bool]],
    base_config: BaseConfig,
) -> tuple[Scope | None, ImageConfig, bool]:
    """Return the variables that a stage begins with, and whether these are all."""
    match planned.base.kind:
        case Source.STAGE:
            return scopes[planned.base.stage]
        case Source.SCRATCH:
            return None, ImageConfig(), True
        case Source.IMAGE:
            config = base_config(planned.base.name)
            return None, config or ImageConfig(), config is not None
        case Source.CONTEXT:
            return None, ImageConfig(), False


def _add_arguments(arguments: dict[str, Document], graph: StageGraph, declared: Arg) -> None:
    for name, default in declared.pairs:
        value = graph.build_args.get(name)
        if value is None:
            value = default if default is not None else graph.arguments.get(name, "")
        document = {
            "name": name,
            "description": _comment(graph.dockerfile, declared.location, name),
            "value": value,
        }
        known = {key: value for key, value in document.items() if value}
        arguments.setdefault(name, {**known, "location": _location(declared.location)})


def _ordered(parameters: dict[str, Document]) -> list[Document]:
    return sorted(parameters.values(), key=lambda p: p["location"]["ranges"][0]["start"]["line"])


def _comment(dockerfile: Dockerfile, location: Location, name: str) -> str:
    """Return the description of a name: a comment ``# NAME DESCRIPTION`` right before its lines."""
    rows: Sequence[str] = dockerfile.lines[: location.first - 1]
    for row in reversed(rows):
        if not row.lstrip().startswith("#"):
            break
        text = row.lstrip()[1:].strip()
        if name and text.startswith(f"{name} "):
            return text[len(name) + 1 :].strip()
    return ""


def _location(location: Location) -> Document:
    return {"ranges": [{"start": {"line": location.first}, "end": {"line": location.last}}]}


def _source(dockerfile: Dockerfile) -> str:
    """Return the text of the Dockerfile as JSON has bytes."""
    return b64encode("\n".join(dockerfile.lines).encode()).decode()
