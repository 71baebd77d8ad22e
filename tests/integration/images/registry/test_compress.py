"""Layers of a build in a requested compression, in a real store."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.chunked_layers import contents, read_estargz, read_zstd_chunked
from harness.puller import Puller
from jaula.errors import CorruptState
from jaula.images.archive.import_archive import import_tar
from jaula.images.registry.cancellation import Cancellation, Cancelled
from jaula.images.registry.compress import compressed_layers, with_diff_ids
from jaula.images.store.image_store import ImageStore
from jaula.spec.image_documents import (
    DOCKER_LAYER_GZIP,
    LAYER_GZIP,
    LAYER_TAR,
    LAYER_ZSTD,
    Descriptor,
)
from jaula.spec.layer_compression import LayerCompression
from jaula.storage.compression import decompress_stream, zstd_module


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


def compressed(store: ImageStore, data: bytes) -> Layer:
    packed = gzip.compress(data)
    blob = Descriptor(DOCKER_LAYER_GZIP, store.blobs.put(packed), len(packed))
    return Layer(digest_of(data), blob)


def convert(
    store: ImageStore, layer: Layer, compression: LayerCompression | None
) -> tuple[Descriptor, bytes]:
    with store.lease((layer.diff_id, layer.blob.digest)) as lease:
        ((diff_id, made),) = compressed_layers(
            store, lease, [layer], Cancellation().check, compression
        )
        data = store.blobs.open(made.digest).read()
    assert diff_id == layer.diff_id or (compression is not None and compression.kind == "estargz")
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


@pytest.mark.parametrize("kind", ["estargz", "zstd:chunked"])
@pytest.mark.parametrize("level", [None, 1, 9])
def test_a_layer_gets_a_table_of_contents(store: ImageStore, kind: str, level: int | None) -> None:
    data = tar_of("file")
    for layer in (plain(store, data), compressed(store, data)):
        made, packed = convert(store, layer, LayerCompression(kind, level, force=True))
        if kind == "estargz":
            assert made.media_type == LAYER_GZIP
            _, entries = read_estargz(packed, made.annotations)
        else:
            assert made.media_type == LAYER_ZSTD
            tar, entries, _ = read_zstd_chunked(packed, made.annotations)
            assert tar == data
        assert contents(packed, entries)["file"] == bytes(1 << 16)
        again, _ = convert(store, Layer(layer.diff_id, made), LayerCompression(kind, force=True))
        assert again == made


def test_only_plain_layers_get_a_table_without_force(store: ImageStore) -> None:
    layer = compressed(store, tar_of("file"))
    made, _ = convert(store, layer, LayerCompression("estargz"))
    assert (made.digest, made.annotations) == (layer.blob.digest, {})


@pytest.mark.parametrize("kind", ["estargz", "zstd:chunked"])
def test_a_layer_without_a_possible_table_is_compressed_nevertheless(
    store: ImageStore, kind: str
) -> None:
    data = tar_of("file")[: 512 + (1 << 16)] + tar_of("file")  # the name twice
    blob = Descriptor(LAYER_TAR, store.blobs.put(data), len(data))
    notes: list[tuple[str, str]] = []
    with store.lease((blob.digest,)) as lease:
        ((diff_id, made),) = compressed_layers(
            store,
            lease,
            [Layer(blob.digest, blob)],
            Cancellation().check,
            LayerCompression(kind),
            lambda layer, note: notes.append((layer, note)),
        )
        content, _ = decompress_stream(store.blobs.open(made.digest))
    assert content.read() == data
    assert (diff_id, made.annotations) == (blob.digest, {})
    assert notes == [
        (
            blob.digest[7:19],
            "Compressing without a table of contents: 'file' exists twice",
        )
    ]
    assert not store.blobs.incomplete(1 << 63)


def test_a_damaged_layer_gets_no_table(store: ImageStore) -> None:
    layer = Layer(digest_of(tar_of("file")), compressed(store, tar_of("other")).blob)
    before = sorted(store.blobs.digests())
    for kind in ("estargz", "zstd:chunked"):
        with pytest.raises(CorruptState, match="is damaged"):
            convert(store, layer, LayerCompression(kind, force=True))
    assert sorted(store.blobs.digests()) == before


def test_a_configuration_with_other_diff_ids_keeps_its_members() -> None:
    config = b'{"unknown":[1.5,null],"rootfs":{"type":"layers","diff_ids":["sha256:a"]},"os":"l"}'
    assert with_diff_ids(config, ["sha256:a"]) is config
    assert with_diff_ids(config, ["sha256:b"]) == config.replace(b"sha256:a", b"sha256:b")


class CancelledAt(Cancellation):
    """A cancellation by the client during the work."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self._left = calls

    def check(self) -> None:
        self._left -= 1
        if not self._left:
            self.cancel()
        super().check()


@pytest.mark.parametrize("kind", ["zstd", "estargz", "zstd:chunked"])
@pytest.mark.parametrize("calls", [1, 3])
def test_a_cancelled_conversion_leaves_nothing(store: ImageStore, kind: str, calls: int) -> None:
    data = b"".join(tar_of(str(number))[: 512 + (1 << 16)] for number in range(40))
    layer = plain(store, data)
    before = sorted(store.blobs.digests())
    with store.lease((layer.diff_id, layer.blob.digest)) as lease, pytest.raises(Cancelled):
        compressed_layers(store, lease, [layer], CancelledAt(calls).check, LayerCompression(kind))
    assert sorted(store.blobs.digests()) == before
    assert not store.blobs.incomplete(1 << 63)
