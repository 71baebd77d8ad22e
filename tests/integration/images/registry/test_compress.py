"""Layers of a build in a requested compression, in a real store."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.puller import Puller
from jaula.errors import CorruptState
from jaula.images.archive.import_ import import_tar
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.compress import compressed_layers
from jaula.images.store.store import ImageStore
from jaula.spec.build import LayerCompression
from jaula.spec.image import DOCKER_LAYER_GZIP, LAYER_GZIP, LAYER_TAR, LAYER_ZSTD, Descriptor
from jaula.storage.compression import zstd_module


class Layer(NamedTuple):
    diff_id: str
    blob: Descriptor


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return Puller(tmp_path).store


def tar_of(name: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = 1 << 16
        tar.addfile(info, io.BytesIO(bytes(1 << 16)))
    return out.getvalue()


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def plain(store: ImageStore, data: bytes) -> Layer:
    image = import_tar(store, io.BytesIO(data), "plain:1")
    return Layer(image.layers[0], store.manifest(image).layers[0])


def convert(
    store: ImageStore, layer: Layer, compression: LayerCompression | None
) -> tuple[Descriptor, bytes]:
    with store.lease((layer.diff_id, layer.blob.digest)) as lease:
        (made,) = compressed_layers(store, lease, [layer], Cancellation(), compression)
        data = store.blobs.open(made.digest).read()
    assert made.digest == digest_of(data) and made.size == len(data)
    return made, data


# A tar begins with a name. These begin with the magic numbers of bzip2 and zstd.
@pytest.mark.parametrize("name", ["file", "BZh9", "(\udcb5/\udcfd"])
def test_a_plain_layer_is_converted_whatever_its_first_bytes_are(
    store: ImageStore, name: str
) -> None:
    data = tar_of("file")
    layer = plain(store, data)
    if name != "file":  # as stored by a build, which does not detect a compression
        data = tar_of(name)
        blob = Descriptor(LAYER_TAR, store.blobs.put(data), len(data))
        layer = Layer(blob.digest, blob)
    for level in (None, -1, 0, 9):
        made, packed = convert(store, layer, LayerCompression("gzip", level))
        assert made.media_type == LAYER_GZIP and gzip.decompress(packed) == data
    for level in (None, -(10**17), 0, 22, 10**17):
        made, packed = convert(store, layer, LayerCompression("zstd", level))
        assert made.media_type == LAYER_ZSTD and zstd_module().decompress(packed) == data
    made, packed = convert(store, layer, LayerCompression("uncompressed", force=True))
    assert made == layer.blob and packed == data


def test_a_compressed_layer_is_converted_by_force_only(store: ImageStore) -> None:
    data = tar_of("file")
    packed = gzip.compress(data)
    blob = Descriptor(DOCKER_LAYER_GZIP, store.blobs.put(packed), len(packed))
    layer = Layer(digest_of(data), blob)
    for kind in ("gzip", "zstd", "uncompressed"):
        made, _ = convert(store, layer, LayerCompression(kind))
        assert (made.digest, made.media_type) == (blob.digest, LAYER_GZIP)
    made, content = convert(store, layer, LayerCompression("uncompressed", force=True))
    assert made == Descriptor(LAYER_TAR, layer.diff_id, len(data)) and content == data
    made, _ = convert(store, layer, LayerCompression("zstd", force=True))
    assert made.media_type == LAYER_ZSTD


def test_a_layer_with_another_content_is_not_converted(store: ImageStore) -> None:
    packed = gzip.compress(tar_of("other"))
    blob = Descriptor(LAYER_GZIP, store.blobs.put(packed), len(packed))
    before = sorted(store.blobs.digests())
    with pytest.raises(CorruptState, match="is damaged"):
        convert(store, Layer(digest_of(tar_of("file")), blob), LayerCompression("zstd", force=True))
    assert sorted(store.blobs.digests()) == before
