"""In-toto statements about images and files, and the manifest that holds those of one image. Pure.

Sources: in-toto/attestation ``spec/v1/statement.md``; moby/buildkit ``docs/attestations`` and
``exporter/containerimage`` (the manifest in both forms: an artifact with a subject as in OCI 1.1,
and an image for an unknown platform).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from jaula.spec.image_documents import CONFIG, MANIFEST, Descriptor, Platform

STATEMENT = "application/vnd.in-toto+json"
PREDICATE_TYPE = "in-toto.io/predicate-type"
SPDX = "https://spdx.dev/Document"
UNKNOWN = Platform("unknown", "unknown")
_ARTIFACT = "application/vnd.docker.attestation.manifest.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"
_TYPE = "https://in-toto.io/Statement/v1"

Document = dict[str, Any]


class Predicate(msgspec.Struct, frozen=True):
    """The content of a statement. ``filename`` is its name among exported files."""

    kind: str
    content: Document | msgspec.Raw
    filename: str


class Subject(msgspec.Struct, frozen=True):
    """Subject of a statement. ``digest`` is ``sha256:...``."""

    name: str
    digest: str


class AttestationManifest(msgspec.Struct, frozen=True):
    """A manifest with all blobs that it lists, by digest. ``descriptor`` is that of an index."""

    descriptor: Descriptor
    document: bytes
    blobs: Mapping[str, bytes]


def digest_set(digest: str) -> dict[str, str]:
    """Return a digest as in-toto states it."""
    algorithm, _, digits = digest.partition(":")
    return {algorithm: digits}


def statement(predicate: Predicate, subjects: Sequence[Subject]) -> Document:
    """Return the statement that ``predicate`` is true for the subjects."""
    return {
        "_type": _TYPE,
        "predicateType": predicate.kind,
        "subject": [{"name": s.name, "digest": digest_set(s.digest)} for s in subjects],
        "predicate": predicate.content,
    }


def attestation_manifest(
    statements: Sequence[Document], image: Descriptor, *, artifact: bool
) -> AttestationManifest:
    """Return the manifest of the statements about an image, whose manifest is ``image``."""
    blobs: dict[str, bytes] = {}
    layers = []
    for document in statements:
        data = msgspec.json.encode(document)
        digest = _add(blobs, data)
        annotations = {PREDICATE_TYPE: document["predicateType"]}
        layers.append(Descriptor(STATEMENT, digest, len(data), annotations=annotations))
    manifest: Document = {"schemaVersion": 2, "mediaType": MANIFEST}
    if artifact:
        manifest["artifactType"] = _ARTIFACT
        config, kind = b"{}", _EMPTY
    else:
        config, kind = msgspec.json.encode(_image_config(layers)), CONFIG
    manifest["config"] = Descriptor(kind, _add(blobs, config), len(config))
    manifest["layers"] = layers
    if artifact:
        manifest["subject"] = Descriptor(image.media_type, image.digest, image.size)
    data = msgspec.json.encode(manifest)
    descriptor = Descriptor(
        MANIFEST,
        _digest(data),
        len(data),
        annotations={
            "vnd.docker.reference.digest": image.digest,
            "vnd.docker.reference.type": "attestation-manifest",
        },
        platform=UNKNOWN,
    )
    return AttestationManifest(descriptor, data, blobs)


def _image_config(layers: Sequence[Descriptor]) -> Document:
    return {
        "architecture": UNKNOWN.architecture,
        "os": UNKNOWN.os,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
    }


def _add(blobs: dict[str, bytes], data: bytes) -> str:
    digest = _digest(data)
    blobs[digest] = data
    return digest


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
