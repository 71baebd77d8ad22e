"""Pulls from a registry that drops connections, is busy or slow."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.puller import SHORT, Puller
from harness.scripted_registry import (
    INDEX,
    MANIFEST,
    Request,
    ScriptedRegistry,
    described,
    digest,
    layer,
)
from jaula.errors import InvalidRequest, JaulaError, NotFound
from jaula.images.registry.cancellation import Cancellation, Cancelled
from jaula.images.store.index import MANIFESTS_LIMIT

BIG = layer("big", 3 << 20)
SMALL = layer("small")


@pytest.fixture
def puller(tmp_path: Path) -> Puller:
    return Puller(tmp_path)


def note(puller: Puller, number: int = 0) -> str:
    """Return the path of a file of the image's layer."""
    image = puller.store.list()[0]
    return (Path(puller.store.layers.path(image.layers[number])) / "etc" / "note").read_text()


def breaking(data: bytes, *, ranges: bool) -> Callable[[Request], None]:
    """Make responses end after a megabyte, with and without support for ranges."""

    def script(request: Request) -> None:
        expected = request.headers.get("Range")
        start = int(expected[6:-1]) if expected and ranges else 0
        headers = {"Content_Length": str(len(data) - start)}
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        skipped = 0 if ranges else getattr(script, "count", 0) << 20
        script.count = getattr(script, "count", 0) + 1  # type: ignore[attr-defined]
        request.head(206 if start else 200, **headers)
        request.wfile.write(data[start : start + (1 << 20) + skipped])
        if start + (1 << 20) + skipped < len(data):
            request.hang_up()

    return script


def test_a_configuration_that_is_removed_meanwhile_is_fetched(
    puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image of the last name is removed just before the pull reads its configuration."""
    with ScriptedRegistry(SMALL) as registry:
        image = puller.pull(f"{registry.name}/box:1")
        document = puller.store.blobs.document

        def remove_first(digest: str, size: int | None = None) -> bytes:
            monkeypatch.undo()
            puller.store.remove(image.id)
            return document(digest, size)

        monkeypatch.setattr(puller.store.blobs, "document", remove_first)
        assert puller.pull(f"{registry.name}/box:1").id == image.id
    assert note(puller) == "small"


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_is_resumed(puller: Puller, ranges: bool) -> None:
    with ScriptedRegistry(BIG) as registry:
        path = registry.blob_path(BIG)
        registry.scripts[path] = breaking(BIG, ranges=ranges)
        puller.pull(f"{registry.name}/box:1")
        asked = [headers.get("range") for headers in registry.asked(path)]
        assert asked[0] is None
        assert len(asked) == 4
        assert all(word is not None and word.startswith("bytes=") for word in asked[1:])
    assert note(puller) == "big"


def test_progress_resets_the_attempts(tmp_path: Path) -> None:
    """More interruptions than attempts, each after enough bytes."""
    data = layer("long", 8 << 20)
    with ScriptedRegistry(data) as registry:
        registry.scripts[registry.blob_path(data)] = breaking(data, ranges=True)
        Puller(tmp_path).pull(f"{registry.name}/box:1")
        assert len(registry.asked(registry.blob_path(data))) > SHORT.attempts


@pytest.mark.parametrize("status", [429, 500, 502, 503])
@pytest.mark.parametrize("what", ["manifest", "config", "layer"])
def test_a_busy_registry_is_retried(puller: Puller, status: int, what: str) -> None:
    with ScriptedRegistry(SMALL) as registry:
        path = {
            "manifest": registry.manifest_path,
            "config": registry.blob_path(registry.config),
            "layer": registry.blob_path(SMALL),
        }[what]

        def busy(request: Request) -> None:
            request.answer(status, b"busy")
            del registry.scripts[path]

        registry.scripts[path] = busy
        puller.pull(f"{registry.name}/box:1")
        assert len(registry.asked(path)) == 2


def test_a_missing_image_is_requested_once(puller: Puller) -> None:
    with ScriptedRegistry(SMALL) as registry:
        with pytest.raises(NotFound, match="manifest unknown: manifest unknown"):
            puller.pull(f"{registry.name}/box:2")
        assert len(registry.asked("/manifests/2")) == 1


def test_an_existing_layer_is_not_fetched_again(puller: Puller) -> None:
    with ScriptedRegistry(SMALL) as first, ScriptedRegistry(SMALL, layer("more")) as second:
        puller.pull(f"{first.name}/box:1")
        puller.pull(f"{second.name}/box:1")
        assert second.asked(second.blob_path(SMALL)) == []
        output = [(m.get("status"), m.get("id")) for m in puller.messages]
        assert ("Already exists", digest(SMALL)[7:19]) in output
        before = len(second.seen)
        puller.pull(f"{second.name}/box:1")
        paths = [path for _, path, _ in second.seen[before:]]
        assert paths == ["/v2/", "/v2/box/manifests/1"]
        assert puller.messages[-1] == {
            "status": f"Status: Image is up to date for {second.name}/box:1"
        }


@pytest.mark.parametrize("registries", [1, 2])
def test_two_pulls_of_one_layer_share_its_download_from_one_registry(
    puller: Puller, registries: int
) -> None:
    """A registry that holds the layer back keeps no pull from another one waiting."""
    go_on = threading.Event()
    with ScriptedRegistry(BIG, layer("a")) as one, ScriptedRegistry(BIG, layer("b")) as two:
        images = [f"{one.name}/box:1", f"{two.name}/box:1"]
        if registries == 1:
            images[1] = f"{one.name}/box:2"
            one.blobs |= two.blobs
            one.scripts["/v2/box/manifests/2"] = lambda request: request.answer(
                200, two.manifest, MANIFEST
            )

        def slow(request: Request) -> None:
            request.head(200, Content_Length=str(len(BIG)))
            request.wfile.write(BIG[:1000])
            request.wfile.flush()
            go_on.wait(10)
            request.wfile.write(BIG[1000:])

        one.scripts[one.blob_path(BIG)] = two.scripts[two.blob_path(BIG)] = slow
        failures: list[BaseException] = []

        def work(name: str) -> None:
            try:
                Puller.pull(puller, name)
            except BaseException as error:  # noqa: BLE001
                failures.append(error)

        threads = [threading.Thread(target=work, args=(image,)) for image in images]
        for thread in threads:
            thread.start()
            time.sleep(0.3)
        go_on.set()
        for thread in threads:
            thread.join(20)
        assert failures == []
        fetched = one.asked(one.blob_path(BIG)) + two.asked(two.blob_path(BIG))
        assert len(fetched) == registries
    assert len(puller.store.list()) == 2


def test_a_shared_download_continues_after_its_first_pull_ends(puller: Puller) -> None:
    go_on, begun = threading.Event(), threading.Event()
    with ScriptedRegistry(BIG) as registry:

        def slow(request: Request) -> None:
            request.head(200, Content_Length=str(len(BIG)))
            request.wfile.write(BIG[:1000])
            request.wfile.flush()
            begun.set()
            go_on.wait(10)
            request.wfile.write(BIG[1000:])

        registry.scripts[registry.blob_path(BIG)] = slow
        cancel = Cancellation()
        ended: list[object] = []

        def first() -> None:
            try:
                puller.pull(f"{registry.name}/box:1", cancel=cancel)
            except JaulaError as error:
                ended.append(error)

        def second() -> None:
            ended.append(Puller.pull(puller, f"{registry.name}/box:1"))

        threads = [threading.Thread(target=first), threading.Thread(target=second)]
        threads[0].start()
        assert begun.wait(10)
        threads[1].start()
        time.sleep(0.3)
        cancel.cancel()
        threads[0].join(10)
        assert isinstance(ended[0], Cancelled)
        go_on.set()
        threads[1].join(20)
        assert len(ended) == 2
        assert len(registry.asked(registry.blob_path(BIG))) == 1
    assert note(puller) == "big"


@pytest.mark.parametrize("where", ["manifest", "layer"])
def test_a_cancelled_pull_ends_immediately_and_leaves_no_files(tmp_path: Path, where: str) -> None:
    from jaula.images.registry.timeouts import Timeouts

    puller = Puller(tmp_path, timeouts=Timeouts())
    with ScriptedRegistry(SMALL, BIG) as registry:
        path = registry.manifest_path if where == "manifest" else registry.blob_path(BIG)
        begun, over = threading.Event(), threading.Event()

        def stalled(request: Request) -> None:
            request.head(200, "x/y", Content_Length=str(len(BIG)))
            request.wfile.write(BIG[:1000])
            request.wfile.flush()
            begun.set()
            over.wait(20)

        registry.scripts[path] = stalled
        cancel = Cancellation()
        threading.Thread(target=lambda: (begun.wait(10), cancel.cancel())).start()
        begin = time.monotonic()
        with pytest.raises(Cancelled):
            puller.pull(f"{registry.name}/box:1", cancel=cancel)
        assert time.monotonic() - begin < 5
        over.set()
    assert puller.left() == []


def test_no_more_layers_are_fetched_at_a_time_than_allowed(tmp_path: Path) -> None:
    layers = [layer(str(number)) for number in range(8)]
    puller = Puller(tmp_path, {"downloads": 2})
    lock, now, most = threading.Lock(), 0, 0
    with ScriptedRegistry(*layers) as registry:

        def counted(request: Request) -> None:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.05)
            with lock:
                now -= 1
            registry.honest(request)

        for data in layers:
            registry.scripts[registry.blob_path(data)] = counted
        puller.pull(f"{registry.name}/box:1")
    assert most == 2
    assert any(message.get("status") == "Waiting" for message in puller.messages)


def test_a_failed_pull_can_be_done_again(puller: Puller) -> None:
    with ScriptedRegistry(SMALL, BIG) as registry:
        path = registry.blob_path(BIG)
        registry.scripts[path] = lambda request: request.answer(404, b"{}")
        with pytest.raises(JaulaError):
            puller.pull(f"{registry.name}/box:1")
        assert puller.left() == []
        del registry.scripts[path]
        puller.pull(f"{registry.name}/box:1")
    assert note(puller, 1) == "big"


def test_a_moved_tag_leaves_the_former_image_its_digest(puller: Puller) -> None:
    with ScriptedRegistry(SMALL) as registry:
        former = puller.pull(f"{registry.name}/box:1")
        other = layer("other")
        with ScriptedRegistry(other) as source:
            registry.blobs |= source.blobs
            registry.manifest_document = source.manifest_document
        newer = puller.pull(f"{registry.name}/box:1")
        assert newer.id != former.id
        former = puller.store.resolve(former.id)
        assert former.names == ()
        assert len(former.digests) == 1
        assert puller.store.resolve(former.digests[0]).id == former.id


def test_a_gzip_layer_is_unpacked_by_its_diff_id(tmp_path: Path) -> None:
    from harness.scripted_registry import config_of

    packed = gzip.compress(SMALL)
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    puller = Puller(tmp_path)
    with ScriptedRegistry(packed, config=config_of(SMALL), layer_type=kind) as registry:
        image = puller.pull(f"{registry.name}/box:1")
    assert image.layers == (digest(SMALL),)
    assert note(puller) == "small"


def test_a_dead_idle_connection_is_replaced(puller: Puller) -> None:
    with ScriptedRegistry(SMALL) as registry:

        def last(request: Request) -> None:
            registry.honest(request)
            request.close_connection = True  # without a message

        registry.scripts["/v2/"] = registry.scripts[registry.manifest_path] = last
        puller.pull(f"{registry.name}/box:1")
    assert note(puller) == "small"


def test_connections_are_used_again(puller: Puller) -> None:
    ports = set()
    with ScriptedRegistry(SMALL) as registry:

        def counted(request: Request) -> None:
            ports.add(request.client_address[1])
            ScriptedRegistry.honest(registry, request)

        registry.honest = counted  # type: ignore[method-assign]
        puller.pull(f"{registry.name}/box:1")
    assert len(ports) == 1


def test_an_image_loaded_and_pulled_is_one_image(puller: Puller) -> None:
    """Loaded with plain layers and pulled with compressed ones: one id, two manifests."""
    from harness.scripted_registry import config_of
    from jaula.images.archive.save_archive import save
    from jaula.images.registry.manifest_download import sha256

    packed = gzip.compress(SMALL)
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    config = config_of(SMALL)
    with ScriptedRegistry(SMALL, config=config) as plain:
        first = puller.pull(f"{plain.name}/box:1")
    with ScriptedRegistry(packed, config=config, layer_type=kind) as other:
        second = puller.pull(f"{other.name}/box:1")
        assert second.manifest == sha256(other.manifest)
    store = puller.store
    assert first.id == second.id
    assert len(store.list()) == 1
    assert set(store.list()[0].names) == {f"{plain.name}/box:1", f"{other.name}/box:1"}
    assert store.resolve(f"{plain.name}/box:1").manifest == first.manifest
    pieces: list[int] = []
    for name in second.names:
        save(store, [name], lambda data: pieces.append(len(data)))
    assert pieces
    again = Puller(puller.directory).store  # as at the next start of an engine
    assert again.list() == store.list()
    done = store.remove(f"{plain.name}/box:1")
    assert [step for step in done if "Deleted" in step] == []
    store.collect()
    assert store.blobs.size(sha256(packed)) == len(packed)
    assert store.blobs.size(digest(SMALL)) is None
    store.remove(first.id)
    assert puller.left() == []


def indexed(registry: ScriptedRegistry, *more: dict[str, object]) -> bytes:
    """Answer with an index that lists the registry's image and ``more``."""
    platform = {"architecture": "amd64", "os": "linux"}
    manifests = [described(registry.manifest, MANIFEST, platform=platform), *more]
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
    registry.send_manifest(index, INDEX)
    return index


def test_an_index_that_exceeds_the_limits_is_refused_before_a_blob_is_fetched(
    puller: Puller,
) -> None:
    many = [described(b"%d" % n, MANIFEST) for n in range(MANIFESTS_LIMIT)]
    with ScriptedRegistry(SMALL) as registry:
        indexed(registry, *many)
        with pytest.raises(InvalidRequest, match="the limit is 512"):
            puller.pull(f"{registry.name}/box:1")
        assert not registry.asked("/blobs/")
    assert puller.left() == []


def test_an_index_keeps_its_digest_and_lists_what_is_not_stored(puller: Puller) -> None:
    arm = {"architecture": "arm64", "os": "linux"}
    with ScriptedRegistry(SMALL) as registry:
        index = indexed(registry, described(b"arm", MANIFEST, platform=arm))
        image = puller.pull(f"{registry.name}/box:1")
        assert image.target == digest(index)
        assert image.digests == (f"{registry.name}/box@{digest(index)}",)
        stored = puller.store.index(digest(index))
        assert stored is not None
        assert stored.images == (digest(registry.manifest),)
        assert not stored.is_complete
        assert puller.store.resolve(f"{registry.name}/box@{digest(index)}") == image


@pytest.mark.parametrize("present", [True, False])
def test_an_attestation_is_fetched_if_the_registry_has_it(puller: Puller, present: bool) -> None:
    statement, config = b'{"predicateType":"x"}', b"{}"
    attestation = json.dumps({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [described(statement, "application/vnd.in-toto+json")],
    }).encode()  # fmt: skip
    with ScriptedRegistry(SMALL) as registry:
        about = {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": digest(registry.manifest),
        }
        unknown = {"architecture": "unknown", "os": "unknown"}
        index = indexed(
            registry, described(attestation, MANIFEST, platform=unknown, annotations=about)
        )
        registry.blobs |= {digest(statement): statement, digest(config): config}
        if present:
            path = f"GET /v2/box/manifests/{digest(attestation)}"
            registry.scripts[path] = lambda request: request.answer(200, attestation, MANIFEST)
        puller.pull(f"{registry.name}/box:1")
        stored = puller.store.index(digest(index))
        assert stored is not None
        assert stored.artifacts == ((digest(attestation),) if present else ())
        assert (puller.store.blobs.size(digest(statement)) is not None) == present
    assert note(puller) == "small"
