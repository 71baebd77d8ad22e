"""An image in a content store of the client: a cache directory, or an OCI layout as a context.

The manifest and the configuration are read first. A layer is received when a step needs it, so a
cache of many steps costs only what the build uses.

All of it is the input of a client: documents are limited and verified before they are parsed, and
layers are verified against the digests of blob and diff id, as those of a registry.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.threads import feed, in_own_thread, in_thread, shielded
from jaula.errors import InvalidRequest, resource_error
from jaula.features.build.builder.image_state import ImageState, Layer
from jaula.images.image_platform import select
from jaula.images.store.image_catalog import platform_of
from jaula.images.store.image_store import check_document
from jaula.spec.image_documents import (
    CONFIG,
    DOCKER_CONFIG,
    DOCUMENT_LIMIT,
    INDEXES,
    LAYERS,
    MANIFESTS,
    Descriptor,
    Index,
    Manifest,
    Platform,
    decode,
)
from jaula.storage import free_space
from jaula.tasks import awaited_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.features.build.builder.build_session import ContentStore
    from jaula.images.store.image_store import ImageStore

_CHUNK = 1 << 20  # bytes


class _Shape(msgspec.Struct):
    """The member that tells an index from a manifest."""

    media_type: str = msgspec.field(name="mediaType", default="")


class ClientImage:
    """One image. ``state`` lists its layers; :meth:`fetch` puts one into the image store.

    ``pin`` protects layers and blobs until the build ends.
    """

    def __init__(
        self,
        content: ContentStore,
        images: ImageStore,
        pin: Callable[[str], None],
        state: ImageState,
        manifest: bytes,
        config: bytes,
    ) -> None:
        self.state = state
        self.manifest = manifest
        self.config = config
        self._content = content
        self._images = images
        self._pin = pin
        self._transfers: dict[str, asyncio.Task[None]] = {}

    async def fetch(self, layer: Layer) -> None:
        """Receive a layer that the image store lacks, once, and unpack it.

        :raises InvalidRequest: when it is not what the manifest states.
        :raises JaulaError: when the client does not send it.
        """
        task = self._transfers.get(layer.diff_id)
        if task is None:
            task = self._transfers[layer.diff_id] = awaited_task(self._fetch(layer))
        await asyncio.shield(task)

    def close(self) -> None:
        """Cancel what is received still."""
        for task in self._transfers.values():
            task.cancel()

    async def _fetch(self, layer: Layer) -> None:
        images, blob = self._images, layer.blob
        self._pin(layer.diff_id)
        self._pin(blob.digest)
        if not images.blobs.is_intact(blob.digest, blob.size):
            await self._receive(blob)
        if not images.layers.is_intact(layer.diff_id) or not images.layers.has_blob(
            layer.diff_id, blob.digest
        ):
            await in_thread(self._unpack, layer)
        await in_thread(images.sync)

    async def _receive(self, descriptor: Descriptor) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        stream = self._content.read(descriptor.digest, descriptor.size)
        feeding = awaited_task(feed(stream, writing))

        def work() -> None:
            with open(reading, "rb", buffering=0) as file, self._images.blobs.writer() as blob:
                try:
                    free_space.check(blob.file.fileno(), descriptor.size)
                except OSError as error:
                    raise resource_error(error, "cannot store a layer") or error from error
                while chunk := file.read(_CHUNK):
                    blob.write(chunk)
                if blob.digest != descriptor.digest:
                    raise InvalidRequest(
                        f"the client's blob {descriptor.digest} has another digest, {blob.digest}"
                    )
                blob.commit()

        receiving = in_own_thread(work)
        try:
            await asyncio.wait((receiving,))
            await feeding  # its error is the reason for a short blob
            receiving.result()
        finally:
            feeding.cancel()  # closes the pipe, which ends the thread
            await shielded(asyncio.wait((feeding, receiving)))

    def _unpack(self, layer: Layer) -> None:
        layers, digest = self._images.layers, layer.blob.digest
        with self._images.blobs.open(digest) as file:
            if layers.is_intact(layer.diff_id):  # the manifest alone says that they belong together
                layers.check_blob(file, layer.diff_id, digest)
            else:
                layers.extract(file, layer.diff_id)
            layers.record_blob(layer.diff_id, digest)


async def open_image(
    content: ContentStore,
    digest: str,
    images: ImageStore,
    pin: Callable[[str], None],
    platform: Platform | None = None,
) -> ClientImage:
    """Read the manifest of an image, or of the image of an index for ``platform``.

    :raises NotFound: when the client does not have it, or not for this platform.
    :raises InvalidRequest: when it is not the image of a container.
    """
    data = await _document(content, digest)
    media_type = decode(data, _Shape, f"the manifest {digest}").media_type
    if media_type in INDEXES:
        index = decode(data, Index, f"the index {digest}")
        digest = select(list(index.manifests), platform).digest
        data = await _document(content, digest)
    manifest = decode(data, Manifest, f"the manifest {digest}")
    if manifest.media_type not in MANIFESTS or manifest.config.media_type not in (
        CONFIG,
        DOCKER_CONFIG,
    ):
        raise InvalidRequest(
            f"the manifest {digest} has a configuration of type "
            f"{manifest.config.media_type[:80]!r}; it is not an image"
        )
    for blob in manifest.layers:
        if blob.media_type not in LAYERS:
            raise InvalidRequest(f"layer {blob.digest} has the media type {blob.media_type[:80]!r}")
    config = await _document(content, manifest.config.digest)
    document = check_document(config, manifest.config.digest)
    diff_ids = document.rootfs.diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise InvalidRequest(
            f"the image {manifest.config.digest} lists {len(diff_ids)} layers, "
            f"its manifest {len(manifest.layers)}"
        )
    pairs = zip(diff_ids, manifest.layers, strict=True)
    state = ImageState(
        layers=tuple(Layer(diff_id, blob) for diff_id, blob in pairs),
        config=document.config,
        history=document.history,
        platform=platform_of(document),
        author=document.author,
        created=document.created,
        base_layers=len(diff_ids),
        base_history=len(document.history),
    )
    return ClientImage(content, images, pin, state, data, config)


async def _document(content: ContentStore, digest: str) -> bytes:
    """Read a document of the client and verify its digest."""
    size = await content.size(digest)
    if size > DOCUMENT_LIMIT:
        raise InvalidRequest(
            f"the client's document {digest} has {size} bytes, at most {DOCUMENT_LIMIT} are "
            "accepted"
        )
    data = b"".join([part async for part in content.read(digest, size)])
    if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
        raise InvalidRequest(f"the client's document {digest} has another digest")
    return data
