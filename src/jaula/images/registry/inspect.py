"""Looking at what a registry has under a name, without fetching it.

Sources: Docker Engine API 1.45, ``DistributionInspect``; docker docs, "docker manifest inspect".
"""

from __future__ import annotations

from typing import Any

import msgspec

from jaula.images.reference import Reference
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.manifest import Document
from jaula.images.registry.repository import Repository
from jaula.images.store.store import check_document
from jaula.spec.image import MANIFESTS

Shown = dict[str, Any]

_DETAILS_LIMIT = 64  # manifests of one index that are looked at


def describe(source: Repository, reference: Reference, cancel: Cancellation) -> Shown:
    """Docker's ``DistributionInspect``: the descriptor, and for which platforms it is."""
    document = source.manifest(reference.digest or reference.tag or "", cancel)
    return {
        "Descriptor": _descriptor(document),
        "Platforms": _platforms(source, document, cancel),
    }


def details(source: Repository, reference: Reference, cancel: Cancellation) -> Shown:
    """The document under a name, and each manifest that it lists, as they are.

    ``Content`` is the document's text; ``Platform`` is there for a manifest.
    """
    document = source.manifest(reference.digest or reference.tag or "", cancel)
    if not document.is_index:
        return _detail(document, _platforms(source, document, cancel)[0]) | {"Manifests": None}
    listed = [d for d in document.index().manifests if d.media_type in MANIFESTS]
    found = []
    for descriptor in listed[:_DETAILS_LIMIT]:
        manifest = source.manifest(descriptor.digest, cancel)
        platform = msgspec.to_builtins(descriptor.platform) if descriptor.platform else None
        found.append(_detail(manifest, platform))
    return _detail(document, None) | {"Manifests": found}


def _detail(document: Document, platform: Shown | None) -> Shown:
    return {
        "Descriptor": _descriptor(document),
        "Platform": platform,
        "Content": document.data.decode("utf-8", "replace"),
    }


def _descriptor(document: Document) -> Shown:
    return {
        "mediaType": document.media_type,
        "digest": document.digest,
        "size": len(document.data),
    }


def _platforms(source: Repository, document: Document, cancel: Cancellation) -> list[Shown]:
    if document.is_index:
        listed = [d.platform for d in document.index().manifests if d.platform is not None]
        return [msgspec.to_builtins(platform) for platform in listed]
    config = document.manifest().config
    found = check_document(source.config(config, cancel), config.digest)
    platform = {"architecture": found.architecture, "os": found.os}
    return [platform | ({"variant": found.variant} if found.variant else {})]
