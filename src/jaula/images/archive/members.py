"""The files of an archive that is being loaded: each becomes a blob while it is read.

A file that looks like a layer is unpacked by another thread while it is still being read. The guess
may be wrong, so a failure to unpack is ignored until an image needs the layer.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import BinaryIO

from jaula.errors import InvalidRequest, JaulaError
from jaula.images.registry.growing_file import GrowingFile
from jaula.images.registry.worker_pool import WorkerPool
from jaula.images.store.blobs import BlobWriter
from jaula.images.store.image_store import ImageStore
from jaula.spec.image_documents import DOCUMENT_LIMIT
from jaula.storage.compression import Source
from jaula.storage.layers.extract import clean_path
from jaula.storage.layers.layer_store import LayerStore
from jaula.storage.tar.sandboxed import open_archive
from jaula.storage.tar.tar_entry import HARD_LINK, REGULAR, SYMLINK, TarEntry, quote_name
from jaula.storage.tar.tar_reader import Archive, Limits, is_tar_header

_FILES_LIMIT = 20_000
_DOCUMENTS = (b"manifest.json", b"index.json", b"oci-layout", b"repositories")
_THREAD_THRESHOLD = 1 << 20  # bytes; unpacking a smaller file needs no thread
_UNPACKERS = 2  # threads
_LINKS_LIMIT = 8  # links that lead from one to the next


class UnpackJob:
    """A plain layer that is unpacked while its blob is being written."""

    def __init__(self, layers: LayerStore, file: BinaryIO) -> None:
        self._layers = layers
        self._growing = GrowingFile(file)
        self._digest = ""
        self._done = threading.Event()
        self.advance = self._growing.advance

    def run(self) -> None:
        """Unpack to the end. This is the body of a thread."""
        try:
            self._layers.extract_stream(self._growing, lambda: self._digest)
        except (JaulaError, OSError):
            return  # an image that needs the layer unpacks it again and reports the error
        finally:
            self._growing.close()
            self._done.set()

    def finish(self, digest: str) -> None:
        """Mark the blob as complete, with its digest."""
        self._digest = digest
        self._growing.finish()

    def fail(self) -> None:
        """Mark the blob as one that will never be complete."""
        self._growing.fail(InvalidRequest("the archive ends too early"))

    def wait(self) -> None:
        """Wait until the job has ended, with or without success."""
        self._done.wait()


class ArchiveMembers:
    """The blobs of the archive's files by name, pinned until the end of a ``with`` statement."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._digests: dict[bytes, str] = {}  # file name -> blob digest
        self._links: dict[bytes, bytes] = {}
        self._lease = store.lease()
        self._pool = WorkerPool(_UNPACKERS, "unpack")
        self._jobs: list[UnpackJob] = []
        self._job_of: dict[str, UnpackJob] = {}
        self.documents: dict[bytes, bytes] = {}
        self.held: set[str] = set()

    def __enter__(self) -> ArchiveMembers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for job in self._jobs:
            job.wait()
        self._lease.close()
        self._store.collect()

    def read(self, stream: Source) -> None:
        """Read the whole archive.

        :raises InvalidRequest: if it is not an archive.
        """
        with open_archive(stream, limits=Limits(entries=_FILES_LIMIT)) as archive:
            self._read(archive)

    def _read(self, reader: Archive) -> None:
        for entry in reader:
            name = clean_path(entry.name)
            if entry.type in (SYMLINK, HARD_LINK):
                directory = name.rpartition(b"/")[0] if entry.type == SYMLINK else b""
                self._links[name] = _target(directory, entry.link)
            elif entry.type == REGULAR:
                if name in _DOCUMENTS:
                    self.documents[name] = reader.read(DOCUMENT_LIMIT, quote_name(name))
                else:
                    self._digests[name] = self._keep(reader, entry, name)

    def find(self, name: str) -> str:
        """Return the digest of a file. Archives of old Docker versions share layers by links."""
        path = clean_path(name.encode())
        for _ in range(_LINKS_LIMIT):
            if path in self._digests:
                return self._digests[path]
            if path not in self._links:
                break
            path = self._links[path]
        raise InvalidRequest(f"the archive does not hold the file {name[:200]!r} that it lists")

    def wait(self, digest: str) -> None:
        """Wait until a file that is being unpacked is complete or has failed."""
        if digest in self._job_of:
            self._job_of[digest].wait()

    def _keep(self, reader: Archive, entry: TarEntry, name: bytes) -> str:
        job = None
        with self._store.blobs.writer() as blob:
            try:
                for chunk in reader.data():
                    if not blob.size and self._may_be_new_layer(entry, name, chunk):
                        job = self._begin(blob)
                    blob.write(chunk)
                    if job is not None:
                        job.advance(blob.size)
                digest = blob.digest
                if digest not in self.held:
                    self._lease.pin(digest)
                    self.held.add(digest)
                blob.commit()
            except BaseException:
                if job is not None:
                    job.fail()
                raise
        if job is not None:
            job.finish(digest)
            self._job_of[digest] = job
        return digest

    def _may_be_new_layer(self, entry: TarEntry, name: bytes, head: memoryview) -> bool:
        """Return whether a file is a tar worth a thread, and not named after an intact layer."""
        if entry.size < _THREAD_THRESHOLD or not is_tar_header(head):
            return False
        hex_digits = name.rpartition(b"/")[2].decode(errors="replace")
        layers, diff_id = self._store.layers, f"sha256:{hex_digits}"
        return diff_id not in layers.ids() or not layers.is_intact(diff_id)

    def _begin(self, blob: BlobWriter) -> UnpackJob:
        job = UnpackJob(self._store.layers, blob.reader())
        self._jobs.append(job)
        self._pool.submit(job.run)
        return job


def _target(directory: bytes, link: bytes) -> bytes:
    """Resolve a link of the archive, inside the archive. Old archives share layers by links."""
    parts = directory.split(b"/") if directory and not link.startswith(b"/") else []
    for part in link.split(b"/"):
        if part == b"..":
            if not parts:
                raise InvalidRequest("a link of the archive leads out of it")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)
