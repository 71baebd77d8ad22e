"""``--cache-to``: export the steps of a build, for ``--cache-from`` on another machine.

What is exported is an image whose history has the keys of all steps, and whose layers are those of
the steps. It is not meant to run: steps of different stages stand one after the other. ``mode=min``
has the steps of the result, ``mode=max`` those of all stages. Every other image has the keys of its
own steps already, so ``type=inline`` needs nothing.

``type=registry`` pushes it. ``type=local`` writes it into a content store of the client, an OCI
layout. The client enters the manifest of the response into ``index.json`` there.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.threads import in_own_thread, in_thread, produce, shielded
from jaula.errors import InvalidRequest, JaulaError
from jaula.features.build.builder.image_state import ImageState, image_document
from jaula.features.build.builder.local_context import ended, started
from jaula.images.registry.compress import compressed_layers
from jaula.spec.image_documents import CONFIG, MANIFEST, Descriptor, Manifest, encode

if TYPE_CHECKING:
    from jaula.engine.model.services import Services
    from jaula.features.build.build_options import CacheExport
    from jaula.features.build.builder.build_session import ContentStore, Report
    from jaula.features.build.builder.build_sources import BuildSources
    from jaula.images.store.image_quota import Quota
    from jaula.images.store.image_store import Image, ImageStore

_REGISTRY, _CLIENT = "exporting cache to registry", "exporting cache to client directory"
_MANIFEST = "cache.manifest"  # of a response: the descriptor of what the client has received
_CHUNK = 1 << 20  # bytes


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
        self,
        export: CacheExport,
        results: Iterable[ImageState],
        stages: Iterable[ImageState],
        response: dict[str, str],
    ) -> None:
        """Export the steps of the target stages, or those of all stages.

        The values that the client needs are added to ``response``.

        :raises JaulaError: when the destination does not take them and the export does not ignore
            it.
        """
        title = _CLIENT if export.store else _REGISTRY
        await self._report(started(title))
        state = cache_state(stages if export.all_stages else results, self._now)
        try:
            if export.store:
                response[_MANIFEST] = await self._write(export.store, state)
            else:
                await self._push(export, state)
        except JaulaError as error:
            await self._report(ended(title, str(error)))
            if not export.ignore_error:
                raise
            return
        await self._report(ended(title))

    async def _push(self, export: CacheExport, state: ImageState) -> None:
        images = self._services.images
        config = encode(image_document(state, {}, self._now))
        blobs = [layer.blob for layer in state.layers]
        existed = images.manifests_of("sha256:" + hashlib.sha256(config).hexdigest())
        image: Image = await in_thread(images.add, config, blobs, (), self._quota)
        try:
            async for message in self._sources.push_image(export.name, image):
                await self._report({"internal": _REGISTRY, **message})
        finally:
            if not existed:
                await in_thread(self._remove, image)

    async def _write(self, store: str, state: ImageState) -> str:
        """Write the steps into a content store of the client; return the manifest's descriptor."""
        if self._sources.local is None:
            raise InvalidRequest("this cache export needs a session of the client")
        content = self._sources.local.session.content_store(store)
        images = self._services.images
        config = encode(image_document(state, {}, self._now))
        cancellation = self._sources.cancellation
        try:
            with images.lease(layer.diff_id for layer in state.layers) as lease:
                compressed = await shielded(
                    in_own_thread(
                        lambda: compressed_layers(images, lease, state.layers, cancellation.check)
                    )
                )
                layers = tuple(layer.blob for layer in compressed)
                for layer in {layer.digest: layer for layer in layers}.values():
                    text = f"writing layer {layer.digest}"
                    await self._report(
                        {"internal": _CLIENT, "status": text, "current": 0, "total": layer.size}
                    )
                    await content.write(layer, _chunks(images, layer.digest))
                    await self._step(text)
        finally:
            await in_thread(images.collect)
        described = await self._document(content, "writing config", CONFIG, config)
        manifest = encode(Manifest(config=described, layers=layers))
        described = await self._document(content, "writing cache manifest", MANIFEST, manifest)
        return encode(described).decode()

    async def _document(
        self, content: ContentStore, title: str, media_type: str, data: bytes
    ) -> Descriptor:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        described = Descriptor(media_type, digest, len(data))
        await content.write(described, _one(data))
        await self._step(f"{title} {digest}")
        return described

    async def _step(self, text: str) -> None:
        await self._report({"internal": _CLIENT, "status": text, "complete": True})

    def _remove(self, image: Image) -> None:
        """Remove the image, which is for the registry only, unless a client has named it."""
        containers = tuple(self._services.container_store)
        if any(image.id in container.record.images for container in containers):
            return
        rights = self._quota.name_rights
        with contextlib.suppress(JaulaError):  # it has a name, or it is another owner's
            self._services.images.remove(image.id, rights=rights, names=())


def _chunks(images: ImageStore, digest: str) -> AsyncIterator[bytes]:
    def work(emit: Callable[[bytes], None]) -> None:
        with images.blobs.open(digest) as file:
            while chunk := file.read(_CHUNK):
                emit(chunk)

    return produce(work)


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data
