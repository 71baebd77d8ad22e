"""The manifests in which registries store signatures. Pure.

Sources: cosign's ``SIGNATURE_SPEC.md`` ("Tag-based Discovery", "OCI Image Manifest V1"), image-spec
1.1 ``manifest.md`` (``subject``, ``artifactType``), distribution-spec 1.1 "Referrers Tag Schema". A
signature is a layer: the blob is the payload, an annotation is the signature.

The configuration lists the payloads like layers to unpack, as cosign and skopeo write it.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from jaula.errors import InvalidRequest
from jaula.features.trust import simple_signing
from jaula.features.trust.signature import Signature
from jaula.images.registry.manifest_download import sha256
from jaula.spec.image_documents import CONFIG, INDEX, MANIFEST, Descriptor, Digest, decode

ANNOTATION = "dev.cosignproject.cosign/signature"
ARTIFACT_TYPE = "application/vnd.dev.cosign.artifact.sig.v1+json"

Json = dict[str, Any]


class SignatureManifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A manifest whose layers are signatures, with the members that are used here."""

    config: Descriptor
    layers: tuple[Descriptor, ...] = ()
    artifact_type: str = ""


class Referrer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A descriptor in a list of referrers.

    ``artifact_type`` may be the media type of the configuration.
    """

    media_type: str
    digest: Digest
    size: int
    artifact_type: str = ""


class _Referrers(msgspec.Struct, frozen=True, rename="camel"):
    manifests: tuple[Referrer, ...] = ()


def signature_tag(digest: str) -> str:
    """Return the tag of an image's signatures: ``sha256-<digits>.sig``."""
    return referrers_tag(digest) + ".sig"


def referrers_tag(digest: str) -> str:
    """Return the tag of the referrers list, for registries without the referrers API."""
    return digest.replace(":", "-")


def signature_layer(signature: Signature) -> Descriptor:
    """Return the layer that holds a signature."""
    note = {ANNOTATION: base64.b64encode(signature.value).decode()}
    data = signature.payload
    return Descriptor(simple_signing.MEDIA_TYPE, sha256(data), len(data), annotations=note)


def signature_value(layer: Descriptor) -> bytes | None:
    """Return the signature in a layer's annotation, or None if there is no readable one."""
    text = layer.annotations.get(ANNOTATION)
    if (
        layer.media_type != simple_signing.MEDIA_TYPE
        or not text
        or layer.size > simple_signing.LIMIT
    ):
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def read(data: bytes, what: str) -> SignatureManifest:
    """Parse a manifest of signatures. ``what`` names it in errors.

    :raises InvalidRequest: if it is not valid.
    """
    return decode(data, SignatureManifest, what)


def referrers(data: bytes, what: str) -> list[Referrer]:
    """Return the descriptors that are signature manifests or state no type."""
    listed = decode(data, _Referrers, what).manifests
    types = ("", ARTIFACT_TYPE)
    return [r for r in listed if r.artifact_type in types and r.media_type == MANIFEST]


def config_with(signature: Signature, existing: bytes | None) -> bytes:
    """Return the configuration of a manifest with one more signature."""
    document: Json = {"architecture": "", "os": "", "config": {}}
    if existing is not None:
        document = _object(existing, "the configuration of the signatures")
    rootfs = document.get("rootfs")
    listed = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    ids = [*listed] if isinstance(listed, list) else []
    document["rootfs"] = {"type": "layers", "diff_ids": [*ids, sha256(signature.payload)]}
    return msgspec.json.encode(document)


def manifest_with(
    signature: Signature,
    config: bytes,
    existing: bytes | None = None,
    subject: Descriptor | None = None,
) -> bytes:
    """Return a manifest with one more signature. With a ``subject`` it refers to that image."""
    document: Json = {"schemaVersion": 2, "mediaType": MANIFEST}
    if existing is not None:
        document = _object(existing, "the manifest of the signatures")
    kind = CONFIG if subject is None else ARTIFACT_TYPE
    document["config"] = msgspec.to_builtins(Descriptor(kind, sha256(config), len(config)))
    document["layers"] = [
        *document.get("layers", ()),
        msgspec.to_builtins(signature_layer(signature)),
    ]
    if subject is not None:
        document["artifactType"] = ARTIFACT_TYPE
        document["subject"] = msgspec.to_builtins(subject)
    return msgspec.json.encode(document)


def referrers_with(manifest: bytes, existing: bytes | None, replaced: str = "") -> bytes:
    """Return the list of referrers with one more signature manifest, replacing ``replaced``."""
    document: Json = {"schemaVersion": 2, "mediaType": INDEX}
    if existing is not None:
        document = _object(existing, "the list of referrers")
    added = msgspec.to_builtins(Descriptor(MANIFEST, sha256(manifest), len(manifest)))
    added["artifactType"] = ARTIFACT_TYPE
    kept = [m for m in document.get("manifests", ()) if _digest(m) not in ("", replaced)]
    document["manifests"] = [*kept, added]
    return msgspec.json.encode(document)


def _digest(member: object) -> str:
    value = member.get("digest") if isinstance(member, dict) else None
    return value if isinstance(value, str) else ""


def _object(data: bytes, what: str) -> Json:
    try:
        document = msgspec.json.decode(data, type=Json)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{what} is not valid: {error}") from None
    for name in ("layers", "manifests"):
        if not isinstance(document.get(name, []), list):
            raise InvalidRequest(f"{what} is not valid: its {name} must be a list")
    return document
