"""Lazy layers of an engine whose server cannot start, or does not answer."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import msgspec
import pytest

from harness.indexed_layers import IndexedLayer, zstd_chunked
from jaula.config import Paths, RegistryConfig
from jaula.features.lazy import lazy_protocol
from jaula.features.lazy.lazy_mounts import MINIMUM, LazyLayers
from jaula.images.reference import parse
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation, Cancelled
from jaula.images.store.image_store import ImageStore
from jaula.spec.image_documents import Descriptor
from jaula.storage.layers.layer_store import LayerStore


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root", tmp_path / "run")


@pytest.fixture
def lazy(paths: Paths) -> LazyLayers:
    layers = LayerStore(paths)
    lazy = LazyLayers(paths, layers)
    lazy.adopt()
    lazy.attach(ImageStore(paths, layers, durable=False).blobs, lambda: None)
    return lazy


def layer(size: int = MINIMUM) -> IndexedLayer:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("file")
        info.size = size
        archive.addfile(info, io.BytesIO(bytes(size)))
    made = zstd_chunked(out.getvalue())
    return made._replace(blob=made.blob.ljust(size, b"\0"))  # zeros become small


def begin(lazy: LazyLayers, layer: IndexedLayer, cancel: Cancellation | None = None) -> set[str]:
    described = msgspec.convert(layer.descriptor, Descriptor)
    return lazy.begin(
        "box",
        parse("127.0.0.1:1/box"),
        RegistryConfig(),
        Credentials(),
        [(described, layer.diff_id)],
        cancel or Cancellation(),
    )


def files(paths: Paths) -> list[Path]:
    return [*(paths.root / "lazy").glob("*"), *(paths.run / "lazy").glob("*")]


def test_a_server_that_cannot_start_leaves_nothing(
    lazy: LazyLayers, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy_protocol, "SERVER_FUNCTION", "jaula.absent:serve")
    assert begin(lazy, layer()) == set()
    assert files(paths) == []


def test_a_registry_that_is_not_there_leaves_nothing(lazy: LazyLayers, paths: Paths) -> None:
    assert begin(lazy, layer()) == set()
    for _ in range(100):
        if not files(paths):
            return
        Cancellation().pause(0.1)
    raise AssertionError(files(paths))


def test_a_cancelled_pull_leaves_nothing(lazy: LazyLayers, paths: Paths) -> None:
    cancel = Cancellation()
    cancel.cancel()
    with pytest.raises(Cancelled):
        begin(lazy, layer(), cancel)
    assert files(paths) == []


def test_small_layers_and_plain_ones_need_no_server(
    lazy: LazyLayers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LazyLayers, "_start", None)  # a call would be an error
    assert begin(lazy, layer(MINIMUM - 1)) == set()
    assert begin(lazy, layer()._replace(annotations={})) == set()
