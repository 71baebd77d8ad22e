"""Inspect an image in a registry without fetching it.

Sources: Docker Engine API 1.45, ``DistributionInspect``; docker docs, "docker manifest inspect".
"""

from __future__ import annotations

from typing import Any

import msgspec

from jaula.images.reference import Reference
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.manifest_download import Document
from jaula.images.registry.repository import Repository
from jaula.images.store.image_store import check_document
from jaula.spec.image_documents import MANIFESTS

Json = dict[str, Any]

_DETAILS_LIMIT = 64  # manifests of one index that are fetched


def describe(source: Repository, reference: Reference, cancel: Cancellation) -> Json:
    """Return Docker's ``DistributionInspect``: the descriptor and the platforms."""
    document = source.manifest(reference.digest or reference.tag or "", cancel)
    return {
        "Descriptor": _descriptor(document),
        "Platforms": _platforms(source, document, cancel),
    }


def details(source: Repository, reference: Reference, cancel: Cancellation) -> Json:
    """Return the document of a name, and each manifest that it lists, unchanged.

    ``Content`` is the text of the document. ``Platform`` is set for a manifest.
    """
    document = source.manifest(reference.digest or reference.tag or "", cancel)
    if not document.is_index:
        return _detail(document, _platforms(source, document, cancel)[0]) | {"Manifests": None}
    listed = [d for d in document.index().manifests if d.media_type in MANIFESTS]
    manifests = []
    for descriptor in listed[:_DETAILS_LIMIT]:
        manifest = source.manifest(descriptor.digest, cancel)
        platform = msgspec.to_builtins(descriptor.platform) if descriptor.platform else None
        manifests.append(_detail(manifest, platform))
    return _detail(document, None) | {"Manifests": manifests}


def _detail(document: Document, platform: Json | None) -> Json:
    return {
        "Descriptor": _descriptor(document),
        "Platform": platform,
        "Content": document.data.decode("utf-8", "replace"),
    }


def _descriptor(document: Document) -> Json:
    return {
        "mediaType": document.media_type,
        "digest": document.digest,
        "size": len(document.data),
    }


def _platforms(source: Repository, document: Document, cancel: Cancellation) -> list[Json]:
    if document.is_index:
        listed = [d.platform for d in document.index().manifests if d.platform is not None]
        return [msgspec.to_builtins(platform) for platform in listed]
    descriptor = document.manifest().config
    config = check_document(source.config(descriptor, cancel), descriptor.digest)
    platform = {"architecture": config.architecture, "os": config.os}
    return [platform | ({"variant": config.variant} if config.variant else {})]
