"""Pushing a list of manifests: what it lists is brought into its repository, then the list.

Source: image-spec 1.1 ``image-index.md``; distribution-spec 1.1: a registry takes a list only
where the repository has each manifest, and a manifest where it has each blob.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaula.errors import InvalidRequest
from jaula.images.reference import Reference
from jaula.images.registry import manifest as registry_manifest
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.client import RegistryClient
from jaula.images.registry.repository import Repository
from jaula.images.registry.upload import Upload


def push_list(
    client: RegistryClient,
    reference: Reference,
    data: bytes,
    media_type: str,
    members: Sequence[Reference],
    held: Credentials,
    cancel: Cancellation,
) -> str:
    """Name a list at its registry; its digest.

    ``members`` are names with digests of what it lists, in any repository of the same registry.
    Raises :class:`InvalidRequest` where they are not those that it lists.
    """
    if reference.tag is None:
        raise InvalidRequest("a list of manifests is pushed under a tag")
    document = registry_manifest.read(data, media_type, wanted=None, what="the list")
    if not document.is_index:
        raise InvalidRequest(f"{media_type[:100]!r} is no list of manifests")
    listed = {descriptor.digest for descriptor in document.index().manifests}
    if listed != {member.digest for member in members}:
        raise InvalidRequest("the list does not list what came with it")
    for member in members:
        if member.domain != reference.domain:
            raise InvalidRequest(
                "cannot use source images from a different registry than the target image: "
                f"{member.domain} != {reference.domain}"
            )
    target = client.repository(reference.domain, reference.path, held, cancel)
    upload = Upload(target, client.store.blobs, cancel)
    for member in members:
        if member.path != reference.path:
            _bring(Repository(target.session, member.path), member, upload, cancel)
    upload.manifest(reference.tag, data, media_type)
    return document.digest


def _bring(source: Repository, member: Reference, upload: Upload, cancel: Cancellation) -> None:
    """Have a manifest of another repository in the list's, with all that it names."""
    found = source.manifest(member.digest or "", cancel)
    manifest = found.manifest()
    for blob in (manifest.config, *manifest.layers):
        if not upload.mount(blob.digest, member.path):
            raise InvalidRequest(
                f"the registry does not take {blob.digest} over from {member.path}",
                hint="push the image to the list's own repository first",
            )
    upload.manifest(found.digest, found.data, found.media_type)
