"""The use cases: verifying images byte by byte, checking everything, repairing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from jaula.engine.fsck import cgroups, containers, images, networks, volumes
from jaula.engine.fsck.finding import Finding, FsckInputs
from jaula.engine.threads import produce
from jaula.errors import CorruptState, JaulaError

if TYPE_CHECKING:
    from jaula.engine.model.services import Services
    from jaula.images.store.catalog import Image
    from jaula.images.store.verify import Damage, VerifiedImage

Document = dict[str, Any]
Check = Callable[[FsckInputs], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    images.check,
    containers.check,
    volumes.check,
    networks.check,
    cgroups.check,
)


class Fsck:
    """Whether what the engine keeps is as it should be."""

    def __init__(self, parts: Services) -> None:
        self._parts = parts
        self._repairing = asyncio.Lock()

    async def verify_images(self, names: Sequence[str]) -> AsyncIterator[Document]:
        """Read images, or all of them, and say of each what was found.

        :raises NotFound: one is not there; nothing was read.
        """
        store = self._parts.images
        wanted = [store.resolve(name) for name in names] if names else store.list()
        damaged = {} if names else store.damaged()

        def work(emit: Callable[[Document], None]) -> None:
            from jaula.images.store.verify import Verification

            verification = Verification(store)
            for image in wanted:
                emit(_told(verification.run(image)))
            for manifest, reason in damaged.items():
                emit(_unreadable(manifest, store.names_of(manifest), reason))

        async for document in produce(work):
            yield document

    async def check(self, *, contents: bool) -> Document:
        """Everything that is not as it should be; ``contents``: every byte of images is read."""
        findings = await self._findings(contents)
        return {"Findings": [finding.document() for finding in findings]}

    async def repair(self, *, contents: bool) -> Document:
        """Repair what can be repaired without loss, and say of each finding what became of it."""
        async with self._repairing:
            documents = []
            for finding in await self._findings(contents):
                documents.append(await _repaired(finding))
            return {"Findings": documents}

    async def _findings(self, contents: bool) -> list[Finding]:
        found = await asyncio.to_thread(_found, self._facts())
        if contents:
            found += await asyncio.to_thread(self._contents)
        return found

    def _facts(self) -> FsckInputs:
        parts = self._parts
        every = (*parts.registry, *parts.registry.steps())
        alive = {c.id for c in every if (c.live and c.shim is not None) or c.lock.locked()}
        alive |= {c.id for c in parts.registry.steps()}
        known = {*(c.id for c in every), *parts.registry.names.values()}
        return FsckInputs(parts, tuple(c.record for c in every), frozenset(known), frozenset(alive))

    def _contents(self) -> list[Finding]:
        from jaula.images.store.verify import Verification

        verification = Verification(self._parts.images)
        told: dict[str, Finding] = {}
        for image in self._parts.images.list():
            by_digest: dict[str, list[Damage]] = {}
            for damage in verification.run(image).damages:
                by_digest.setdefault(damage.digest, []).append(damage)
            for digest, damages in by_digest.items():
                told.setdefault(digest, self._damage(image, damages))
        return list(told.values())

    def _damage(self, image: Image, damages: Sequence[Damage]) -> Finding:
        first = damages[0]
        name = ", ".join(image.names) or image.id
        problem = f"image {name}: {_place(first)}"
        if len(damages) > 1:
            problem += f", and {len(damages) - 1} more"
        if first.kind != "layer":
            advice = "remove the image and pull or load it again"
            return Finding(first.kind, first.digest, problem, advice)
        repair = partial(self._unpack, image, first.digest)
        return Finding("layer", first.digest, problem, "it is unpacked again", repair)

    def _unpack(self, image: Image, layer: str) -> None:
        from jaula.images.store import repair as store_repair

        users = [c.name for c in self._parts.registry if c.live and layer in c.record.layers]
        if users:
            raise CorruptState(f"containers run on it: {', '.join(users)}", hint="stop them first")
        for blob, diff_id in store_repair.layer_pairs(self._parts.images, image.manifest):
            if diff_id == layer:
                store_repair.unpack(self._parts.images, blob.digest, layer)
                return


def _found(facts: FsckInputs) -> list[Finding]:
    return [finding for check in CHECKS for finding in check(facts)]


async def _repaired(finding: Finding) -> Document:
    if finding.repair is None:
        return finding.document()
    try:
        await asyncio.to_thread(finding.repair)
    except JaulaError as error:
        return finding.document(failure=str(error))
    except OSError as error:
        return finding.document(failure=error.strerror or str(error))
    return finding.document(repaired=True)


def _place(damage: Damage) -> str:
    return f"{damage.path}: {damage.problem}" if damage.path else damage.problem


def _told(found: VerifiedImage) -> Document:
    return {
        "Id": found.image.id,
        "RepoTags": list(found.image.names),
        "Blobs": found.blobs,
        "Layers": found.layers,
        "Damages": [
            {"Kind": d.kind, "Digest": d.digest, "Path": d.path, "Problem": d.problem}
            for d in found.damages
        ],
    }


def _unreadable(manifest: str, names: Sequence[str], reason: str) -> Document:
    damage = {"Kind": "manifest", "Digest": manifest, "Path": "", "Problem": reason}
    return {"Id": "", "RepoTags": list(names), "Blobs": 0, "Layers": 0, "Damages": [damage]}
