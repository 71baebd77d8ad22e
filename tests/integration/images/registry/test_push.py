"""Pushes to a real registry: chunks, interruptions, mounts, compressed layers."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.puller import Puller
from harness.registry import Registry
from harness.scripted_registry import Request, ScriptedRegistry, layer
from jaula.errors import JaulaError, NotFound
from jaula.images.archive.import_archive import import_tar
from jaula.images.reference import Reference, parse
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation, Cancelled
from jaula.images.registry.image_push import PushRequest, push
from jaula.images.registry.upload import Upload, UploadResult
from jaula.spec.image_documents import LAYER_GZIP, LAYER_TAR, Descriptor
from jaula.spec.layer_compression import LayerCompression

pytestmark = pytest.mark.needs("docker-registry")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as made:
        yield made


@pytest.fixture
def puller(tmp_path: Path) -> Puller:
    return Puller(tmp_path)


def request_for(puller: Puller, name: Reference) -> PushRequest:
    emit = puller.messages.append
    return PushRequest(puller.client, name, Credentials(), emit, Cancellation())


def send(puller: Puller, name: str) -> UploadResult:
    puller.messages.clear()
    return push(request_for(puller, parse(name)))[0]


def test_plain_layers_are_compressed_once(puller: Puller, registry: Registry) -> None:
    data = layer("plain", 1 << 20)
    image = import_tar(puller.store, io.BytesIO(data), f"{registry.name}/plain:1")
    pushed = send(puller, f"{registry.name}/plain:1")
    digest, manifest = registry.manifest("plain", "1")
    assert digest == pushed.digest
    assert [entry["mediaType"] for entry in manifest["layers"]] == [LAYER_GZIP]
    assert manifest["layers"][0]["size"] < len(data) // 100
    kept = puller.store.resolve(image.id)
    assert (kept.id, kept.names) == (image.id, image.names)
    assert kept.digests == (f"{registry.name}/plain@{digest}",)
    # The compressed form is stored: the plain blob is removed, and the next push sends nothing.
    puller.store.tag(image.id, f"{registry.name}/plain:2")
    assert send(puller, f"{registry.name}/plain:2").digest == digest
    assert "Layer already exists" in [message.get("status") for message in puller.messages]
    assert len(puller.left()) == 4  # manifest, configuration, blob, layer


def chunked(puller: Puller, name: str, path: str, chunk: int) -> tuple[Upload, Descriptor]:
    data = bytes(range(256)) * 4096
    blob = Descriptor(LAYER_GZIP, puller.store.blobs.put(data), len(data))
    cancel = Cancellation()
    target = puller.client.repository(name, path, Credentials(), cancel)
    return Upload(target, puller.store.blobs, cancel, chunk=chunk), blob


@pytest.mark.parametrize("chunk", [100_000, 1 << 18, (1 << 20) - 1, 1 << 20, 1 << 21])
def test_a_blob_is_sent_in_chunks(puller: Puller, registry: Registry, chunk: int) -> None:
    path = f"chunks{chunk}"
    upload, blob = chunked(puller, registry.name, path, chunk)
    reported: list[int] = []
    assert not upload.has(blob.digest)
    assert upload.send(blob, reported.append) == ""
    assert upload.has(blob.digest)
    assert reported == sorted(reported)
    assert reported[-1] == blob.size
    assert registry.ask("GET", f"/v2/{path}/blobs/{blob.digest}")[2] == (bytes(range(256)) * 4096)


class _Uploads:
    """Uploads as a registry stores them. A request may fail after a part of it was stored."""

    def __init__(self, registry: ScriptedRegistry) -> None:
        self.data = b""
        self.digest = ""
        self.breaks = 0
        registry.honest = self.answer  # type: ignore[method-assign]

    def answer(self, request: Request) -> None:
        verb, path = request.command, request.path
        place = {"Location": "/v2/box/blobs/uploads/1", "Range": f"0-{max(len(self.data) - 1, 0)}"}
        if path == "/v2/":
            request.answer(200, b"{}")
        elif verb == "POST":
            self.data = b""
            request.answer(202, **place)
        elif verb in ("GET", "DELETE"):
            request.answer(204, **place)
        else:
            span = re.fullmatch(r"(\d+)-(\d+)", request.headers.get("Content-Range", ""))
            if span is not None and int(span[1]) != len(self.data):
                request.answer(416, **place)
                return
            if self.breaks:
                self.breaks -= 1
                self.data += request.body[: len(request.body) // 2]
                request.hang_up()
                return
            self.data += request.body
            self.digest = path.partition("digest=")[2]
            request.answer(202 if verb == "PATCH" else 201, **place)


@pytest.mark.parametrize("breaks", [1, 2])
def test_an_interrupted_upload_is_resumed(puller: Puller, breaks: int) -> None:
    with ScriptedRegistry() as scripted:
        uploads = _Uploads(scripted)
        uploads.breaks = breaks
        upload, blob = chunked(puller, scripted.name, "box", 300_000)
        upload.send(blob, lambda sent: None)
        assert uploads.data == bytes(range(256)) * 4096
        assert uploads.digest == blob.digest
        begun = [path for verb, path, _ in scripted.seen if verb == "POST"]
        assert len(begun) == 1  # it was resumed, not restarted


def test_an_upload_that_always_fails_is_abandoned(puller: Puller) -> None:
    with ScriptedRegistry() as scripted:
        uploads = _Uploads(scripted)
        uploads.breaks = 1000
        upload, blob = chunked(puller, scripted.name, "box", 300_000)
        with pytest.raises(JaulaError):
            upload.send(blob, lambda sent: None)


def test_a_blob_of_another_repository_is_mounted(puller: Puller, registry: Registry) -> None:
    upload, blob = chunked(puller, registry.name, "from/here", 1 << 21)
    upload.send(blob, lambda sent: None)
    sent: list[int] = []
    other, _ = chunked(puller, registry.name, "to/there", 1 << 21)
    assert other.send(blob, sent.append, ["nosuch/place", "from/here"]) == "from/here"
    assert sent == []
    assert other.has(blob.digest)


def test_a_mount_that_is_refused_is_an_upload(puller: Puller) -> None:
    with ScriptedRegistry() as scripted:
        uploads = _Uploads(scripted)

        def begin(request: Request) -> None:
            if "from=secret" in request.path:
                request.answer(403, b'{"errors":[{"code":"DENIED","message":"no"}]}')
            else:
                uploads.answer(request)

        scripted.scripts["POST /v2/box/blobs/uploads/"] = begin
        upload, blob = chunked(puller, scripted.name, "box", 1 << 21)
        assert upload.send(blob, lambda sent: None, ["secret", "empty", "empty2"]) == ""
        assert uploads.digest == blob.digest
        verbs = [verb for verb, path, _ in scripted.seen if path != "/v2/"]
        assert verbs == ["POST", "POST", "POST", "DELETE", "PUT"]  # one upload remains and is used


def test_a_refused_push_reports_the_reason(puller: Puller) -> None:
    with ScriptedRegistry(layer("x")) as scripted:
        name = f"{scripted.name}/box:1"
        puller.pull(name)

        def denied(request: Any) -> None:
            request.answer(403, b'{"errors":[{"code":"DENIED","message":"not yours"}]}')

        scripted.scripts["PUT /v2/box/manifests/1"] = denied
        with pytest.raises(JaulaError, match="denied: not yours") as raised:
            send(puller, name)
        assert raised.value.status == 403


def test_an_unknown_image_cannot_be_pushed(puller: Puller, registry: Registry) -> None:
    with pytest.raises(NotFound, match="tag does not exist"):
        send(puller, f"{registry.name}/nosuch:1")
    every = Reference(registry.name, "nosuch")
    with pytest.raises(NotFound, match="An image does not exist locally"):
        push(request_for(puller, every))


# -- a requested compression ----------------------------------------------------------------------


def send_as(puller: Puller, name: str, kind: str) -> UploadResult:
    puller.messages.clear()
    request = request_for(puller, parse(name))
    request = dataclasses.replace(request, compression=LayerCompression(kind, force=True))
    return push(request)[0]


@pytest.mark.parametrize("kind", ["gzip", "zstd", "estargz", "zstd:chunked", "uncompressed"])
def test_a_compression_is_that_of_the_registry_only(
    puller: Puller, registry: Registry, tmp_path: Path, kind: str
) -> None:
    name = f"{registry.name}/as-{kind.replace(':', '-')}:1"
    image = import_tar(puller.store, io.BytesIO(layer("plain", 1 << 20)), name)
    before, left = puller.store.resolve(name), puller.left()
    pushed = send_as(puller, name, kind)
    assert puller.store.resolve(name) == before and puller.left() == left
    ids = {message["id"] for message in puller.messages if "id" in message}
    assert ids == {image.layers[0][7:19]}
    digest, manifest = registry.manifest(parse(name).path, "1")
    assert digest == pushed.digest
    (blob,) = manifest["layers"]
    suffix = {"estargz": "+gzip", "zstd:chunked": "+zstd", "uncompressed": ""}
    assert blob["mediaType"] == LAYER_TAR + suffix.get(kind, f"+{kind}")
    tables = {"estargz": "stargz/toc.digest", "zstd:chunked": "manifest-checksum"}
    assert tables.get(kind, "") in "".join(blob.get("annotations", {}))
    # The second push finds all blobs, since the form of a layer is always the same.
    assert send_as(puller, name, kind) == pushed
    assert "Layer already exists" in [message.get("status") for message in puller.messages]
    other = Puller(tmp_path / "other")
    pulled = other.pull(name)
    assert (pulled.id == image.id) is (kind != "estargz")
    root = other.store.layers.path(pulled.layers[0])
    assert ("stargz.index.json" in os.listdir(root)) is (kind == "estargz")
    assert (Path(root) / "big").stat().st_size == 1 << 20


def test_a_pulled_image_is_pushed_in_another_form(
    puller: Puller, registry: Registry, tmp_path: Path
) -> None:
    name = f"{registry.name}/pulled:1"
    import_tar(puller.store, io.BytesIO(layer("plain", 1 << 20)), name)
    first = send(puller, name).digest
    other = Puller(tmp_path / "other")
    image = other.pull(name)
    other.store.tag(image.id, f"{registry.name}/pulled:2")
    pushed = send_as(other, f"{registry.name}/pulled:2", "zstd:chunked")
    assert pushed.digest != first
    assert other.store.resolve(name).digests == (f"{registry.name}/pulled@{first}",)
    assert other.pull(f"{registry.name}/pulled:2").id == image.id


def test_a_layer_that_has_no_table_is_reported(puller: Puller, registry: Registry) -> None:
    data = layer("plain", 1 << 10)
    data = data[: 5 * 512] + data  # without its end, and again
    name = f"{registry.name}/twice:1"
    image = import_tar(puller.store, io.BytesIO(data), name)
    send_as(puller, name, "estargz")
    (note,) = [m for m in puller.messages if "table of contents" in m.get("status", "")]
    assert note["id"] == image.layers[0][7:19] and "exists twice" in note["status"]
    assert registry.manifest("twice", "1")[1]["config"]["digest"] == image.id


def image_of(puller: Puller, name: str, *layers: bytes) -> None:
    """Store an image with several plain layers."""
    parts = [
        import_tar(puller.store, io.BytesIO(data), f"part:{n}") for n, data in enumerate(layers)
    ]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [part.layers[0] for part in parts]},
    }
    blobs = [puller.store.manifest(part).layers[0] for part in parts]
    puller.store.add(json.dumps(config).encode(), blobs, [name])


def test_the_layers_of_an_image_are_converted_and_uploaded(
    puller: Puller, registry: Registry, tmp_path: Path
) -> None:
    name = f"{registry.name}/several:1"
    data = [layer(text, size) for text, size in (("a", 1 << 21), ("b", 10), ("c", 1 << 20))]
    image_of(puller, name, *data, data[0])
    for kind in ("zstd:chunked", "estargz"):
        send_as(puller, name, kind)
        manifest = registry.manifest("several", "1")[1]
        digests = [blob["digest"] for blob in manifest["layers"]]
        assert len(digests) == 4 and digests[0] == digests[3] and len(set(digests)) == 3
        pulled = Puller(tmp_path / kind.replace(":", "-")).pull(name)
        assert (pulled.id == puller.store.resolve(name).id) is (kind != "estargz")


def test_a_failed_upload_ends_the_conversion(puller: Puller) -> None:
    def refuse(request: Request) -> None:
        request.answer(403, b'{"errors":[{"code":"DENIED","message":"read only"}]}')

    with ScriptedRegistry(layer()) as scripted:
        name = f"{scripted.name}/refused:1"
        scripted.scripts["POST /v2/refused/blobs/uploads/"] = refuse
        image_of(puller, name, *(layer(str(number), 1 << 20) for number in range(6)))
        left = puller.left()
        with pytest.raises(JaulaError, match=r"read only|denied"):
            send_as(puller, name, "zstd:chunked")
    assert puller.left() == left
    assert "Pushed" not in [message.get("status") for message in puller.messages]


def test_a_cancelled_push_leaves_nothing(puller: Puller, registry: Registry) -> None:
    name = f"{registry.name}/cancelled:1"
    image_of(puller, name, *(layer(str(number), 1 << 20) for number in range(3)))
    left, cancel = puller.left(), Cancellation()
    request = PushRequest(
        puller.client,
        parse(name),
        Credentials(),
        lambda message: cancel.cancel() if message.get("status") == "Compressing" else None,
        cancel,
        compression=LayerCompression("estargz", force=True),
    )
    with pytest.raises(Cancelled):
        push(request)
    assert puller.left() == left
