"""Signature manifests."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from jaula.errors import InvalidRequest
from jaula.features.trust import cosign_manifest, simple_signing
from jaula.features.trust.signature import Signature
from jaula.images.registry.manifest_download import sha256
from jaula.spec.image_documents import INDEX, MANIFEST, Descriptor

DIGEST = "sha256:" + "ab" * 32
FIRST, SECOND = Signature(b"one", b"\x00\x01"), Signature(b"two", b"\x02")


def test_tags_are_cosigns_and_the_specifications() -> None:
    assert cosign_manifest.signature_tag(DIGEST) == "sha256-" + "ab" * 32 + ".sig"
    assert cosign_manifest.referrers_tag(DIGEST) == "sha256-" + "ab" * 32


def test_a_second_signature_joins_the_first() -> None:
    config = cosign_manifest.config_with(FIRST, None)
    manifest = cosign_manifest.manifest_with(FIRST, config)
    config = cosign_manifest.config_with(SECOND, config)
    manifest = cosign_manifest.manifest_with(SECOND, config, manifest)
    result = cosign_manifest.read(manifest, "it")
    assert [cosign_manifest.signature_value(layer) for layer in result.layers] == [
        FIRST.value,
        SECOND.value,
    ]
    assert result.config.digest == sha256(config)
    ids = json.loads(config)["rootfs"]["diff_ids"]
    assert ids == [layer.digest for layer in result.layers]


def test_members_of_other_tools_stay() -> None:
    theirs = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "x", "digest": DIGEST, "size": 1},
        "layers": [
            {
                "mediaType": simple_signing.MEDIA_TYPE,
                "digest": DIGEST,
                "size": 5,
                "annotations": {
                    cosign_manifest.ANNOTATION: "AAE=",
                    "dev.sigstore.cosign/bundle": "{}",
                },
            }
        ],
        "annotations": {"a": "b"},
    }
    both = json.loads(cosign_manifest.manifest_with(FIRST, b"{}", json.dumps(theirs).encode()))
    assert both["layers"][0] == theirs["layers"][0]  # type: ignore[index]
    assert both["annotations"] == {"a": "b"}


def test_a_referrer_names_its_image() -> None:
    subject = Descriptor(MANIFEST, DIGEST, 7)
    manifest = json.loads(cosign_manifest.manifest_with(FIRST, b"{}", subject=subject))
    assert manifest["subject"] == {"mediaType": MANIFEST, "digest": DIGEST, "size": 7}
    assert manifest["artifactType"] == cosign_manifest.ARTIFACT_TYPE
    assert manifest["config"]["mediaType"] == cosign_manifest.ARTIFACT_TYPE


def test_a_list_of_referrers_keeps_other_entries() -> None:
    other = {"mediaType": MANIFEST, "digest": DIGEST, "size": 1, "artifactType": "application/sbom"}
    existing = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [other]}
    first = cosign_manifest.referrers_with(b"m1", json.dumps(existing).encode())
    assert json.loads(first)["manifests"][0] == other
    assert [r.digest for r in cosign_manifest.referrers(first, "it")] == [sha256(b"m1")]
    second = cosign_manifest.referrers_with(b"m2", first, sha256(b"m1"))
    assert [r.digest for r in cosign_manifest.referrers(second, "it")] == [sha256(b"m2")]
    assert len(json.loads(second)["manifests"]) == 2


@pytest.mark.parametrize(
    "layer",
    [
        {"annotations": {}},
        {"annotations": {cosign_manifest.ANNOTATION: "not base 64!"}},
        {"media_type": "application/octet-stream"},
        {"size": simple_signing.LIMIT + 1},
    ],
)
def test_a_layer_that_is_not_a_signature_is_skipped(layer: dict[str, Any]) -> None:
    note = {cosign_manifest.ANNOTATION: base64.b64encode(b"x").decode()}
    fields = {
        "media_type": simple_signing.MEDIA_TYPE,
        "digest": DIGEST,
        "size": 3,
        "annotations": note,
    }
    assert cosign_manifest.signature_value(Descriptor(**(fields | layer))) is None
    assert cosign_manifest.signature_value(Descriptor(**fields)) == b"x"


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"layers": 1}', b"[" * 10_000])
def test_an_invalid_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        cosign_manifest.manifest_with(FIRST, b"{}", data)
    with pytest.raises(InvalidRequest):
        cosign_manifest.read(data, "it")
