"""Answers about a Dockerfile without a build: ``docker build --call``.

Source: moby/buildkit ``frontend/subrequests``: names of the requests, and of the values in the
answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jaula.errors import CorruptState, InvalidRequest, NotFound, Unsupported
from jaula.features.build.builder.build_image import planner, read_dockerfile
from jaula.images.dockerfile import describe
from jaula.images.dockerfile.dockerfile_error import DockerfileError
from jaula.images.dockerfile.dockerfile_parser import parse
from jaula.images.image_platform import parse_platform
from jaula.spec.image_documents import ImageConfig

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from jaula.features.build.build_options import BuildOptions
    from jaula.features.build.files.context_directory import ContextLocation
    from jaula.images.dockerfile.ast import Dockerfile
    from jaula.images.dockerfile.budget import BuildBudget
    from jaula.images.store.image_store import ImageStore

_VERSION = "1.0.0"  # of the documents
LINT, OUTLINE, TARGETS, DESCRIBE = "lint", "outline", "targets", "subrequests.describe"
_TITLES = {
    OUTLINE: "List all parameters current build target supports",
    TARGETS: "List all targets current build supports",
    DESCRIBE: "List available subrequest types",
}


def answer(
    options: BuildOptions,
    dockerfile: ContextLocation | None,
    directory: Path,
    images: ImageStore,
    budget: BuildBudget,
) -> dict[str, str]:
    """Return the values of a client's question about the Dockerfile. Runs in a thread.

    None means the Dockerfile in the context of the build. Only images of the store are read.

    :raises DockerfileError: when the Dockerfile is not valid, except for ``lint``.
    :raises Unsupported: when the question is not known.
    """
    if options.subrequest == DESCRIBE:
        return _values(_requests())
    if options.subrequest not in (LINT, OUTLINE, TARGETS):
        raise Unsupported(f"unsupported request frontend.{options.subrequest[:64]}")
    if dockerfile is None:
        dockerfile = read_dockerfile(directory, options)
    if options.subrequest == LINT:
        document = _lint(options, dockerfile, images, budget)
        failed = bool(document["warnings"]) or "buildError" in document
        return {**_values(document), "result.statuscode": str(int(failed))}
    parsed = parse(dockerfile.text, dockerfile.name)
    if options.subrequest == TARGETS:
        return _values(describe.targets(parsed))
    return _values(describe.outline(planner(parsed, options, _platform(options), budget)()))


def _lint(
    options: BuildOptions, dockerfile: ContextLocation, images: ImageStore, budget: BuildBudget
) -> dict[str, Any]:
    def base_config(name: str) -> ImageConfig | None:
        try:
            return images.resolve(name, parse_platform(_platform(options) or None)).config
        except (NotFound, InvalidRequest, CorruptState):
            return None

    parsed: Dockerfile | None = None
    try:
        parsed = parse(dockerfile.text, dockerfile.name)
        warnings = describe.all_warnings(
            planner(parsed, options, _platform(options), budget)(), base_config, budget
        )
    except DockerfileError as error:
        return describe.lint(
            dockerfile.name, dockerfile.text, parsed.warnings if parsed else (), error
        )
    return describe.lint(dockerfile.name, dockerfile.text, warnings)


def _platform(options: BuildOptions) -> str:
    """Return the platform of the answer: the first one of several. Pure."""
    return next(iter(options.platforms), options.platform)


def _requests() -> list[dict[str, Any]]:
    """Return the questions that are answered, as BuildKit lists them."""
    metadata = [{"name": name, "description": ""} for name in ("result.json", "result.txt")]
    target = {"name": "target", "description": "Target build stage"}
    return [
        {
            "name": f"frontend.{name}",
            "version": _VERSION,
            "type": "rpc",
            "description": title,
            "opts": [target] if name == OUTLINE else [],
            "inputs": None,
            "metadata": metadata[:1],
            "refs": None,
        }
        for name, title in _TITLES.items()
    ]


def _values(document: object) -> dict[str, str]:
    text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    return {"result.json": text, "version": _VERSION}
