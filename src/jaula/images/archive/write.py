"""Write archives that are both in Docker's format and an OCI layout.

Sources: the Docker image specification 1.2 (``manifest.json``), opencontainers/image-spec 1.1
``image-layout.md``. Layers are not compressed, so the digest of a layer's blob is its diff id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from jaula.errors import InvalidRequest
from jaula.images.image_platform import host
from jaula.images.reference import parse
from jaula.spec import units
from jaula.spec.image_documents import (
    CONFIG,
    LAYER_TAR,
    MANIFEST,
    REF_NAME,
    ArchiveImage,
    Descriptor,
    History,
    ImageConfig,
    ImageDocument,
    Index,
    Layout,
    Manifest,
    RootFS,
    decode,
    encode,
)
from jaula.storage.tar.tar_entry import DIRECTORY
from jaula.storage.tar.tar_writer import Sink, TarWriter, new_entry

__all__ = ["PATH", "ArchivedIndex", "Sink", "write_archive", "write_image"]

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def timestamp(seconds: int) -> str:
    """Return a time in seconds since the epoch as RFC 3339, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe(diff_id: str, config: ImageConfig, seconds: int, made_by: str) -> ImageDocument:
    """Return the configuration of an image of one layer."""
    platform = host()
    created = timestamp(seconds)
    return ImageDocument(
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        created=created,
        config=config,
        rootfs=RootFS(diff_ids=(diff_id,)),
        history=(History(created=created, created_by=made_by),),
    )


def file_digest(path: Path) -> str:
    """Return the digest of a file's content, ``sha256:...``."""
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def write_image(
    out: Path, layer: Path, config: ImageConfig, names: Sequence[str], *, seconds: int, made_by: str
) -> None:
    """Write an archive of one image of one layer to ``out``.

    ``layer`` is a plain tar; ``seconds`` is the creation time of the image since the epoch.
    """
    diff_id = file_digest(layer)
    document = encode(describe(diff_id, config, seconds, made_by))
    with open(out, "xb") as file, open(layer, "rb") as tar:
        write_archive(
            file.write,
            [(document, [(diff_id, layer.stat().st_size)], names)],
            lambda digest: _chunks(tar),
        )


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(1 << 20):
        yield chunk


class ArchivedIndex(msgspec.Struct, frozen=True):
    """An index or a manifest to write unchanged, with blobs that are written as they are stored.

    ``blobs`` are digests and sizes in bytes, the index or manifest among them. ``config`` and
    ``layers`` are the blobs of the image that stands for it in Docker's format, which has one image
    for a name.
    """

    descriptor: Descriptor
    blobs: tuple[tuple[str, int], ...]
    config: str
    layers: tuple[str, ...]
    names: tuple[str, ...]


class _Blobs:
    """The blobs of an archive, each written once, in the order of the calls."""

    def __init__(self, writer: TarWriter) -> None:
        self._writer = writer
        self._written: set[str] = set()
        for directory in ("blobs/", "blobs/sha256/"):
            writer.add(new_entry(directory, DIRECTORY, mode=0o755))

    def add(self, digest: str, size: int, chunks: Iterable[bytes], mtime: int = 0) -> None:
        if digest not in self._written:
            self._written.add(digest)
            self._writer.add(new_entry(blob_name(digest), size=size, mtime=mtime), chunks)

    def document(self, data: bytes, mtime: int = 0) -> str:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.add(digest, len(data), (data,), mtime)
        return digest


def blob_name(digest: str) -> str:
    """Return the path of a blob in the archive."""
    return "blobs/sha256/" + digest.removeprefix("sha256:")


def _named(descriptor: Descriptor, names: Sequence[str]) -> list[Descriptor]:
    """Return a descriptor for each name, or one without a name."""
    annotations = [
        {REF_NAME: name.tag or "", "io.containerd.image.name": name.canonical}
        for name in map(parse, names)
    ]
    return [
        msgspec.structs.replace(descriptor, annotations={**descriptor.annotations, **each})
        for each in annotations or [{}]
    ]


def _listed(config: str, names: Sequence[str], layers: Sequence[str]) -> ArchiveImage:
    """Return the entry of an image in ``manifest.json``."""
    tags = tuple(str(parse(name)) for name in names)
    return ArchiveImage(blob_name(config), tags, tuple(map(blob_name, layers)))


def _created(document: bytes) -> int:
    """Return the creation time of an image in seconds since the epoch, 0 if it states none."""
    try:
        return max(0, int(units.unix_time(decode(document, ImageDocument, "image").created)))
    except (InvalidRequest, ValueError):
        return 0


def write_archive(
    sink: Sink,
    images: Sequence[tuple[bytes, Sequence[tuple[str, int]], Sequence[str]]],
    layer: Callable[[str], Iterable[bytes]],
    indexes: Sequence[ArchivedIndex] = (),
    blob: Callable[[str], Iterable[bytes]] = lambda digest: (),
) -> None:
    """Write images to ``sink``, each as its configuration, its layers and its names.

    A layer is ``(diff id, size)``, the size in bytes. ``layer`` returns the uncompressed bytes of a
    layer by diff id. As in Docker, layers and configurations have the time of their image, the
    other files that of the epoch, so that the same images give the same archive. ``indexes`` are
    written after the images; ``blob`` returns a blob of them.
    """
    writer = TarWriter(sink)
    blobs = _Blobs(writer)
    listed: list[ArchiveImage] = []
    descriptors: list[Descriptor] = []
    for document, layers, names in images:
        created = _created(document)
        for digest, size in layers:
            blobs.add(digest, size, layer(digest), created)
        config = blobs.document(document, created)
        manifest = encode(
            Manifest(
                config=Descriptor(CONFIG, config, len(document)),
                layers=tuple(Descriptor(LAYER_TAR, digest, size) for digest, size in layers),
            )
        )
        digest = blobs.document(manifest)
        descriptors += _named(Descriptor(MANIFEST, digest, len(manifest)), names)
        listed.append(_listed(config, names, [digest for digest, _ in layers]))
    for index in indexes:
        for digest, size in index.blobs:
            blobs.add(digest, size, blob(digest))
        descriptors += _named(index.descriptor, index.names)
        listed.append(_listed(index.config, index.names, index.layers))
    for name, data in (
        ("index.json", encode(Index(manifests=tuple(descriptors)))),
        ("manifest.json", encode(tuple(listed))),
        ("oci-layout", encode(Layout())),
    ):
        writer.add(new_entry(name, size=len(data)), (data,))
    writer.finish()
