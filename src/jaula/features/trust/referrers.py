"""Signatures of an image in its registry: find them and add one.

Source: cosign's ``SIGNATURE_SPEC.md`` and distribution-spec 1.1, "Listing Referrers" and "Pushing
Manifests with Subject". Both locations are searched: the tag ``sha256-<digest>.sig``, and manifests
that refer to the image. The latter are listed by the registry, or by a client under a tag.
"""

from __future__ import annotations

import io
from typing import BinaryIO

from jaula.errors import InvalidRequest, NotFound, Unsupported
from jaula.features.trust import cosign_manifest
from jaula.features.trust.signature import COUNT_LIMIT, Signature
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.manifest_download import Document, sha256
from jaula.images.registry.registry_errors import RegistryError
from jaula.images.registry.registry_session import check
from jaula.images.registry.repository import Repository, retry
from jaula.images.registry.upload import Upload
from jaula.spec.image_documents import DOCUMENT_LIMIT, INDEX, MANIFEST, Descriptor

_REFERRERS_LIMIT = 32  # signature manifests that are fetched


class _Cache:
    """Small blobs in memory that are to be uploaded."""

    def __init__(self, *blobs: bytes) -> None:
        self._blobs = {sha256(data): data for data in blobs}

    def open(self, digest: str) -> BinaryIO:
        return io.BytesIO(self._blobs[digest])


def find(source: Repository, digest: str, cancel: Cancellation) -> list[Signature]:
    """Return the signatures of an image, at most :data:`~.signature.COUNT_LIMIT`.

    Damaged or missing signatures are skipped; an image without signatures is not an error.

    :raises RegistryError: if the registry refuses a request.
    """
    signatures: list[Signature] = []
    try:
        listed = [r.digest for r in _referrers(source, digest, cancel)[:_REFERRERS_LIMIT]]
    except InvalidRequest:
        listed = []
    for reference in (cosign_manifest.signature_tag(digest), *listed):
        if len(signatures) >= COUNT_LIMIT:
            break
        try:
            document = _manifest(source, reference, cancel)
            if document is not None:
                signatures += _signatures(source, document, cancel)
        except (InvalidRequest, Unsupported):
            continue
    return list(dict.fromkeys(signatures))[:COUNT_LIMIT]


def add(
    target: Repository,
    image: Descriptor,
    signature: Signature,
    cancel: Cancellation,
    *,
    referring: bool,
) -> None:
    """Add a signature of ``image`` to its repository.

    With ``referring`` it goes into a manifest that refers to the image, else under the signature
    tag.
    """
    if referring:
        _refer(target, image, signature, cancel)
        return
    tag = cosign_manifest.signature_tag(image.digest)
    existing = _manifest(target, tag, cancel)
    added = _with_signature(signature, target, existing, f"the manifest {tag}", cancel)
    if added is None:
        return
    config, manifest = added
    upload = _upload(target, (config, signature.payload), cancel)
    upload.manifest(tag, manifest, MANIFEST)


def _with_signature(
    signature: Signature,
    target: Repository,
    former: Document | None,
    about: str,
    cancel: Cancellation,
    *,
    subject: Descriptor | None = None,
) -> tuple[bytes, bytes] | None:
    """Return configuration and manifest with one signature more than ``former``.

    Return None if ``former`` contains the signature. ``about`` names ``former`` in errors.
    """
    config = None
    if former is not None:
        known = cosign_manifest.read(former.data, about)
        if cosign_manifest.signature_layer(signature) in known.layers:
            return None
        config = target.config(known.config, cancel)
    config = cosign_manifest.config_with(signature, config)
    data = former.data if former else None
    return config, cosign_manifest.manifest_with(signature, config, data, subject=subject)


def _refer(
    target: Repository, image: Descriptor, signature: Signature, cancel: Cancellation
) -> None:
    """Add a manifest with all signatures.

    cosign reads only the last manifest that refers to an image.
    """
    listed = [
        referrer
        for referrer in _referrers(target, image.digest, cancel)
        if referrer.artifact_type == cosign_manifest.ARTIFACT_TYPE
    ]
    former = _manifest(target, listed[-1].digest, cancel) if listed else None
    about = f"manifest {former.digest}" if former else ""
    added = _with_signature(signature, target, former, about, cancel, subject=image)
    if added is None:
        return
    config, manifest = added
    upload = _upload(target, (config, signature.payload), cancel)
    digest = sha256(manifest)
    if upload.manifest(digest, manifest, MANIFEST, subject=image.digest):
        return
    tag = cosign_manifest.referrers_tag(image.digest)
    existing = _manifest(target, tag, cancel)
    index = cosign_manifest.referrers_with(
        manifest, existing.data if existing else None, former.digest if former else ""
    )
    upload.manifest(tag, index, INDEX)


def _upload(target: Repository, blobs: tuple[bytes, ...], cancel: Cancellation) -> Upload:
    upload = Upload(target, _Cache(*blobs), cancel)
    for data in blobs:
        blob = Descriptor("", sha256(data), len(data))
        if not upload.has(blob.digest):
            upload.send(blob, lambda sent: None)
    return upload


def _manifest(source: Repository, reference: str, cancel: Cancellation) -> Document | None:
    """Return the manifest of a tag or digest, or None if it does not exist."""
    try:
        return source.manifest(reference, cancel)
    except RegistryError as error:
        if error.http_status == 404:
            return None
        raise


def _referrers(
    source: Repository, digest: str, cancel: Cancellation
) -> list[cosign_manifest.Referrer]:
    """Return the referrers of an image, from the registry's API or from the list under the tag."""
    target = f"/{source.path}/referrers/{digest}"
    what = f"the list of referrers of {digest}"

    def ask() -> bytes | None:
        response = source.session.request("GET", target, source.scopes, cancel=cancel)
        if response.status in (400, 404, 405):  # older registries lack this endpoint
            with response:
                response.document(DOCUMENT_LIMIT, what)
                return None
        with check(response, 200):
            return response.document(DOCUMENT_LIMIT, what)

    data = retry(ask, source.timeouts, cancel)
    if data is None:
        listed = _manifest(source, cosign_manifest.referrers_tag(digest), cancel)
        data = listed.data if listed is not None and listed.is_index else None
    return cosign_manifest.referrers(data, what) if data is not None else []


def _signatures(source: Repository, document: Document, cancel: Cancellation) -> list[Signature]:
    signatures = []
    layers = cosign_manifest.read(document.data, f"manifest {document.digest}").layers
    for layer in layers[:COUNT_LIMIT]:
        value = cosign_manifest.signature_value(layer)
        if value is not None:
            try:
                signatures.append(Signature(source.config(layer, cancel), value))
            except (NotFound, InvalidRequest, RegistryError):
                continue  # a damaged or missing signature is skipped
    return signatures
