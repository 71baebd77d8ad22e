"""What was found at a pull, kept for when the image is run: signatures, and whose they are.

One file for each image manifest, ``<root>/trust/<digits>.json``, with what each repository had
that it was pulled from. Nothing in it is believed: the
signatures are verified each time, against the keys of the rules of that time, and the index is
compared with its digest.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Container
from pathlib import Path

import msgspec

from jaula.errors import CorruptState, Unavailable
from jaula.images.registry.manifest import sha256
from jaula.images.store.blobs import hex_of
from jaula.images.trust.signature import Signature
from jaula.spec.image import DOCUMENT_LIMIT, Index, decode

_REPOSITORIES = 7  # besides the newest: the same image may be had from several
_LIMIT = 128 << 20  # bytes; so many times 64 payloads and an index are less
_SUFFIX = ".json"


class StoredSignature(msgspec.Struct, frozen=True):
    """What one repository had; ``index`` is the list that was signed, if not the manifest was."""

    repository: str  # DOMAIN/PATH
    signatures: tuple[Signature, ...]
    index: bytes = b""

    def signed(self, manifest: str) -> str:
        """The digest that signatures of this manifest have to be about.

        Raises :class:`CorruptState` where the index does not list the manifest.
        """
        if not self.index:
            return manifest
        listed = decode(self.index, Index, "the index of an image's signatures").manifests
        if all(descriptor.digest != manifest for descriptor in listed):
            raise CorruptState(f"what is kept about signatures of {manifest} is of another image")
        return sha256(self.index)


class SignatureStore:
    """The files of one engine. Methods may be called from several threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, manifest: str) -> Path:
        """Where it is kept, there or not."""
        return self._directory / (hex_of(manifest) + _SUFFIX)

    def of(self, manifest: str) -> tuple[StoredSignature, ...]:
        """What is kept about a manifest. Raises :class:`CorruptState` where it cannot be read."""
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

    def keep(self, manifest: str, evidence: StoredSignature) -> None:
        """Write it down, in place of what the same repository had."""
        assert len(evidence.index) <= DOCUMENT_LIMIT, "an index was read under that limit"
        path = self.path(manifest)
        others = [e for e in self.of(manifest) if e.repository != evidence.repository]
        kept = (*others[-_REPOSITORIES:], evidence)
        temporary = path.with_suffix(f".{secrets.token_hex(6)}")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(msgspec.json.encode(kept))
            os.rename(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise Unavailable(f"cannot write {path}: {error.strerror}") from error

    def keep_only(self, manifests: Container[str]) -> None:
        """Remove what is about other manifests, and what a crash left half-written."""
        if not self._directory.is_dir():
            return
        for path in list(self._directory.iterdir()):
            if path.suffix != _SUFFIX or f"sha256:{path.stem}" not in manifests:
                path.unlink(missing_ok=True)
