"""The images of an engine's OCI image layout, read from its files and compared with their digests.

Source: opencontainers/image-spec 1.1 ``image-layout.md``. The id of an image is the digest of its
configuration, which has the digests of the layers. So a blob that matches its digest is evidence.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from jaula.errors import InvalidRequest
from jaula.images.store.blobs import hex_of
from jaula.images.store.index import HELD
from jaula.spec.image_documents import (
    DOCUMENT_LIMIT,
    MANIFESTS,
    ImageDocument,
    Index,
    Manifest,
    decode,
)


class StoredManifest(NamedTuple):
    """A manifest of the index; ``config`` is empty if it cannot be read."""

    digest: str
    config: str
    intact: bool


class StoredImage(NamedTuple):
    """The documents of an image.

    ``layers`` are diff ids, base first; None if no intact configuration exists. ``manifests`` are
    the digests of the intact manifests. An engine keeps the image of each container.
    """

    layers: tuple[str, ...] | None
    manifests: tuple[str, ...]
    problems: tuple[str, ...]


class ImageLayout:
    """One image layout. Its documents are read once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._images: dict[str, StoredImage] = {}

    @cached_property
    def manifests(self) -> tuple[StoredManifest, ...]:
        """The manifests that the index lists, and those that the engine holds of image indexes.

        There are none if it is absent.

        :raises InvalidRequest: when the index is not valid.
        """
        try:
            data = (self._directory / "index.json").read_bytes()
        except FileNotFoundError:
            return ()
        listed = decode(data, Index, "the index of images").manifests
        digests = dict.fromkeys(d.digest for d in listed if d.media_type in MANIFESTS)
        digests |= dict.fromkeys(m for d in listed for m in d.annotations.get(HELD, "").split())
        return tuple(self._manifest(digest) for digest in digests)

    def image(self, id: str) -> StoredImage:
        """Return the documents of the image with this id.

        :raises InvalidRequest: when the index is not valid.
        """
        if id not in self._images:
            self._images[id] = self._image(id)
        return self._images[id]

    def _image(self, id: str) -> StoredImage:
        layers, problems = None, []
        named = [manifest for manifest in self.manifests if manifest.config == id]
        damaged = [manifest for manifest in self.manifests if not manifest.intact]
        intact = tuple(manifest.digest for manifest in named if manifest.intact)
        data = self._blob(id)
        if data is not None and _matches(data, id):
            layers = decode(data, ImageDocument, f"image configuration {id}").rootfs.diff_ids
        elif data is not None:
            problems.append(f"configuration {id[7:19]} has another digest")
        else:
            problems.append(f"configuration {id[7:19]} is absent")
        if not intact:  # one that cannot be read may have named it
            named = damaged
        problems += [f"manifest {m.digest[7:19]} is damaged" for m in named if not m.intact]
        if not intact and not damaged:
            problems.append("no manifest names it")
        return StoredImage(layers, intact, tuple(problems))

    def _manifest(self, digest: str) -> StoredManifest:
        data = self._blob(digest)
        if data is None:
            return StoredManifest(digest, "", intact=False)
        try:
            config = decode(data, Manifest, f"manifest {digest}").config.digest
        except InvalidRequest:
            config = ""
        return StoredManifest(digest, config, intact=bool(config) and _matches(data, digest))

    def _blob(self, digest: str) -> bytes | None:
        try:
            with (self._directory / "blobs" / "sha256" / hex_of(digest)).open("rb") as file:
                return file.read(DOCUMENT_LIMIT + 1)
        except FileNotFoundError:
            return None


def _matches(data: bytes, digest: str) -> bool:
    return "sha256:" + hashlib.sha256(data).hexdigest() == digest
