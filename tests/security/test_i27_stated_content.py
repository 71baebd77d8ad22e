"""I27: content is believed only by a digest that the image in use names.

What another image, caller or registry stated about the same digest, size or diff id proves nothing,
also while it is fetched lazily. A second registry lies about a layer that a trusted image has: some
of what its manifest states is of its own layer, and the rest is of the trusted one. Its contents
are held back, so its layer stays incomplete.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import random
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from harness.containers import eventually
from harness.engine import PrivateEngine
from harness.indexed_layers import LAYER_GZIP, IndexedLayer, zstd_chunked
from harness.scripted_registry import CONFIG, LAYER, MANIFEST, config_of, described, digest
from harness.slow_registry import SlowRegistry

BUSYBOX = shutil.which("busybox") or ""
BIG = 1_200_000  # bytes, more than the least size of a lazy layer
GIVEN_UP = 6.0  # seconds after which the client of a pull that is held back goes away

Engines = Callable[..., PrivateEngine]

STATED = ("digest", "size", "toc", "position")
"""Fields of an own layer with the diff id of another one: its blob is as stated."""

FIELDS = ("digest", "size", "media type", "diff id", "toc", "position")
_CHECKSUM = "io.github.containers.zstd-chunked.manifest-checksum"
_POSITION = "io.github.containers.zstd-chunked.manifest-position"


def tar(files: dict[str, bytes], *, links: Sequence[str] = ()) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            archive.addfile(info, io.BytesIO(data))
        for name in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(info)
    return out.getvalue()


def programs() -> IndexedLayer:
    """A plain layer."""
    data = tar({"bin/busybox": Path(BUSYBOX).read_bytes()}, links=("bin/sh", "bin/cat"))
    return IndexedLayer(data, digest(data), LAYER, {}, [])


def layer(who: str, case: str) -> IndexedLayer:
    """A layer that says whose it is."""
    return zstd_chunked(
        tar({"which": who.encode(), "big": random.Random(f"{who}{case}").randbytes(BIG)}),
        chunk_size=256 << 10,
    )


class StatingRegistry(SlowRegistry):
    """Serves ``box:1`` of programs and one layer, about which it states what it likes."""

    def __init__(self, base: IndexedLayer, own: IndexedLayer, **stated: Any) -> None:
        super().__init__(base, own)
        del self.scripts[self.blob_path(base.blob)]  # never held back
        descriptor = own.descriptor | stated
        diff_id = descriptor.pop("diff_id", own.diff_id)
        self.config = config_of(rootfs={"type": "layers", "diff_ids": [base.diff_id, diff_id]})
        self.blobs[digest(self.config)] = self.config
        self.manifest_document["config"] = described(self.config, CONFIG)
        self.manifest_document["layers"] = [base.descriptor, descriptor]
        self.scripts[f"/v2/box/blobs/{descriptor['digest']}"] = self._serve(own.blob)


def liar(
    base: IndexedLayer, own: IndexedLayer, trusted: IndexedLayer, own_fields: Sequence[str]
) -> StatingRegistry:
    """Return a registry that states ``own_fields`` of its own layer, the rest of the trusted."""

    def of(field: str) -> IndexedLayer:
        return own if field in own_fields else trusted

    annotations = {
        _CHECKSUM: of("toc").annotations[_CHECKSUM],
        _POSITION: of("position").annotations[_POSITION],
    }
    return StatingRegistry(
        base,
        own,
        digest=of("digest").descriptor["digest"],
        size=of("size").descriptor["size"],
        mediaType=LAYER_GZIP if "media type" in own_fields else trusted.media_type,
        diff_id=of("diff id").diff_id,
        annotations=annotations,
    )


def subsets(sizes: Sequence[int]) -> list[tuple[str, ...]]:
    return [each for size in sizes for each in itertools.combinations(FIELDS, size)]


@pytest.fixture(scope="module")
def base() -> IndexedLayer:
    return programs()


@pytest.fixture
def engine(new_engine: Engines) -> PrivateEngine:
    return new_engine("--pull-mode", "lazy")


@contextlib.contextmanager
def held_back(*registries: SlowRegistry) -> Iterator[None]:
    """Hold large answers back, and let them go at the end: no server waits for long."""
    for registry in registries:
        registry.gate.clear()
    try:
        yield
    finally:
        for registry in registries:
            registry.alive = False
            registry.gate.set()


def pull(engine: PrivateEngine, registry: SlowRegistry) -> int:
    """Pull an image, which may fail or wait for what is held back; return the status."""
    try:
        return engine.cli("jaula", "pull", registry.image, timeout=GIVEN_UP).returncode
    except subprocess.TimeoutExpired:
        return -1


def which(engine: PrivateEngine, image: str) -> subprocess.CompletedProcess[str]:
    words = ("run", "--rm", "--network", "none", image, "cat", "/which")
    return engine.cli("jaula", *words)


def check_lies(engine: PrivateEngine, base: IndexedLayer, cases: list[tuple[str, ...]]) -> None:
    """Let a registry lie in each way; then pull and run the trusted image of that case."""
    with contextlib.ExitStack() as stack:
        pairs = []
        for number, own_fields in enumerate(cases):
            trusted = layer("trusted", str(number))
            lying = liar(base, layer("another", str(number)), trusted, own_fields)
            good = StatingRegistry(base, trusted)
            pairs.append((stack.enter_context(lying), stack.enter_context(good)))
        with held_back(*(lying for lying, _ in pairs)), ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda pair: pull(engine, pair[0]), pairs))
            done = list(pool.map(lambda pair: which(engine, pair[1].image), pairs))
            wrong = {
                ", ".join(case): result.stderr or result.stdout
                for case, result in zip(cases, done, strict=True)
                if result.stdout != "trusted"
            }
    assert wrong == {}, engine.log_tail()


@pytest.mark.slow
def test_what_one_manifest_states_proves_nothing_for_another(
    engine: PrivateEngine, base: IndexedLayer
) -> None:
    most = [tuple(f for f in FIELDS if f not in each) for each in subsets([1])]
    check_lies(engine, base, [("toc", "position"), ("toc", "position", "size"), *most])


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[1], [2], [4], [5], [6]])
def test_no_combination_of_lies_is_believed(
    engine: PrivateEngine, base: IndexedLayer, sizes: list[int]
) -> None:
    check_lies(engine, base, subsets(sizes))


def test_the_id_of_an_image_names_no_table_of_contents(
    engine: PrivateEngine, base: IndexedLayer
) -> None:
    trusted = layer("trusted", "id")
    with liar(base, layer("another", "id"), trusted, STATED) as lying:
        lying.gate.clear()
        assert pull(engine, lying) == 0
        assert which(engine, lying.image).stdout == "another"  # by its name: its own statement
        results: list[subprocess.CompletedProcess[str]] = []
        by_id = threading.Thread(target=lambda: results.append(which(engine, digest(lying.config))))
        by_id.start()
        lying.gate.set()
        by_id.join(60)
    assert results[0].stdout == ""
    assert results[0].returncode != 0


def test_an_archive_brings_its_own_layers(
    engine: PrivateEngine, base: IndexedLayer, tmp_path: Path
) -> None:
    """The layer and the configuration of the archive are stated by the image of a liar before."""
    trusted = layer("trusted", "archive")
    lying = liar(base, layer("another", "archive"), trusted, STATED)
    with lying, held_back(lying):
        assert pull(engine, lying) == 0
        archive = tmp_path / "trusted.tar"
        write_archive(archive, lying.config, base, trusted)
        loaded = engine.cli("jaula", "load", "-i", str(archive))
        assert loaded.returncode == 0, loaded.stderr
        assert which(engine, "trusted:1").stdout == "trusted"


def write_archive(path: Path, config: bytes, base: IndexedLayer, trusted: IndexedLayer) -> None:
    from jaula.storage.compression import decompress_stream

    stream, plain = decompress_stream(io.BytesIO(trusted.blob))[0], b""
    while part := stream.read(1 << 20):
        plain += part
    assert "sha256:" + hashlib.sha256(plain).hexdigest() == trusted.diff_id
    manifest = [{"Config": "c.json", "RepoTags": ["trusted:1"], "Layers": ["0.tar", "1.tar"]}]
    files = {
        "c.json": config,
        "0.tar": base.blob,
        "1.tar": plain,
        "manifest.json": json.dumps(manifest).encode(),
    }
    path.write_bytes(tar(files))


def test_what_is_not_verified_is_in_no_new_image(
    engine: PrivateEngine, base: IndexedLayer, tmp_path: Path
) -> None:
    """A build and a commit wait, and fail when the registry has lied."""
    trusted = layer("trusted", "build")
    (tmp_path / "Dockerfile").write_text("FROM box\nRUN cat /which\n")
    with liar(base, layer("another", "build"), trusted, STATED) as lying:
        lying.gate.clear()
        assert pull(engine, lying) == 0
        assert engine.cli("jaula", "tag", lying.image, "box").returncode == 0
        created = engine.cli("jaula", "create", "--name", "made", "box", "cat", "/which")
        assert created.returncode == 0, created.stderr
        commands = [
            ("build", "-t", "built", str(tmp_path)),
            ("commit", "made", "committed"),
            ("save", "-o", str(tmp_path / "saved.tar"), "box"),
        ]
        with ThreadPoolExecutor(3) as pool:
            running = [pool.submit(engine.cli, "jaula", *words) for words in commands]
            lying.gate.set()
            done = [each.result() for each in running]
    for words, result in zip(commands, done, strict=True):
        assert result.returncode != 0, words
        assert "another" not in result.stdout.split(), words
    images = engine.cli("jaula", "images", "--format", "{{.Repository}}").stdout.split()
    assert not {"built", "committed"} & set(images)


def test_a_blob_beside_a_layer_is_compared_with_it(
    engine: PrivateEngine, base: IndexedLayer
) -> None:
    """Both exist, from two images. A third manifest states that they are the same."""
    trusted, own = (layer(who, "pair")._replace(annotations={}) for who in ("trusted", "another"))
    with (
        StatingRegistry(base, trusted) as first,
        StatingRegistry(base, own) as second,
        StatingRegistry(base, own, diff_id=trusted.diff_id) as lying,
    ):
        for registry in (first, second):
            pulled = engine.cli("jaula", "pull", registry.image)
            assert pulled.returncode == 0, pulled.stderr
        refused = engine.cli("jaula", "pull", lying.image)
        assert refused.returncode != 0
        assert "has the digest" in refused.stderr
        assert which(engine, first.image).stdout == "trusted"


def another_image(
    registry: StatingRegistry, base: IndexedLayer, own: IndexedLayer
) -> dict[str, object]:
    """Return the manifest of another image of the same layers; the registry has its config."""
    config = config_of(
        config={"Labels": {"other": "image"}},
        rootfs={"type": "layers", "diff_ids": [base.diff_id, own.diff_id]},
    )
    registry.blobs[digest(config)] = config
    return registry.manifest_document | {"config": described(config, CONFIG)}


def test_two_images_of_a_repository_share_a_layer_with_the_same_table_of_contents(
    engine: PrivateEngine, base: IndexedLayer
) -> None:
    trusted = layer("trusted", "shared")
    with StatingRegistry(base, trusted) as registry, held_back(registry):
        assert pull(engine, registry) == 0
        requests = registry.requests
        registry.manifest_document = another_image(registry, base, trusted)
        registry.scripts["/v2/box/manifests/2"] = lambda request: request.answer(
            200, registry.manifest, MANIFEST
        )
        image = f"{registry.name}/box:2"
        pulled = engine.cli("jaula", "pull", image)
        assert pulled.returncode == 0, pulled.stderr
        assert registry.requests == requests
        assert which(engine, image).stdout == "trusted"


ORDERS = ("liar first", "liar last", "at once")


@pytest.mark.slow
@pytest.mark.parametrize("manifest", ["another manifest", "the same manifest"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_registry_holds_up_no_image_of_another_one(
    engine: PrivateEngine, base: IndexedLayer, order: str, manifest: str
) -> None:
    """Both state the same, so each byte is compared. The liar sends its TOC, and then nothing."""
    trusted = layer("trusted", order + manifest)
    with StatingRegistry(base, trusted) as lying, StatingRegistry(base, trusted) as good:
        if manifest == "another manifest":
            lying.manifest_document = another_image(lying, base, trusted)
        with held_back(lying), ThreadPoolExecutor(2) as pool:
            first, second = (good, lying) if order == "liar last" else (lying, good)
            if order == "liar last":
                good.gate.clear()  # its layer is incomplete, too
            pulling = pool.submit(pull, engine, first)
            if order != "at once":
                assert pulling.result() == 0
            if order == "liar first":
                lying.corrupt = True  # the contents of files
            assert pull(engine, second) == (-1 if second is lying else 0)
            served = lying.served
            assert which(engine, good.image).stdout == "trusted", engine.log_tail()
            assert order == "at once" or lying.served == served
            good.gate.set()
            eventually(lambda: good.served >= len(trusted.blob), "the layer is whole")


def test_a_pull_shares_no_transfer_of_another_registry(
    new_engine: Engines, base: IndexedLayer
) -> None:
    engine, trusted = new_engine(), layer("trusted", "transfer")
    with (
        StatingRegistry(base, trusted) as lying,
        StatingRegistry(base, trusted) as good,
        held_back(lying),
        ThreadPoolExecutor(2) as pool,
    ):
        pool.submit(pull, engine, lying)
        eventually(lambda: lying.requests > 0, "the liar holds a layer back")
        assert pull(engine, good) == 0
        assert which(engine, good.image).stdout == "trusted"
