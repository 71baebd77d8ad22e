"""I12: descriptors are strict: digest before parsing, one media type, size limits, digest grammar.

The registry is hostile. After each pull none of its content remains.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.puller import Puller
from harness.scripted_registry import (
    CONFIG,
    INDEX,
    LAYER,
    MANIFEST,
    Request,
    ScriptedRegistry,
    config_of,
    described,
    digest,
    endless,
    layer,
)
from jaula.errors import JaulaError

MIB = 1 << 20


@pytest.fixture
def registry() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry(layer("one"), layer("two", 300_000)) as made:
        yield made


@pytest.fixture
def puller(tmp_path: Path) -> Puller:
    return Puller(tmp_path)


def refused(puller: Puller, registry: ScriptedRegistry, *words: str, tag: str = ":1") -> str:
    """Assert that a pull fails in time and leaves no file.

    The error contains ``words``.
    """
    begin = time.monotonic()
    with pytest.raises(JaulaError) as raised:
        puller.pull(f"{registry.name}/box{tag}")
    assert time.monotonic() - begin < 20
    text = str(raised.value)
    for word in words:
        assert word in text
    assert text.isprintable()
    assert puller.left() == []
    assert puller.store.list() == []
    return text


def test_the_honest_registry_serves_the_image(puller: Puller, registry: ScriptedRegistry) -> None:
    """Check the other tests: without the attack the pull succeeds."""
    assert len(puller.pull(f"{registry.name}/box:1").layers) == 2


@pytest.mark.parametrize("cve", ["CVE-2024-3727"])
def test_a_manifest_must_have_its_digest(
    puller: Puller, registry: ScriptedRegistry, cve: str
) -> None:
    expected = digest(registry.manifest)
    registry.scripts[f"/v2/box/manifests/{expected}"] = lambda request: request.answer(
        200, registry.manifest + b" ", MANIFEST
    )
    refused(puller, registry, "manifest verification failed", tag=f"@{expected}")


def test_a_manifest_must_have_the_digest_of_the_response(
    puller: Puller, registry: ScriptedRegistry
) -> None:
    registry.send_manifest(registry.manifest, Docker_Content_Digest="sha256:" + "0" * 64)
    refused(puller, registry, "damaged")


@pytest.mark.parametrize("cve", ["CVE-2021-41190"])
@pytest.mark.parametrize(
    ("sent_as", "change"),
    [
        (INDEX, {}),
        (MANIFEST, {"mediaType": INDEX}),
        (MANIFEST, {"manifests": []}),
        (INDEX, {"mediaType": INDEX, "manifests": []}),
        ("application/json", {}),
        ("text/plain", {}),
        ("", {}),
    ],
)
def test_a_document_has_one_media_type(
    puller: Puller,
    registry: ScriptedRegistry,
    cve: str,
    sent_as: str,
    change: dict[str, object],
) -> None:
    registry.manifest_document |= change
    registry.send_manifest(registry.manifest, sent_as)
    refused(puller, registry)


@pytest.mark.parametrize(
    "text",
    [
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 64 + "\n",
        "sha512:" + "a" * 128,
        "sha256:../../../../etc/passwd",
        "",
        "md5:x",
    ],
)
@pytest.mark.parametrize("member", ["config", "layers"])
def test_the_grammar_of_a_digest_is_strict(
    puller: Puller, registry: ScriptedRegistry, text: str, member: str
) -> None:
    entry = registry.manifest_document[member]
    (entry if member == "config" else entry[0])["digest"] = text
    refused(puller, registry, "not valid")
    assert not any("passwd" in path for _, path, _ in registry.seen)


@pytest.mark.parametrize("size", [-1, 2**63, "12", None, 1.5])
def test_a_size_must_be_a_number(puller: Puller, registry: ScriptedRegistry, size: object) -> None:
    registry.manifest_document["layers"][0]["size"] = size
    refused(puller, registry, "not valid")


@pytest.mark.parametrize("cve", ["CVE-2021-21285"])
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"schemaVersion":1}'],
)
def test_an_invalid_manifest_is_refused(
    puller: Puller, registry: ScriptedRegistry, cve: str, body: bytes
) -> None:
    registry.send_manifest(body)
    refused(puller, registry)


def _long(request: Request) -> None:
    request.head(200, MANIFEST, Content_Length=str(1 << 40))
    request.wfile.write(b" " * 1000)


@pytest.mark.parametrize(
    "script",
    [
        _long,
        endless(b" " * 65536),
        endless(b" ", pause=0.1),
        lambda request: request.answer(200, b" " * (5 * MIB), MANIFEST),
    ],
    ids=["announced", "endless", "slow", "large"],
)
def test_the_size_of_a_manifest_is_limited(
    puller: Puller, registry: ScriptedRegistry, script: Callable[[Request], None]
) -> None:
    registry.scripts[registry.manifest_path] = script
    refused(puller, registry)


def test_endless_headers_are_refused(puller: Puller, registry: ScriptedRegistry) -> None:
    def drip(request: Request) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX-A: ")
        while True:
            request.wfile.write(b"a")
            request.wfile.flush()
            time.sleep(0.05)

    registry.scripts[registry.manifest_path] = drip
    refused(puller, registry)


@pytest.mark.parametrize(
    ("number", "word"),
    [(501, "501 layers"), (20_000, "")],
)
def test_the_number_of_layers_is_limited(
    puller: Puller, registry: ScriptedRegistry, number: int, word: str
) -> None:
    registry.manifest_document["layers"] *= number // 2 + 1
    registry.manifest_document["layers"] = registry.manifest_document["layers"][:number]
    refused(puller, registry, word)


def test_the_config_must_have_its_digest(puller: Puller, registry: ScriptedRegistry) -> None:
    registry.scripts[registry.blob_path(registry.config)] = lambda request: request.answer(
        200, b"x" * len(registry.config)
    )
    refused(puller, registry, "image config verification failed")


def test_the_config_must_not_exceed_its_size(puller: Puller, registry: ScriptedRegistry) -> None:
    registry.scripts[registry.blob_path(registry.config)] = lambda request: request.answer(
        200, registry.config + b" " * 100
    )
    refused(puller, registry)
    registry.manifest_document["config"]["size"] = 5 * MIB
    refused(puller, registry, "the limit is")


def test_an_artifact_is_refused_as_an_image(puller: Puller, registry: ScriptedRegistry) -> None:
    registry.manifest_document["config"]["mediaType"] = "application/vnd.oci.empty.v1+json"
    refused(puller, registry, "not a container image")


def test_a_layer_must_have_its_digest(puller: Puller, registry: ScriptedRegistry) -> None:
    other = layer("evil", 300_000)
    assert len(other) == len(registry.layers[1])
    registry.scripts[registry.blob_path(registry.layers[1])] = lambda request: request.answer(
        200, other
    )
    refused(puller, registry, "filesystem layer verification failed")


def test_a_layer_must_have_the_diff_id_of_the_config(tmp_path: Path) -> None:
    """The digest of the blob is right, and its uncompressed content differs."""
    config = config_of(layer("good"))
    with ScriptedRegistry(layer("evil"), config=config) as registry:
        refused(Puller(tmp_path), registry, "the image says")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    with ScriptedRegistry(b"\x1f\x8b\x08\x00" + b"junk" * 1000) as registry:
        refused(Puller(tmp_path), registry)


@pytest.mark.parametrize("more", [1, 1 << 20])
def test_a_layer_must_not_exceed_its_size(
    puller: Puller, registry: ScriptedRegistry, more: int
) -> None:
    data = registry.layers[1] + b"x" * more
    registry.scripts[registry.blob_path(registry.layers[1])] = lambda request: request.answer(
        200, data
    )
    refused(puller, registry, "the manifest says")


def test_an_endless_layer_is_refused(puller: Puller, registry: ScriptedRegistry) -> None:
    data = registry.layers[1]

    def script(request: Request) -> None:
        request.head(200, Transfer_Encoding="chunked")
        request.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        while True:
            request.wfile.write(b"%x\r\n%s\r\n" % (65536, bytes(65536)))

    registry.scripts[registry.blob_path(data)] = script
    refused(puller, registry, "sends more of")


def test_a_layer_whose_download_always_breaks_is_abandoned(
    puller: Puller, registry: ScriptedRegistry
) -> None:
    path = registry.blob_path(registry.layers[1])

    def cut(request: Request) -> None:
        request.head(200, Content_Length=str(len(registry.layers[1])))
        request.wfile.write(registry.layers[1][:100])
        request.hang_up()

    registry.scripts[path] = cut
    refused(puller, registry, "closed the connection")
    assert len(registry.asked(path)) == puller.timeouts.attempts


def test_a_layer_that_arrives_too_slowly_is_abandoned(
    puller: Puller, registry: ScriptedRegistry
) -> None:
    def drip(request: Request) -> None:
        request.head(200, Content_Length=str(len(registry.layers[1])))
        for byte in registry.layers[1]:
            request.wfile.write(bytes([byte]))
            request.wfile.flush()
            time.sleep(0.05)

    registry.scripts[registry.blob_path(registry.layers[1])] = drip
    refused(puller, registry, "too slow")


@pytest.mark.parametrize(
    "span", ["bytes 0-9/10", "bytes 1-2/3", "", "bytes */*", "bytes 100-299999999/300000000"]
)
def test_a_resumed_download_must_return_the_requested_range(
    puller: Puller, registry: ScriptedRegistry, span: str
) -> None:
    data = registry.layers[1]

    def cut(request: Request) -> None:
        if request.headers.get("Range"):
            request.answer(206, data[100:], Content_Range=span)
            return
        request.head(200, Content_Length=str(len(data)))
        request.wfile.write(data[:100])
        request.hang_up()

    registry.scripts[registry.blob_path(data)] = cut
    refused(puller, registry, "from byte 100,")


@pytest.mark.parametrize(
    "change",
    [{"size": 1}, {"mediaType": CONFIG}, {"mediaType": INDEX}, {"digest": digest(b"other")}],
)
def test_a_manifest_must_match_its_entry_in_the_index(
    puller: Puller, registry: ScriptedRegistry, change: dict[str, object]
) -> None:
    platform = {"os": "linux", "architecture": "amd64"}
    entry = described(registry.manifest, MANIFEST, platform=platform) | change
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    registry.send_manifest(json.dumps(index).encode(), INDEX)
    refused(puller, registry)


def test_control_characters_of_a_registry_do_not_reach_a_terminal(
    puller: Puller, registry: ScriptedRegistry
) -> None:
    evil = {"code": "DENIED", "message": "\x1b]0;owned\x07\x1b[2J\r\n" + "x" * 100_000}
    registry.scripts[registry.manifest_path] = lambda request: request.answer(
        403, json.dumps({"errors": [evil]}).encode()[:60_000]
    )
    assert len(refused(puller, registry)) < 2000
    evil["message"] = evil["message"][:200]
    assert "\x1b" not in refused(puller, registry, "pull access denied")


def test_endless_tag_lists_are_not_followed(puller: Puller, registry: ScriptedRegistry) -> None:
    from jaula.images.registry.auth.token import Credentials
    from jaula.images.registry.cancellation import Cancellation

    registry.scripts["/v2/box/tags/list"] = lambda request: request.answer(
        200, b'{"tags":["a","b","../x","c d"]}', Link='</v2/box/tags/list?last=b>; rel="next"'
    )
    cancel = Cancellation()
    source = puller.client.repository(registry.name, "box", Credentials(), cancel)
    with pytest.raises(JaulaError, match="has more than"):
        assert set(source.tags(cancel)) <= {"a", "b"}


def test_a_layer_of_unknown_type_is_refused(tmp_path: Path) -> None:
    with ScriptedRegistry(layer(), layer_type=LAYER + "+lz4") as registry:
        refused(Puller(tmp_path), registry, "unknown media type")
