"""``--cache-to type=registry``: push the steps of a build, for ``--cache-from`` on another machine.

What is pushed is an image whose history has the keys of all steps, and whose layers are those of
the steps. It is not meant to run: steps of different stages stand one after the other. ``mode=min``
has the steps of the result, ``mode=max`` those of all stages. Every other image has the keys of its
own steps already, so ``type=inline`` needs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.builder.image_state import ImageState, image_document
from jaula.engine.builder.local_context import ended, started
from jaula.engine.threads import in_thread
from jaula.errors import JaulaError
from jaula.images.reference import parse
from jaula.spec.image import encode

if TYPE_CHECKING:
    from jaula.engine.builder.session import Report
    from jaula.engine.builder.sources import BuildSources
    from jaula.engine.model.services import Services
    from jaula.images.store.quota import Quota
    from jaula.images.store.store import Image
    from jaula.spec.build import CacheExport

_TITLE = "exporting cache to registry"


def cache_state(states: Iterable[ImageState], now: str) -> ImageState:
    """Return one state with the steps of several, each once; layers of bases are left out. Pure."""
    merged = ImageState()
    seen: set[str] = set()
    for state in states:
        layers = iter(state.layers[state.base_layers :])
        for step in state.own_history:
            layer = None if step.empty_layer else next(layers, None)
            if not step.comment or step.comment in seen:
                continue
            seen.add(step.comment)
            merged = msgspec.structs.replace(
                merged,
                platform=state.platform,
                history=(*merged.history, step),
                layers=merged.layers if layer is None else (*merged.layers, layer),
            )
    return msgspec.structs.replace(merged, created=now)


class CacheExporter:
    """The exports of one build's cache, for all its platforms."""

    def __init__(
        self, services: Services, sources: BuildSources, quota: Quota, report: Report, now: str
    ) -> None:
        self._services = services
        self._sources = sources
        self._quota = quota
        self._report = report
        self._now = now

    async def run(
        self, export: CacheExport, results: Iterable[ImageState], stages: Iterable[ImageState]
    ) -> None:
        """Push the steps to a registry: those of the target stages, or those of all stages.

        :raises JaulaError: when the registry does not take them and the export does not ignore it.
        """
        await self._report(started(_TITLE))
        try:
            await self._push(
                export, cache_state(stages if export.all_stages else results, self._now)
            )
        except JaulaError as error:
            await self._report(ended(_TITLE, str(error)))
            if not export.ignore_error:
                raise
            return
        await self._report(ended(_TITLE))

    async def _push(self, export: CacheExport, state: ImageState) -> None:
        images = self._services.images
        config = encode(image_document(state, {}, self._now))
        blobs = [layer.blob for layer in state.layers]
        image: Image = await in_thread(images.add, config, blobs, (), self._quota)
        digest = ""
        try:
            async for message in self._sources.push_image(export.name, image):
                await self._report({"internal": _TITLE, **message})
                digest = message.get("aux", {}).get("Digest") or digest
        finally:
            await in_thread(self._remove, export.name, image, digest)

    def _remove(self, name: str, image: Image, digest: str) -> None:
        """Remove the image, which is for the registry only, with the name that its push gave it."""
        images = self._services.images
        repository = parse(name).repository
        for reference in (f"{repository}@{digest}" if digest else "", image.id):
            if reference:
                try:
                    images.remove(reference, force=True)
                except JaulaError:
                    continue  # the name was the only one
