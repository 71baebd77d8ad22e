"""Signatures fetched at a pull, stored for the checks when the image is run.

One file for each image manifest, ``<root>/trust/<digits>.json``, with the signatures of each
repository that it was pulled from. The content is not trusted: the signatures are verified at each
check against the current keys, and the index is compared with its digest.
"""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path

import msgspec

from jaula.errors import CorruptState, Unavailable, resource_error
from jaula.features.trust.signature import Signature
from jaula.images.registry.manifest_download import sha256
from jaula.images.store.blobs import hex_of
from jaula.kernel.syncfs import fsync_paths
from jaula.spec.image_documents import DOCUMENT_LIMIT, Index, decode

_REPOSITORIES = 7  # besides the newest; several repositories may have the same image
_LIMIT = 128 << 20  # bytes; more than 64 payloads and an index of each repository
_SUFFIX = ".json"


class StoredSignature(msgspec.Struct, frozen=True):
    """The signatures of one repository.

    ``index`` is the signed index, empty if the manifest itself is signed.
    """

    repository: str  # DOMAIN/PATH
    signatures: tuple[Signature, ...]
    index: bytes = b""

    def signed_digest(self, manifest: str) -> str:
        """Return the digest that signatures of this manifest must name.

        :raises CorruptState: if the index does not list the manifest.
        """
        if not self.index:
            return manifest
        listed = decode(self.index, Index, "the index of an image's signatures").manifests
        if all(descriptor.digest != manifest for descriptor in listed):
            raise CorruptState(f"the stored signatures of {manifest} belong to another image")
        return sha256(self.index)


class SignatureStore:
    """The signature files of one engine. Methods may be called from several threads.

    With ``durable``, a file is on the disk before :meth:`keep` returns.
    """

    def __init__(self, directory: Path, *, durable: bool = True) -> None:
        self._directory = directory
        self._durable = durable

    def path(self, manifest: str) -> Path:
        """Return the path of a manifest's file, whether it exists or not."""
        return self._directory / (hex_of(manifest) + _SUFFIX)

    def of(self, manifest: str) -> tuple[StoredSignature, ...]:
        """Return the stored signatures of a manifest.

        :raises CorruptState: if the file cannot be read.
        """
        path = self.path(manifest)
        try:
            with path.open("rb") as file:
                data = file.read(_LIMIT + 1)
        except FileNotFoundError:
            return ()
        try:
            if len(data) > _LIMIT:
                raise msgspec.DecodeError("it is too large")
            return msgspec.json.decode(data, type=tuple[StoredSignature, ...])
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise CorruptState(f"{path} is damaged: {error}", hint="pull the image again") from None

    def keep(self, manifest: str, stored: StoredSignature) -> None:
        """Store signatures, replacing those of the same repository."""
        assert len(stored.index) <= DOCUMENT_LIMIT, "an index was read under that limit"
        path = self.path(manifest)
        former = [e for e in self.of(manifest) if e.repository != stored.repository]
        kept = (*former[-_REPOSITORIES:], stored)
        temporary = path.with_suffix(f".{os.urandom(6).hex()}")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(msgspec.json.encode(kept))
            if self._durable:
                fsync_paths(temporary)
            os.rename(temporary, path)
            if self._durable:
                fsync_paths(self._directory)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            what = f"cannot write {path}"
            raise resource_error(error, what) or Unavailable(f"{what}: {error.strerror}") from error

    def keep_only(self, manifests: Container[str]) -> None:
        """Remove the files of all other manifests, and partial files that a crash left."""
        if not self._directory.is_dir():
            return
        for path in list(self._directory.iterdir()):
            if path.suffix != _SUFFIX or f"sha256:{path.stem}" not in manifests:
                path.unlink(missing_ok=True)
