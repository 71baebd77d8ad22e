"""Blobs by digest: ``<images>/blobs/sha256/<hex>``, as in the OCI image layout.

Source: opencontainers/image-spec 1.1 ``image-layout.md``. A blob is hashed while it is written to a
temporary name, then renamed. A document is checked against its digest and size each time before it
is parsed, so damage is detected.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from jaula.errors import CorruptState, InvalidRequest, NotFound, Unavailable, resource_error
from jaula.sha256 import sha256
from jaula.spec.image_documents import DOCUMENT_LIMIT
from jaula.storage.file_errors import DAMAGED_DISK
from jaula.storage.trees import list_with_prefix, remove_with_prefix

_PARTIAL = "new-"

Names = list[str]


class BlobWriter:
    """A blob that is being written. It is deleted unless :meth:`commit` is called."""

    def __init__(self, directory: Path, damaged: set[str]) -> None:
        self._directory = directory
        self._damaged = damaged
        self._path = directory / f"{_PARTIAL}{os.urandom(8).hex()}"
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
        self._file: BinaryIO = open(  # noqa: SIM115 - closed by __exit__
            self._path, "xb+", buffering=0, opener=lambda p, _: os.open(p, flags, 0o600)
        )
        import hashlib  # with OpenSSL, which is faster for files

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
        """Return the content written so far, positioned at the start."""
        self._file.seek(0)
        return self._file

    def reader(self) -> BinaryIO:
        """Return a second descriptor for a thread that reads while another one writes."""
        return open(self._path, "rb", buffering=0)

    def write(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self.size += len(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file.fileno(), view) :]
        except OSError as error:
            raise _store_error(error) from error

    def commit(self) -> str:
        """Store the blob under its digest and return the digest."""
        os.rename(self._path, self._directory / self.digest.removeprefix("sha256:"))
        self._kept = True
        self._damaged.discard(self.digest)
        return self.digest


class BlobStore:
    """The blobs of one image layout. Methods may be called from several threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "blobs" / "sha256"
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._damaged: set[str] = set()
        self._arriving: dict[str, int] = {}

    def writer(self) -> BlobWriter:
        """Return a new blob, for a ``with`` statement."""
        try:
            return BlobWriter(self._directory, self._damaged)
        except OSError as error:
            raise _store_error(error) from error

    def put(self, data: bytes) -> str:
        """Store a document and return its digest. An intact copy that exists is left alone."""
        digest = "sha256:" + sha256(data).hexdigest()
        with suppress(NotFound, CorruptState, InvalidRequest):
            self.document(digest, len(data))
            return digest
        with self.writer() as blob:
            blob.write(data)
            return blob.commit()

    def document(
        self, digest: str, size: int | None = None, *, limit: int = DOCUMENT_LIMIT
    ) -> bytes:
        """Return a small blob after verifying its digest and, unless None, its ``size`` in bytes.

        It has at most ``limit`` bytes.

        :raises NotFound: if the blob does not exist.
        :raises CorruptState: if the content does not match.
        """
        try:
            with self.open(digest) as file:
                data = file.read(limit + 1)
        except OSError as error:
            if error.errno not in DAMAGED_DISK:
                raise
            raise CorruptState(
                f"blob {digest} cannot be read: {error.strerror}", hint="pull or load it again"
            ) from error
        if len(data) > limit:
            raise InvalidRequest(f"blob {digest} is larger than {limit} bytes")
        if "sha256:" + sha256(data).hexdigest() != digest or size not in (None, len(data)):
            raise CorruptState(
                f"blob {digest} is damaged: its content has another digest or size",
                hint="pull or load the image again",
            )
        return data

    def open(self, digest: str) -> BinaryIO:
        """Open a blob for reading, without verification.

        :raises NotFound: if the blob does not exist.
        """
        try:
            return open(self._directory / hex_of(digest), "rb")
        except FileNotFoundError:
            if digest in self._arriving:
                raise Unavailable(f"blob {digest} is still being fetched") from None
            raise NotFound(f"blob {digest} does not exist", hint="load the image again") from None

    def size(self, digest: str) -> int | None:
        """Return the size of a blob in bytes, or None if it does not exist."""
        try:
            return (self._directory / hex_of(digest)).stat().st_size
        except FileNotFoundError:
            return self._arriving.get(digest)

    def expect(self, digest: str, size: int) -> None:
        """Count a blob as stored that is being fetched for a mounted layer."""
        self._arriving[digest] = size

    def end_expected(self, digest: str) -> None:
        """Count a blob as stored only if it is."""
        self._arriving.pop(digest, None)

    def put_file(self, path: Path, digest: str) -> None:
        """Store a file as the blob ``digest``, by a rename. Its content was verified."""
        os.rename(path, self._directory / hex_of(digest))
        self._damaged.discard(digest)
        self._arriving.pop(digest, None)

    def mark(self, digest: str, *, damaged: bool) -> None:
        """Record whether a verification found a blob damaged. The next copy replaces it then."""
        if damaged:
            self._damaged.add(digest)
        else:
            self._damaged.discard(digest)

    def is_intact(self, digest: str, size: int) -> bool:
        """Return whether a blob has ``size`` bytes and is not known to be damaged."""
        return digest not in self._damaged and self.size(digest) == size

    def check(self, digest: str) -> str:
        """Read a whole blob and return the problem with it, or an empty string if it is intact."""
        import hashlib

        try:
            with self.open(digest) as file:
                actual = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        except NotFound:
            return "it is missing"
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        return "" if actual == digest else "its content has another digest"

    def list(self) -> dict[str, int]:
        """Return the digests and sizes (bytes) of all complete blobs."""
        sizes = {digest: self.size(digest) for digest in self.digests()}
        return {digest: size for digest, size in sizes.items() if size is not None}

    def digests(self) -> Names:
        """Return the digests of all complete blobs."""
        return [
            "sha256:" + name
            for name in os.listdir(self._directory)
            if not name.startswith(_PARTIAL)
        ]

    def detach(self, digest: str) -> str | None:
        """Take a blob out of the store, without deleting it yet: a rename is quick.

        Return the name for :meth:`remove_incomplete`, or None if the blob does not exist.
        """
        name = f"{_PARTIAL}{os.urandom(8).hex()}"
        try:
            os.rename(self._directory / hex_of(digest), self._directory / name)
        except FileNotFoundError:
            return None
        return name

    def incomplete(self, before: int) -> Names:
        """Return the names of partial blobs last written before ``before``.

        ``before`` is in nanoseconds since the epoch.
        """
        return list_with_prefix(self._directory, _PARTIAL, before=before)

    def remove_incomplete(self, name: str) -> int:
        """Remove a partial or detached blob by name and return the bytes freed."""
        path = self._directory / name
        try:
            size = path.lstat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def sweep(self) -> Names:
        """Remove partial blobs that a crash left. Call this before anything is written."""
        return remove_with_prefix(self._directory, _PARTIAL)


def hex_of(digest: str) -> str:
    """Return the file name of a blob. Only a valid sha256 digest becomes a path.

    :raises InvalidRequest: if ``digest`` is not a sha256 digest.
    """
    name = digest.removeprefix("sha256:")
    if name == digest or len(name) != 64 or not all(c in "0123456789abcdef" for c in name):
        raise InvalidRequest(f"{digest[:80]!r} is not a sha256 digest")
    return name


def _store_error(error: OSError) -> Exception:
    return resource_error(error, "cannot store a blob") or error
