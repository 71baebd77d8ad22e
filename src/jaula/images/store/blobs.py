"""Blobs by digest: ``<images>/blobs/sha256/<hex>``, as the OCI image layout has them.

Source: opencontainers/image-spec 1.1 ``image-layout.md``. A blob is written under a temporary name
while it is hashed, and renamed. A document is checked against its digest and its size each time
before it is parsed, so a damaged file is found, not believed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Container
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from jaula.errors import CorruptState, InvalidRequest, NotFound
from jaula.spec.image import DOCUMENT_LIMIT
from jaula.storage.errors import file_error, is_full
from jaula.storage.trees import list_with_prefix, remove_with_prefix

_HALF_MADE = "new-"

Names = list[str]


class BlobWriter:
    """A blob that is being written; gone again unless :meth:`commit` is called."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / f"{_HALF_MADE}{secrets.token_hex(8)}"
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
        self._file: BinaryIO = open(  # noqa: SIM115 - closed by __exit__
            self._path, "xb+", buffering=0, opener=lambda p, _: os.open(p, flags, 0o600)
        )
        self._hash = hashlib.sha256()
        self.size = 0
        self._kept = False

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if not self._kept:
            self._path.unlink(missing_ok=True)

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()

    @property
    def file(self) -> BinaryIO:
        """What was written so far, for reading from the start."""
        self._file.seek(0)
        return self._file

    def reader(self) -> BinaryIO:
        """A second descriptor, for a thread that reads what another one writes."""
        return open(self._path, "rb", buffering=0)

    def write(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self.size += len(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file.fileno(), view) :]
        except OSError as error:
            raise _full(error) from error

    def commit(self) -> str:
        """Keep the blob; its digest."""
        os.rename(self._path, self._directory / self.digest.removeprefix("sha256:"))
        self._kept = True
        return self.digest


class BlobStore:
    """The blobs of one image layout. Methods may be called from several threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "blobs" / "sha256"
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def writer(self) -> BlobWriter:
        """A new blob, for a ``with`` statement."""
        try:
            return BlobWriter(self._directory)
        except OSError as error:
            raise _full(error) from error

    def put(self, data: bytes) -> str:
        """Store a document; its digest. One that is there and right is left."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        with suppress(NotFound, CorruptState, InvalidRequest):
            self.document(digest, len(data))
            return digest
        with self.writer() as blob:
            blob.write(data)
            return blob.commit()

    def document(self, digest: str, size: int | None = None) -> bytes:
        """A small blob, verified. Raises :class:`NotFound` and :class:`CorruptState`."""
        with self.open(digest) as file:
            data = file.read(DOCUMENT_LIMIT + 1)
        if len(data) > DOCUMENT_LIMIT:
            raise InvalidRequest(f"blob {digest} is larger than {DOCUMENT_LIMIT} bytes")
        if "sha256:" + hashlib.sha256(data).hexdigest() != digest or size not in (None, len(data)):
            raise CorruptState(
                f"blob {digest} is damaged: its content has another digest or size",
                hint="remove the image and load it again",
            )
        return data

    def open(self, digest: str) -> BinaryIO:
        """A blob for reading, not verified."""
        try:
            return open(self._directory / hex_of(digest), "rb")
        except FileNotFoundError:
            raise NotFound(f"blob {digest} does not exist", hint="load the image again") from None

    def size(self, digest: str) -> int | None:
        """Bytes; None where there is no such blob."""
        try:
            return (self._directory / hex_of(digest)).stat().st_size
        except FileNotFoundError:
            return None

    def check(self, digest: str) -> str:
        """Read a whole blob; what is wrong with it, empty where it is what its name says."""
        try:
            with self.open(digest) as file:
                found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        except NotFound:
            return "it is missing"
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        return "" if found == digest else "its content has another digest"

    def list(self) -> dict[str, int]:
        """Digests and sizes of all blobs that are whole."""
        return {
            "sha256:" + found.name: found.lstat().st_size
            for found in self._directory.iterdir()
            if not found.name.startswith(_HALF_MADE)
        }

    def keep_only(self, digests: Container[str]) -> int:
        """Remove all other blobs but those that are being written; the bytes that were freed."""
        freed = 0
        for found in list(self._directory.iterdir()):
            if not found.name.startswith(_HALF_MADE) and "sha256:" + found.name not in digests:
                freed += found.lstat().st_size
                found.unlink(missing_ok=True)
        return freed

    def incomplete(self, before: int) -> Names:
        """What was not finished by ``before``, in nanoseconds since the epoch."""
        return list_with_prefix(self._directory, _HALF_MADE, before=before)

    def remove_incomplete(self, name: str) -> None:
        """Remove one of :meth:`half_made`."""
        (self._directory / name).unlink(missing_ok=True)

    def sweep(self) -> Names:
        """Remove what a crash left half-made; call it before anything is written."""
        return remove_with_prefix(self._directory, _HALF_MADE)


def hex_of(digest: str) -> str:
    """The file's name; what is no sha256 digest never becomes a path."""
    name = digest.removeprefix("sha256:")
    if name == digest or len(name) != 64 or not all(c in "0123456789abcdef" for c in name):
        raise InvalidRequest(f"{digest[:80]!r} is no sha256 digest")
    return name


def _full(error: OSError) -> Exception:
    return file_error(error, "cannot store a blob") if is_full(error) else error
