"""The use cases of fsck: verify images byte by byte, check everything, repair."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from jaula.engine.fsck import (
    fsck_cgroups,
    fsck_containers,
    fsck_images,
    fsck_mounts,
    fsck_networks,
    fsck_volumes,
    shims,
)
from jaula.engine.fsck.problem import FsckInputs, Problem
from jaula.engine.threads import produce
from jaula.errors import CorruptState, JaulaError, NotFound

if TYPE_CHECKING:
    from jaula.engine.model.services import Services
    from jaula.images.store.image_catalog import Image
    from jaula.images.store.verify_images import Damage, VerifiedImage

Document = dict[str, Any]
Check = Callable[[FsckInputs], Iterable[Problem]]

CHECKS: tuple[Check, ...] = (
    fsck_images.check,
    fsck_containers.check,
    fsck_volumes.check,
    shims.check,
    fsck_cgroups.check,
    fsck_mounts.check,
    fsck_networks.check,
)


class Fsck:
    """Checks and repairs of the state of an engine."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._repair_lock = asyncio.Lock()

    async def verify_images(self, names: Sequence[str]) -> AsyncIterator[Document]:
        """Read every byte of images, or without names of all; yield a document for each.

        :raises NotFound: when one does not exist; nothing is read then.
        """
        store = self._services.images
        images = [store.resolve(name) for name in names] if names else store.list()
        damaged = {} if names else store.damaged()

        def work(emit: Callable[[Document], None]) -> None:
            from jaula.images.store.verify_images import Verification

            verification = Verification(store)
            for image in images:
                try:
                    verified = verification.run(image)
                except NotFound:
                    if names:
                        raise
                    continue  # removed meanwhile
                emit(_verified_document(verified))
            for manifest, reason in damaged.items():
                emit(_unreadable_document(manifest, store.names_of(manifest), reason))

        async for document in produce(work):
            yield document

    async def check(self, *, contents: bool) -> Document:
        """Return all findings. With ``contents``, every byte of images is read."""
        findings = await self._findings(contents)
        return {"Findings": [finding.document() for finding in findings]}

    async def repair(self, *, contents: bool) -> Document:
        """Repair what can be repaired without loss; return each finding with its result."""
        async with self._repair_lock:
            documents = []
            for finding in await self._findings(contents):
                documents.append(await self._repair(finding))
            return {"Findings": documents}

    async def _repair(self, finding: Problem) -> Document:
        container = self._services.container_store.get(finding.container_id)
        if container is None:
            return await _run_repair(finding)
        async with container.lock:
            if container.live and container.shim is not None:
                return finding.document(failure="the container was started meanwhile")
            return await _run_repair(finding)

    async def _findings(self, contents: bool) -> list[Problem]:
        findings = await asyncio.to_thread(_run_checks, self._inputs())
        if contents:
            read = await asyncio.to_thread(self._check_contents)
            known = {(finding.area, finding.subject) for finding in read}
            findings = [f for f in findings if (f.area, f.subject) not in known] + read
        return findings

    def _inputs(self) -> FsckInputs:
        services = self._services
        containers = (*services.container_store, *services.container_store.steps())
        alive = {c.id for c in containers if (c.live and c.shim is not None) or c.lock.locked()}
        alive |= {c.id for c in services.container_store.steps()}
        known = {*(c.id for c in containers), *services.container_store.names.values()}
        return FsckInputs(
            services, tuple(c.record for c in containers), frozenset(known), frozenset(alive)
        )

    def _check_contents(self) -> list[Problem]:
        from jaula.images.store.verify_images import Verification

        verification = Verification(self._services.images)
        findings: dict[str, Problem] = {}
        for image in self._services.images.list():
            by_digest: dict[str, list[Damage]] = {}
            try:
                damages = verification.run(image).damages
            except NotFound:
                continue  # removed meanwhile
            for damage in damages:
                by_digest.setdefault(damage.digest, []).append(damage)
            for digest, listed in by_digest.items():
                findings.setdefault(digest, self._damage_finding(image, listed))
        return list(findings.values())

    def _damage_finding(self, image: Image, damages: Sequence[Damage]) -> Problem:
        first = damages[0]
        name = ", ".join(image.names) or image.id
        problem = f"image {name}: {_damage_text(first)}"
        if len(damages) > 1:
            problem += f", and {len(damages) - 1} more"
        if first.kind != "layer":
            advice = "pull or load it again"
            return Problem(first.kind, first.digest, problem, advice)
        repair = partial(self._unpack, image, first.digest)
        return Problem("layer", first.digest, problem, "it is unpacked again", repair)

    def _unpack(self, image: Image, layer: str) -> None:
        from jaula.images.store import repair as store_repair

        users = [
            c.name
            for c in self._services.container_store
            if c.live and layer in c.record.all_layers
        ]
        if users:
            raise CorruptState(f"containers run on it: {', '.join(users)}", hint="stop them first")
        for blob, diff_id in store_repair.layer_pairs(self._services.images, image.target):
            if diff_id == layer:
                store_repair.unpack(self._services.images, blob.digest, layer)
                return


def _run_checks(inputs: FsckInputs) -> list[Problem]:
    return [finding for check in CHECKS for finding in check(inputs)]


async def _run_repair(finding: Problem) -> Document:
    if finding.repair is None:
        return finding.document()
    try:
        await asyncio.to_thread(finding.repair)
    except JaulaError as error:
        return finding.document(failure=str(error))
    except OSError as error:
        return finding.document(failure=error.strerror or str(error))
    return finding.document(repaired=True)


def _damage_text(damage: Damage) -> str:
    return f"{damage.path}: {damage.problem}" if damage.path else damage.problem


def _verified_document(verified: VerifiedImage) -> Document:
    return {
        "Id": verified.image.id,
        "RepoTags": list(verified.image.names),
        "Blobs": verified.blobs,
        "Layers": verified.layers,
        "Damages": [
            {"Kind": d.kind, "Digest": d.digest, "Path": d.path, "Problem": d.problem}
            for d in verified.damages
        ],
    }


def _unreadable_document(manifest: str, names: Sequence[str], reason: str) -> Document:
    damage = {"Kind": "manifest", "Digest": manifest, "Path": "", "Problem": reason}
    return {"Id": "", "RepoTags": list(names), "Blobs": 0, "Layers": 0, "Damages": [damage]}
