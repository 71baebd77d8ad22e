"""Push a manifest list: first its manifests into the repository of the list, then the list.

Source: image-spec 1.1 ``image-index.md``; distribution-spec 1.1: a registry accepts a list only if
the repository has each manifest, and a manifest only if it has each blob.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaula.errors import InvalidRequest
from jaula.images.reference import Reference
from jaula.images.registry import manifest_download
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.registry_client import RegistryClient
from jaula.images.registry.repository import Repository
from jaula.images.registry.upload import Upload


def push_list(
    client: RegistryClient,
    reference: Reference,
    data: bytes,
    media_type: str,
    members: Sequence[Reference],
    credentials: Credentials,
    cancel: Cancellation,
) -> str:
    """Push a manifest list under the tag of ``reference`` and return its digest.

    ``members`` are names with digests of its manifests, in any repository of the same registry.

    :raises InvalidRequest: if ``members`` and the list differ.
    """
    if reference.tag is None:
        raise InvalidRequest("a manifest list is pushed under a tag")
    document = manifest_download.read(data, media_type, expected=None, what="the manifest list")
    if not document.is_index:
        raise InvalidRequest(f"{media_type[:100]!r} is not a manifest list")
    listed = {descriptor.digest for descriptor in document.index().manifests}
    if listed != {member.digest for member in members}:
        raise InvalidRequest("the manifest list does not match the manifests of the request")
    for member in members:
        if member.domain != reference.domain:
            raise InvalidRequest(
                "cannot use source images from a different registry than the target image: "
                f"{member.domain} != {reference.domain}"
            )
    target = client.repository(reference.domain, reference.path, credentials, cancel, push=True)
    upload = Upload(target, client.store.blobs, cancel)
    for member in members:
        if member.path != reference.path:
            _copy(Repository(target.session, member.path), member, upload, cancel)
    upload.manifest(reference.tag, data, media_type)
    return document.digest


def _copy(source: Repository, member: Reference, upload: Upload, cancel: Cancellation) -> None:
    """Copy a manifest of another repository, with all its blobs, into the list's repository."""
    document = source.manifest(member.digest or "", cancel)
    manifest = document.manifest()
    for blob in (manifest.config, *manifest.layers):
        if not upload.mount(blob.digest, member.path):
            raise InvalidRequest(
                f"the registry does not mount {blob.digest} from {member.path}",
                hint="push the image to the repository of the list first",
            )
    upload.manifest(document.digest, document.data, document.media_type)
