"""The attestations of a build: SLSA provenance from the record of the builder, and an SBOM.

Synchronous, for threads.
"""

from __future__ import annotations

import hashlib
import os
import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.parsers import SLOTS
from jaula.errors import InvalidRequest
from jaula.features.build.attestation.package_url import package_url
from jaula.features.build.attestation.provenance import (
    BuildFacts,
    ClientData,
    Material,
    Step,
    provenance,
    redact,
)
from jaula.features.build.attestation.statement import SPDX, Predicate, Subject
from jaula.features.build.builder import copy_step
from jaula.features.trust.sbom import sbom_worker
from jaula.images.dockerfile.ast import Copy, MountKind, Network, Run
from jaula.images.dockerfile.stage_graph import PROXIES, Source
from jaula.images.image_platform import format_platform, host
from jaula.storage.tar.tar_writer import read_padded
from jaula.storage.trees import walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jaula.engine.model.services import Services
    from jaula.features.build.build_options import BuildOptions, ProvenanceOptions
    from jaula.features.build.builder.build_sources import BuildSources
    from jaula.features.build.builder.image_state import ImageState
    from jaula.features.trust.sbom.formats import BuiltImage
    from jaula.images.dockerfile.ast import Instruction
    from jaula.images.dockerfile.stage_graph import PlannedStage, StageGraph
    from jaula.images.registry.cancellation import Cancellation

_SBOM_FILE = "sbom.spdx.json"
_BODY = "context"  # the name of a context that is not a directory of the client


class ProvenanceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of the builder about one platform of a build. ``started`` is RFC 3339."""

    invocation: str
    started: str
    options: BuildOptions
    dockerfile: tuple[str, str]
    graph: StageGraph
    sources: BuildSources


def timestamp() -> str:
    """Return the time of now as RFC 3339."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def sbom_predicate(
    services: Services,
    state: ImageState,
    image: BuiltImage,
    options: BuildOptions,
    owner: str,
    cancellation: Cancellation,
) -> Predicate:
    """Return the packages in the result, as an SPDX document.

    :raises InvalidRequest: when a package database is damaged or too large.
    """
    names = [name for export in options.exports or () for name in export.names]
    request = sbom_worker.SbomRequest(
        "spdx", image.id, image.created, names[0] if names else image.id
    )
    with (
        copy_step.open_layers(services, state.diff_ids) as root,
        SLOTS.take(owner, cancellation.check),
    ):
        document = sbom_worker.document(root, request, lambda w: cancellation.calling(w.cancel))
    return Predicate(SPDX, document, _SBOM_FILE)


def provenance_predicate(options: ProvenanceOptions, record: ProvenanceRecord) -> Predicate:
    """Return the provenance of a build that ends now.

    :raises InvalidRequest: when it is incomplete, and the client demands a complete one.
    """
    names = _locals(record)
    if options.complete and names:
        raise InvalidRequest(
            f"provenance materials are incomplete: {', '.join(names)} of the client is not recorded"
        )
    runs = [i for p in record.graph.stages for i in p.instructions if isinstance(i, Run)]
    network = record.options.host.network_mode != "none"
    facts = BuildFacts(
        arguments=record.options.arguments,
        materials=_materials(record.sources),
        locals=names,
        secrets=_client_data(runs, MountKind.SECRET),
        agents=_client_data(runs, MountKind.SSH),
        steps=steps(record.graph.stages),
        dockerfile=record.dockerfile,
        network=any(run.network is not Network.NONE for run in runs) and network,
        proxies=PROXIES,
        builder_platform=format_platform(host()),
        invocation=record.invocation,
        started=record.started,
        finished=timestamp(),
    )
    return provenance(options, facts)


def _locals(record: ProvenanceRecord) -> tuple[str, ...]:
    """Return the names of the client's directories that the build has read."""
    local = record.sources.local
    if local is None:
        return (_BODY,)
    names = local.used
    if record.options.remote and "://buildkit-session/" not in record.options.remote:
        return names
    return tuple(sorted({*names, _BODY})) if record.options.remote else names


def _materials(sources: BuildSources) -> tuple[Material, ...]:
    images = {
        Material(package_url(name, image.platform), image.target)
        for (name, _), image in sources.used.items()
    }
    fetched = {Material(redact(url), digest) for url, digest in sources.remotes.fetched.items()}
    return (*sorted(images), *sorted(fetched))


def _client_data(runs: Sequence[Run], kind: MountKind) -> tuple[ClientData, ...]:
    mounts = [m for run in runs for m in run.mounts if m.kind is kind]
    return tuple(sorted({ClientData(mount.id, not mount.required) for mount in mounts}))


def steps(stages: Sequence[PlannedStage]) -> tuple[Step, ...]:
    """Return the instructions of stages with the steps that each needs. Pure."""
    result: list[Step] = []
    last: dict[int, int] = {}  # the last step of a stage
    for planned in stages:
        stage = planned.stage
        base = planned.base
        inputs = (last[base.stage],) if base.kind is Source.STAGE else ()
        for instruction in (stage.base, *planned.instructions):
            origins = [planned.origins[name] for name in _origins(instruction) if name]
            needed = {last[o.stage] for o in origins if o.kind is Source.STAGE}
            lines = instruction.location.first, instruction.location.last
            text = instruction.source
            result.append(
                Step(stage.name or str(stage.index), text, lines, (*inputs, *sorted(needed)))
            )
            last[stage.index] = len(result) - 1
            inputs = (len(result) - 1,)
    return tuple(result)


def _origins(instruction: Instruction) -> Iterator[str]:
    if isinstance(instruction, Copy):
        yield instruction.origin
    elif isinstance(instruction, Run):
        yield from (mount.origin for mount in instruction.mounts)


def file_subjects(root: int, check: Callable[[], None]) -> list[Subject]:
    """Return every regular file below a root, a descriptor, with its digest.

    ``check`` is called often, and raises to end the work.
    """
    subjects = []
    for path, directory, entries in walk(root):
        for name, status in entries:
            if not stat.S_ISREG(status.st_mode):
                continue
            digest = _file_digest(directory, name, check)
            full = path + b"/" + name if path else name
            subjects.append(Subject(full.decode("utf-8", "replace"), digest))
    return sorted(subjects, key=lambda subject: subject.name)


def _file_digest(directory: int, name: bytes, check: Callable[[], None]) -> str:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=directory)
    try:
        digest = hashlib.sha256()
        for chunk in read_padded(descriptor, os.fstat(descriptor).st_size):
            check()
            digest.update(chunk)
        return "sha256:" + digest.hexdigest()
    finally:
        os.close(descriptor)
