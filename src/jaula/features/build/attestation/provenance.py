"""SLSA provenance of a build, version 1 and version 0.2. Pure.

Sources: slsa.dev/spec/v1.0/provenance and v0.2; moby/buildkit
``docs/attestations/slsa-definitions.md``: the build type, its parameters and its extensions. A
builder of Dockerfiles has no graph of LLB operations, so ``buildConfig`` has the steps of the
stages in the member ``steps``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from jaula.features.build.attestation.statement import Predicate
from jaula.features.build.build_options import ProvenanceOptions

_KIND_1, _KIND_02 = "https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2"
_BUILD_TYPE_1 = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"
_BUILD_TYPE_02 = "https://mobyproject.org/buildkit@v1"
_FRONTEND = "dockerfile.v0"
_VCS = "vcs:"
_DETAILS = ("build-arg:", "label:")
_HIDDEN = "xxxxx"

Document = dict[str, Any]


class Material(msgspec.Struct, frozen=True, order=True):
    """A source of a build. ``digest`` is ``ALGORITHM:HEX``."""

    uri: str
    digest: str


class ClientData(msgspec.Struct, frozen=True, order=True):
    """A secret or an ssh agent of the client, by its id. Its value is never recorded."""

    id: str
    optional: bool = False


class Step(msgspec.Struct, frozen=True):
    """An instruction of a stage. ``lines`` are the first and the last in the Dockerfile, from 1."""

    stage: str
    instruction: str
    lines: tuple[int, int]
    inputs: tuple[int, ...] = ()


class BuildFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The builder's record of one platform of a build. Times are RFC 3339.

    ``arguments`` are the options of the client. ``locals`` are the client's directories, and
    ``network`` is whether a step had a network. ``proxies`` are the names of build arguments that
    may have credentials in an address.
    """

    arguments: Mapping[str, str] = {}
    materials: Sequence[Material] = ()
    locals: Sequence[str] = ()
    secrets: Sequence[ClientData] = ()
    agents: Sequence[ClientData] = ()
    steps: Sequence[Step] = ()
    dockerfile: tuple[str, str] = ("Dockerfile", "")
    network: bool = False
    proxies: frozenset[str] = frozenset()
    builder_platform: str = ""
    invocation: str = ""
    started: str = ""
    finished: str = ""


def redact(address: str) -> str:
    """Return an address with its user and password hidden."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    if "@" not in parts.netloc or not parts.scheme:
        return address
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{_HIDDEN}:{_HIDDEN}@{host}"))


def provenance(options: ProvenanceOptions, facts: BuildFacts) -> Predicate:
    """Return the provenance of a build in the requested version and detail."""
    source, request, vcs = _request(options, facts)
    complete = not facts.locals
    parameters_complete = options.detailed or not any(
        name.startswith(_DETAILS) for name in facts.arguments
    )
    extension: Document = {"vcs": vcs} if vcs else {}
    config: Document = {}
    if options.detailed:
        config = {"buildConfig": {"steps": _steps(facts.steps)}}
        extension["source"] = _source(facts)
    times = {"started": facts.started, "finished": facts.finished}
    hermetic = complete and not facts.network
    if options.version == "v0.2":
        metadata: Document = {
            "buildInvocationID": facts.invocation,
            "buildStartedOn": times["started"],
            "buildFinishedOn": times["finished"],
            "completeness": {
                "parameters": parameters_complete,
                "environment": True,
                "materials": complete,
            },
            "reproducible": options.reproducible,
            "https://mobyproject.org/buildkit@v1#metadata": extension,
        }
        if hermetic:
            metadata["https://mobyproject.org/buildkit@v1#hermetic"] = True
        content: Document = {
            "builder": {"id": options.builder},
            "buildType": _BUILD_TYPE_02,
            "materials": [_material(m) for m in facts.materials],
            "invocation": {
                "configSource": _renamed(source, "path", "entryPoint"),
                "parameters": request,
                "environment": {"platform": facts.builder_platform},
            },
            **config,
            "metadata": metadata,
        }
        return Predicate(_KIND_02, content, options.filename)
    metadata = {
        "invocationID": facts.invocation,
        "startedOn": times["started"],
        "finishedOn": times["finished"],
        "buildkit_metadata": extension,
        "buildkit_completeness": {
            "request": parameters_complete,
            "resolvedDependencies": complete,
        },
    }
    if hermetic:
        metadata["buildkit_hermetic"] = True
    if options.reproducible:
        metadata["buildkit_reproducible"] = True
    content = {
        "buildDefinition": {
            "buildType": _BUILD_TYPE_1,
            "externalParameters": {"configSource": source, "request": request},
            "internalParameters": {**config, "builderPlatform": facts.builder_platform},
            "resolvedDependencies": [_material(m) for m in facts.materials],
        },
        "runDetails": {"builder": {"id": options.builder}, "metadata": metadata},
    }
    return Predicate(_KIND_1, content, options.filename)


def _request(
    options: ProvenanceOptions, facts: BuildFacts
) -> tuple[Document, Document, dict[str, str]]:
    """Return the source of the Dockerfile, the request, and the facts of version control."""
    arguments = {
        name: redact(value) if _is_address(name, facts.proxies) else value
        for name, value in facts.arguments.items()
    }
    source: Document = {}
    context = arguments.pop(arguments.get("contextkey") or "context", "")
    if context:
        source["uri"] = context
        digest = next((m.digest for m in facts.materials if m.uri == context), "")
        if digest:
            source["digest"] = _digest(digest)
    if path := arguments.pop("filename", ""):
        source["path"] = path
    vcs = {
        name.removeprefix(_VCS): arguments.pop(name)
        for name in list(arguments)
        if name.startswith(_VCS)
    }
    if not options.detailed:
        arguments = {n: v for n, v in arguments.items() if not n.startswith(_DETAILS)}
    request: Document = {"frontend": _FRONTEND}
    if arguments:
        request["args"] = dict(sorted(arguments.items()))
    if options.detailed:
        for member, items in (("secrets", facts.secrets), ("ssh", facts.agents)):
            if items:
                request[member] = [_client_data(item) for item in items]
    if facts.locals:
        request["locals"] = [{"name": name} for name in facts.locals]
    return source, request, {name: value for name, value in sorted(vcs.items()) if value}


def _is_address(name: str, proxies: frozenset[str]) -> bool:
    """Return whether an argument may be an address with credentials."""
    if name in ("context", "contextkey", "vcs:source") or name.startswith("context:"):
        return True
    return name.removeprefix("build-arg:") in proxies


def _client_data(item: ClientData) -> Document:
    return {"id": item.id, "optional": True} if item.optional else {"id": item.id}


def _material(material: Material) -> Document:
    return {"uri": material.uri, "digest": _digest(material.digest)}


def _digest(digest: str) -> dict[str, str]:
    algorithm, _, digits = digest.partition(":")
    return {algorithm: digits}


def _renamed(document: Document, old: str, new: str) -> Document:
    return {new if key == old else key: value for key, value in document.items()}


def _steps(steps: Sequence[Step]) -> list[Document]:
    return [
        {
            "id": f"step{number}",
            "stage": step.stage,
            "instruction": step.instruction,
            "inputs": [f"step{index}" for index in step.inputs],
        }
        for number, step in enumerate(steps)
    ]


def _source(facts: BuildFacts) -> Document:
    name, text = facts.dockerfile
    data = base64.b64encode(text.encode()).decode()
    locations: Mapping[str, Document] = {
        f"step{number}": {
            "locations": [
                {"ranges": [{"start": {"line": step.lines[0]}, "end": {"line": step.lines[1]}}]}
            ]
        }
        for number, step in enumerate(facts.steps)
    }
    return {
        "locations": locations,
        "infos": [{"filename": name, "language": "Dockerfile", "data": data}],
    }
