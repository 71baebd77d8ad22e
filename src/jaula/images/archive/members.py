"""The files of an archive that is being loaded: each becomes a blob while it is read.

A file that looks like a layer is unpacked by another thread while it still comes, in the hope that
it is one of an image. What becomes of that is asked for later: a file that cannot be unpacked may
be no layer, and nothing is said of it before an image needs it.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from types import TracebackType
from typing import BinaryIO

from jaula.errors import InvalidRequest, JaulaError
from jaula.images.registry.growing_file import GrowingFile
from jaula.images.registry.worker_pool import WorkerPool
from jaula.images.store.blobs import BlobWriter
from jaula.images.store.store import ImageStore
from jaula.spec.image import DOCUMENT_LIMIT
from jaula.storage.compression import Source, decompress_stream
from jaula.storage.layers.extract import clean_path
from jaula.storage.layers.store import LayerStore
from jaula.storage.tar.entry import HARD_LINK, REGULAR, SYMLINK, TarEntry, quote_name
from jaula.storage.tar.reader import Limits, TarReader, is_tar_header

_FILES_LIMIT = 20_000
_DOCUMENTS = (b"manifest.json", b"index.json", b"oci-layout", b"repositories")
_WORTH = 1 << 20  # bytes from which on a thread is worth its while
_UNPACKERS = 2
_LINKS = 8  # that lead from one to the next


class UnpackJob:
    """A plain layer that is unpacked while its blob is being written."""

    def __init__(self, layers: LayerStore, file: BinaryIO) -> None:
        self._layers = layers
        self._arriving = GrowingFile(file)
        self._digest = ""
        self._done = threading.Event()
        self.advance = self._arriving.advance

    def run(self) -> None:
        """For a thread: to the end."""
        try:
            self._layers.extract_stream(self._arriving, lambda: self._digest)
        except (JaulaError, OSError):
            return  # who needs it unpacks it again, and is told why that fails
        finally:
            self._arriving.close()
            self._done.set()

    def finish(self, digest: str) -> None:
        """The blob is whole, and that is its digest."""
        self._digest = digest
        self._arriving.finish()

    def fail(self) -> None:
        """The blob will never be whole."""
        self._arriving.fail(InvalidRequest("the archive ends too early"))

    def wait(self) -> None:
        """Until it is over, one way or the other."""
        self._done.wait()


class ArchiveMembers:
    """Blobs of files by name, pinned until the end of a ``with`` statement."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._digests: dict[bytes, str] = {}  # of files, by name
        self._links: dict[bytes, bytes] = {}
        self._pins = ExitStack()
        self._crew = WorkerPool(_UNPACKERS, "unpack")
        self._begun: list[UnpackJob] = []
        self._unpacking: dict[str, UnpackJob] = {}
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
        for unpacking in self._begun:
            unpacking.wait()
        self._pins.close()
        self._store.collect()

    def read(self, stream: Source) -> None:
        """Read the whole archive. Raises :class:`InvalidRequest` for what is none."""
        source, _ = decompress_stream(stream)
        reader = TarReader(source, limits=Limits(entries=_FILES_LIMIT))
        for entry in reader:
            name = clean_path(entry.name)
            if entry.type in (SYMLINK, HARD_LINK):
                folder = name.rpartition(b"/")[0] if entry.type == SYMLINK else b""
                self._links[name] = _target(folder, entry.link)
            elif entry.type == REGULAR:
                if name in _DOCUMENTS:
                    self.documents[name] = reader.read(DOCUMENT_LIMIT, quote_name(name))
                else:
                    self._digests[name] = self._keep(reader, entry, name)

    def find(self, name: str) -> str:
        """The digest of a file; archives of old docker share layers by links."""
        path = clean_path(name.encode())
        for _ in range(_LINKS):
            if path in self._digests:
                return self._digests[path]
            if path not in self._links:
                break
            path = self._links[path]
        raise InvalidRequest(f"the archive does not hold the file {name[:200]!r} that it lists")

    def wait(self, digest: str) -> None:
        """Until a file that is being unpacked is a layer, or was found to be none."""
        if digest in self._unpacking:
            self._unpacking[digest].wait()

    def _keep(self, reader: TarReader, entry: TarEntry, name: bytes) -> str:
        unpacking = None
        with self._store.blobs.writer() as blob:
            try:
                for piece in reader.data():
                    if not blob.size and self._may_be_new_layer(entry, name, piece):
                        unpacking = self._begin(blob)
                    blob.write(piece)
                    if unpacking is not None:
                        unpacking.advance(blob.size)
                digest = blob.digest
                if digest not in self.held:
                    self._pins.enter_context(self._store.pinned((digest,)))
                    self.held.add(digest)
                blob.commit()
            except BaseException:
                if unpacking is not None:
                    unpacking.fail()
                raise
        if unpacking is not None:
            unpacking.finish(digest)
            self._unpacking[digest] = unpacking
        return digest

    def _may_be_new_layer(self, entry: TarEntry, name: bytes, head: memoryview) -> bool:
        """Whether a file is a tar of some size, and not named as a layer that is there."""
        if entry.size < _WORTH or not is_tar_header(head):
            return False
        hex_digits = name.rpartition(b"/")[2].decode(errors="replace")
        return f"sha256:{hex_digits}" not in self._store.layers.ids()

    def _begin(self, blob: BlobWriter) -> UnpackJob:
        unpacking = UnpackJob(self._store.layers, blob.reader())
        self._begun.append(unpacking)
        self._crew.submit(unpacking.run)
        return unpacking


def _target(folder: bytes, link: bytes) -> bytes:
    """Where a link of the archive leads, inside the archive; old archives share layers by links."""
    parts = folder.split(b"/") if folder and not link.startswith(b"/") else []
    for part in link.split(b"/"):
        if part == b"..":
            if not parts:
                raise InvalidRequest("a link of the archive leads out of it")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)
