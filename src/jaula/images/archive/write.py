"""One image of one layer, written as an archive that reads both as Docker's and as an OCI layout.

Sources: the Docker image specification 1.2 (``manifest.json``), opencontainers/image-spec 1.1
``image-layout.md``. The layer is not compressed, so its blob's digest is its diff id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from jaula.images.platform import host
from jaula.images.reference import parse
from jaula.spec.image import (
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
    encode,
)
from jaula.storage.tar.entry import DIRECTORY
from jaula.storage.tar.writer import Sink, TarWriter, new_entry

__all__ = ["PATH", "Sink", "write_archive", "write_image"]

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def timestamp(seconds: int) -> str:
    """RFC 3339, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe(diff_id: str, config: ImageConfig, seconds: int, made_by: str) -> ImageDocument:
    """The configuration of an image of one layer."""
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
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def write_image(
    out: Path, layer: Path, config: ImageConfig, names: Sequence[str], *, seconds: int, made_by: str
) -> None:
    """Write the archive; the layer is a plain tar, ``seconds`` the image's time."""
    diff_id = file_digest(layer)
    document = encode(describe(diff_id, config, seconds, made_by))
    with open(out, "xb") as file, open(layer, "rb") as tar:
        write_archive(
            file.write,
            [(document, [(diff_id, layer.stat().st_size)], names)],
            lambda digest: _pieces(tar),
        )


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(1 << 20):
        yield piece


class _Blobs:
    """The blobs of an archive, each once, in the order in which they are wanted."""

    def __init__(self, writer: TarWriter) -> None:
        self._writer = writer
        self._there: set[str] = set()
        for folder in ("blobs/", "blobs/sha256/"):
            writer.add(new_entry(folder, DIRECTORY, mode=0o755))

    def add(self, digest: str, size: int, pieces: Iterable[bytes]) -> None:
        if digest not in self._there:
            self._there.add(digest)
            self._writer.add(new_entry(blob_name(digest), size=size), pieces)

    def document(self, data: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.add(digest, len(data), (data,))
        return digest


def blob_name(digest: str) -> str:
    return "blobs/sha256/" + digest.removeprefix("sha256:")


def write_archive(
    sink: Sink,
    images: Sequence[tuple[bytes, Sequence[tuple[str, int]], Sequence[str]]],
    layer: Callable[[str], Iterable[bytes]],
) -> None:
    """Write images: of each its configuration, ``(diff id, size)`` of its layers, and its names.

    ``layer`` gives the uncompressed bytes of a layer by diff id.
    """
    writer = TarWriter(sink)
    blobs = _Blobs(writer)
    listed: list[ArchiveImage] = []
    descriptors: list[Descriptor] = []
    for document, layers, names in images:
        for digest, size in layers:
            blobs.add(digest, size, layer(digest))
        config = blobs.document(document)
        manifest = encode(
            Manifest(
                config=Descriptor(CONFIG, config, len(document)),
                layers=tuple(Descriptor(LAYER_TAR, digest, size) for digest, size in layers),
            )
        )
        digest = blobs.document(manifest)
        full = [parse(name) for name in names]
        descriptors += [
            Descriptor(
                MANIFEST,
                digest,
                len(manifest),
                annotations={REF_NAME: str(name), "io.containerd.image.name": name.canonical},
            )
            for name in full
        ] or [Descriptor(MANIFEST, digest, len(manifest))]
        listed.append(
            ArchiveImage(
                blob_name(config),
                tuple(str(name) for name in full),
                tuple(blob_name(digest) for digest, _ in layers),
            )
        )
    for name, data in (
        ("index.json", encode(Index(manifests=tuple(descriptors)))),
        ("manifest.json", encode(tuple(listed))),
        ("oci-layout", encode(Layout())),
    ):
        writer.add(new_entry(name, size=len(data)), (data,))
    writer.finish()
