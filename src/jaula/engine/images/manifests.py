"""The manifests of an image for API clients, its identity, and its attestations.

Sources: Docker Engine API 1.47 to 1.55, ``ImageManifestSummary``, ``Identity`` and
``AttestationStatement``; BuildKit's ``attestation-storage.md``: a statement is a layer of the
attestation, and the annotation ``in-toto.io/predicate-type`` has its type.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.errors import InvalidRequest, NotFound
from jaula.images.policy import ImageRefused
from jaula.images.reference import parse
from jaula.images.store.index import IndexEntry, Kind

if TYPE_CHECKING:
    from jaula.images.policy import ImagePolicy
    from jaula.images.store.image_catalog import Image
    from jaula.images.store.image_store import ImageStore
    from jaula.spec.image_documents import Platform

Document = dict[str, Any]
Documents = list[Document]

_PREDICATE_TYPE = "in-toto.io/predicate-type"
_STATEMENT_LIMIT = 32 << 20  # bytes of all statements of one answer
_SIGNATURE_TYPE = "simplesigning-v1"


def summaries(
    store: ImageStore,
    image: Image,
    users: Mapping[str, Sequence[str]],
    identities: Mapping[str, Document] | None = None,
) -> Documents:
    """Return Docker's summary of each manifest of an image's target, in the order of the index.

    ``users`` are the ids of containers by image id, ``identities`` the identity of an image by its
    manifest.
    """
    stored = {each.manifest: each for each in store.images(image)}
    index = store.index(image.target)
    if index is None:
        entries: Sequence[IndexEntry] = (IndexEntry(store.descriptor(image), Kind.IMAGE),)
    else:
        entries = index.tree.entries
    artifacts = index.artifacts if index is not None else ()
    documents = []
    for entry in entries:
        digest = entry.descriptor.digest
        held = stored.get(digest)
        available = held is not None or digest in artifacts
        content = store.content_size(digest) if available else 0
        document: Document = {
            "ID": digest,
            "Descriptor": msgspec.to_builtins(entry.descriptor),
            "Available": available,
            "Size": {"Content": content, "Total": content + (held.size if held else 0)},
            "Kind": str(entry.kind),
        }
        if entry.kind is Kind.IMAGE:
            platform = held.platform if held else entry.descriptor.platform
            document["ImageData"] = {
                "Platform": msgspec.to_builtins(entry.descriptor.platform or platform) or {},
                "Size": {"Unpacked": held.size if held else 0},
                "Containers": list(users.get(held.id, ())) if held else [],
            }
            if identities and digest in identities:
                document["ImageData"]["Identity"] = identities[digest]
        elif entry.kind is Kind.ATTESTATION:
            document["AttestationData"] = {"For": entry.subject}
        documents.append(document)
    return documents


def identity(policy: ImagePolicy, image: Image) -> Document | None:
    """Return where an image comes from, as far as it is known: Docker's ``Identity``, or None.

    The repositories are those of its digests. A signature is stated if the image policy requires
    one for a name of the image; it is verified now.
    """
    repositories = dict.fromkeys(
        f"{reference.domain}/{reference.path}" for reference in map(parse, image.digests)
    )
    document: Document = {}
    if repositories:
        document["Pull"] = [{"Repository": repository} for repository in repositories]
    if signature := _signature(policy, image):
        document["Signature"] = [signature]
    return document or None


def _signature(policy: ImagePolicy, image: Image) -> Document | None:
    try:
        verified = policy.check_run(image, image.id)
    except ImageRefused as error:
        return {"SignatureType": _SIGNATURE_TYPE, "Error": error.message}
    if verified is None:
        return None
    return {
        "Name": f"key {verified.key} ({verified.fingerprint})",
        "SignatureType": _SIGNATURE_TYPE,
        "DockerReference": verified.name,
    }


def attestations(
    store: ImageStore,
    ref: str,
    platform: Platform | None,
    types: Collection[str],
    *,
    statement: bool,
) -> Documents:
    """Return the in-toto statements about an image, empty if it has none.

    With ``types``, only those with one of these predicate types. With ``statement``, each with its
    content, which is not verified.

    :raises NotFound: if the image does not exist, or not for ``platform``.
    :raises InvalidRequest: if a statement is not JSON, or all together are too large.
    """
    with store.pinned_image(ref, platform) as image:
        index = store.index(image.target)
        if index is None:
            return []
        about = [e.descriptor.digest for e in index.tree.entries if e.subject == image.manifest]
        documents: Documents = []
        left = _STATEMENT_LIMIT
        for digest in (digest for digest in index.artifacts if digest in about):
            for layer in store.document(digest).layers:
                kind = layer.annotations.get(_PREDICATE_TYPE, "")
                if not kind or (types and kind not in types):
                    continue
                document: Document = {
                    "Descriptor": msgspec.to_builtins(layer),
                    "PredicateType": kind,
                }
                if statement:
                    left -= layer.size
                    if left < 0:
                        raise InvalidRequest(
                            f"the statements of {ref} have more than {_STATEMENT_LIMIT} bytes, "
                            "which is the limit",
                            hint="ask for one type",
                        )
                    document["Statement"] = _statement(store, layer.digest, layer.size)
                documents.append(document)
        return documents


def _statement(store: ImageStore, digest: str, size: int) -> object:
    try:
        data = store.blobs.document(digest, size, limit=_STATEMENT_LIMIT)
        return msgspec.json.decode(data)
    except NotFound:
        raise NotFound(f"attestation statement {digest} is not available locally") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"attestation statement {digest} is not valid: {error}") from None
