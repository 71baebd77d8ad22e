"""The store of extracted layers: ``<layers>/<diff id in hex>/fs`` and ``layer.json``.

A layer is named by its diff id, the sha256 of its uncompressed tar (image-spec 1.1 ``config.md``,
'Layer DiffID'). It is extracted under a temporary name and renamed when its digest is verified, so
an existing layer is complete. After a crash of the engine :meth:`LayerStore.sweep` removes
incomplete layers. The image store writes layers to the disk before an image or a build step refers
to them (:meth:`jaula.images.store.image_store.ImageStore.sync`).

With the format ``erofs`` or ``verity`` the tree of a layer is an EROFS image instead, in the files
``metadata`` and ``blob`` beside ``fs`` (:mod:`jaula.storage.erofs.layer`). A chunk of contents that
another such layer has is not stored again (:mod:`jaula.storage.erofs.chunks`). The store mounts the
image at ``fs`` when the path of the layer is first used. The mount is in the mount namespace of the
process, so each engine mounts its layers anew. Layers of every format can be read in every format.

A layer that is mounted before it is whole is lazy. It has the name of its manifest's statement
(:func:`jaula.spec.image_documents.layer_name`), and only under that name it exists. Its diff id is
what a manifest states and is not verified yet, so by the diff id the layer is missing until it is
whole. The file ``blobs`` of a layer lists the blobs whose uncompressed content is known to be the
layer.

Other users cannot enter the directory, because layers have set-user-ID programs.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

import msgspec

from jaula.config import Paths
from jaula.errors import (
    Conflict,
    CorruptState,
    InvalidRequest,
    NotFound,
    Unavailable,
    resource_error,
)
from jaula.kernel import mounts
from jaula.spec.image_documents import diff_id_of
from jaula.storage.compare import Difference, compare_trees
from jaula.storage.compression import PrefixedStream, Source
from jaula.storage.decompressor import Decompressor
from jaula.storage.erofs import chunks
from jaula.storage.erofs import layer as erofs
from jaula.storage.erofs.chunks import SharedBlobs
from jaula.storage.file_errors import DAMAGED_DISK
from jaula.storage.layers import blob_usage
from jaula.storage.layers.chunk_index import ChunkIndex
from jaula.storage.layers.extract import Extractor
from jaula.storage.tar.sandboxed import TarParser, open_archive
from jaula.storage.tar.tar_reader import Archive, Limits, TarReader
from jaula.storage.trees import (
    list_with_prefix,
    open_directory,
    remove_tree,
    tree_usage,
    write_new,
)

if TYPE_CHECKING:
    from jaula.storage.erofs.erofs_tree import BlobWriter

LayerFormat = Literal["directory", "erofs", "verity"]
"""The form of new layers: a directory, an EROFS image, or one that is protected by fs-verity."""

_INCOMPLETE = "new-"
_WAKE = 0.5  # seconds between two checks for cancellation
_CHUNK = 1 << 20  # bytes that are hashed at once

_log = logging.getLogger("jaula.storage")


class LayerInfo(msgspec.Struct, frozen=True):
    """The document of a layer.

    ``size`` is the bytes of its regular files, ``tar_size`` those of its uncompressed tar.
    ``states_root`` says whether the tar has an entry for the root directory. ``erofs`` is None for
    a layer that is a directory.
    """

    diff_id: str
    size: int
    tar_size: int
    states_root: bool = False
    erofs: erofs.ErofsFiles | None = None


class LazyLayer(NamedTuple):
    """A layer whose files are a mount at ``path`` until its blob is whole.

    ``name`` is that of :func:`jaula.spec.image_documents.layer_name`. ``info`` has no size of the
    tar yet. ``origin`` is the repository that its bytes come from: ``DOMAIN/PATH``. ``failure`` is
    the reason for which it cannot get whole. While it is ``interrupted``, no process serves it, but
    one will.
    """

    name: str
    info: LayerInfo
    path: str
    inodes: int
    origin: str
    failure: str = ""
    interrupted: bool = False


class WrittenTar(NamedTuple):
    """An uncompressed tar with its diff id, which this engine has written with ``TarWriter``.

    The bytes of a registry or of a client never become one.
    """

    file: BinaryIO
    diff_id: str


Names = list[str]


class NewLayer(NamedTuple):
    """A layer under a temporary name in the directory ``parent``.

    ``timed_directories`` are the directories whose times the tar has. ``references`` ends the locks
    of blobs to which the layer refers, when it has its name or is removed.
    """

    parent: int
    name: str
    info: LayerInfo
    timed_directories: Collection[bytes]
    references: ExitStack


class LayerStore:
    """The layers of one engine. The methods are thread-safe."""

    def __init__(
        self,
        paths: Paths,
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        format: LayerFormat = "directory",
    ) -> None:
        self._directory = paths.layers
        self.format = format
        self._mounted: set[str] = set()
        self._limits = limits
        self._info: dict[str, LayerInfo] = {}
        self._inodes: dict[str, int] = {}
        self._lock = threading.RLock()  # of the cache: it changes together with the directory
        self._damaged: set[str] = set()
        self.users: Callable[[str], Sequence[str]] = lambda diff_id: ()
        self.mounted_stacks: Callable[[], Collection[tuple[str, ...]]] = lambda: ()
        """Returns the names of running containers with a layer, whose files must stay."""
        self._lazy: dict[str, LazyLayer] = {}  # by name
        self._arrived = threading.Condition(self._lock)
        self.on_lazy_end: Callable[[str, bool], None] = lambda name, replaced: None
        """Is called with the name of a layer that is not mounted any more, and whether it has a
        directory instead. A start may use the former path then."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._index = ChunkIndex(paths.chunk_index, paths.layers)

    def close(self) -> None:
        """Close the index of chunks. The next use opens it again."""
        self._index.close()

    def extract(
        self,
        stream: Source,
        expected: str | None = None,
        *,
        sync: Callable[[], None] = lambda: None,
    ) -> LayerInfo:
        """Extract the tar of a layer, plain or compressed. An existing layer is kept.

        A damaged one is replaced. ``sync`` is called before the layer gets its name: an image that
        has a name already may need it.

        After an error no file is left.

        :raises InvalidRequest: when the archive is damaged or hostile, or the diff id is not
            ``expected``.
        :raises Unavailable: when the disk is full.
        """
        import hashlib  # with OpenSSL, which is faster for files

        digest = hashlib.sha256()
        with open_archive(
            stream, _subject(expected), limits=self._limits, tap=digest.update
        ) as archive:
            return self._extract(archive, lambda: "sha256:" + digest.hexdigest(), expected, sync)

    def extract_plain(self, tar: BinaryIO, diff_id: str) -> LayerInfo:
        """Extract an uncompressed tar of a stranger, with a known diff id.

        The file is mapped, so its data is not copied to a buffer. No process may change it
        meanwhile.
        """
        if self.is_intact(diff_id):
            return self.info(diff_id)
        with TarParser(_subject(diff_id)) as parser:
            archive = parser.file(tar, limits=self._limits)
            try:
                return self._extract(archive, lambda: diff_id, diff_id)
            finally:
                archive.close()

    def extract_own(self, tar: WrittenTar) -> LayerInfo:
        """Extract an archive that this engine has written, so the engine itself parses it.

        It is mapped as by :meth:`extract_plain`.
        """
        if self.is_intact(tar.diff_id):
            return self.info(tar.diff_id)
        file = tar.file.fileno()
        mapped = mmap.mmap(file, os.fstat(file).st_size, access=mmap.ACCESS_READ)
        reader = TarReader(mapped, limits=self._limits)
        try:
            return self._extract(reader, lambda: tar.diff_id, tar.diff_id)
        finally:
            reader.close()  # unmapped with its last chunk, which a traceback may reference

    def extract_stream(self, tar: Source, diff_id: Callable[[], str]) -> LayerInfo:
        """Extract an uncompressed tar that is still being received.

        ``diff_id`` is called at the end of the tar, and returns the id that the caller computed.
        """
        with TarParser(_subject(None)) as parser:
            archive = parser.stream(PrefixedStream(b"", tar), limits=self._limits)
            return self._extract(archive, diff_id, None)

    def _extract(
        self,
        reader: Archive,
        diff_id: Callable[[], str],
        expected: str | None,
        sync: Callable[[], None] = lambda: None,
    ) -> LayerInfo:
        with self._extract_temporary(reader, diff_id, expected, self.format) as new:
            sync()
            self._rename(new.parent, new.name, new.info)
        return new.info

    def _pack(self, new: NewLayer) -> NewLayer:
        """Turn the tree of a new layer into the format of the store."""
        if self.format == "directory":
            return new
        with open_directory(new.name, dir_fd=new.parent) as top:
            os.unlink("layer.json", dir_fd=top)
            blob = self._pack_directory(new.parent, top, new.info.diff_id, new.references)
            return new._replace(info=self._finish(top, new.info, blob))

    def _pack_directory(
        self, parent: int, top: int, diff_id: str, references: ExitStack
    ) -> BlobWriter:
        """Write the EROFS image of the directory ``fs`` in a layer's directory."""
        shared = self._share(parent, top, references, diff_id)
        with open_directory("fs", dir_fd=top) as root, erofs.open_blob(top, shared) as blob:
            if tree_usage(root)[1] > erofs.MAX_FILES:
                raise _too_many_files()
            _write_erofs(top, root, blob, diff_id)
        return blob

    def _finish(self, top: int, info: LayerInfo, blob: BlobWriter | None) -> LayerInfo:
        """Write the document of a new layer. EROFS files are protected before, if they have to."""
        if blob is not None:
            files = erofs.finish(top, blob, verity=self.format == "verity")
            info = msgspec.structs.replace(info, erofs=files)
        write_new(top, "layer.json", msgspec.json.encode(info))
        return info

    def _share(
        self, parent: int, top: int, references: ExitStack, diff_id: str | None
    ) -> SharedBlobs:
        """Return the blobs of other layers for a new one in the directory ``top``."""
        shared = SharedBlobs(
            parent,
            top,
            self._index.find,
            verity=self.format == "verity",
            without=_hex(diff_id) if diff_id else "",
        )
        references.callback(self._end_references, shared)
        return shared

    def _end_references(self, shared: SharedBlobs) -> None:
        """End the locks of blobs. What no layer needs by now is freed."""
        with ExitStack() as descriptors:
            for blob in shared.release():
                descriptors.callback(os.close, blob)
                descriptors.callback(blob_usage.free_unused, self._directory, blob)

    @contextmanager
    def _extract_temporary(
        self,
        reader: Archive,
        diff_id: Callable[[], str],
        expected: str | None,
        format: LayerFormat,
    ) -> Iterator[NewLayer]:
        """Yield a layer extracted under a temporary name. Remove it unless it was renamed."""
        name = _INCOMPLETE + os.urandom(8).hex()
        try:
            with open_directory(self._directory) as parent, ExitStack() as references:
                os.mkdir(name, 0o700, dir_fd=parent)
                try:
                    yield self._extract_into(
                        parent, name, reader, diff_id, expected, format, references
                    )
                finally:
                    remove_tree(parent, name.encode())
        except OSError as error:
            raise resource_error(error, "cannot unpack a layer") or error from error

    def _extract_into(
        self,
        parent: int,
        name: str,
        reader: Archive,
        diff_id: Callable[[], str],
        expected: str | None,
        format: LayerFormat,
        references: ExitStack,
    ) -> NewLayer:
        with open_directory(name, dir_fd=parent) as top, ExitStack() as files:
            blob = None
            if format == "directory":
                os.mkdir("fs", 0o755, dir_fd=top)
                root = files.enter_context(open_directory("fs", dir_fd=top))
                os.fchmod(root, 0o755)
            else:
                root = files.enter_context(erofs.open_tree())
                shared = self._share(parent, top, references, expected)
                blob = files.enter_context(erofs.open_blob(top, shared))
            extractor = Extractor(root, blob=blob)
            try:
                extractor.run(reader)
            except Unavailable as error:
                if blob is not None and erofs.is_full(root):
                    raise _too_many_files() from error
                raise
            reader.drain()
            actual = diff_id()
            if expected is not None and actual != expected:
                raise InvalidRequest(
                    f"the layer's content has the digest {actual}, the image says {expected}"
                )
            info = LayerInfo(actual, extractor.size, reader.consumed, extractor.states_root)
            if blob is not None:
                _write_erofs(top, root, blob, actual)
                files.close()
            info = self._finish(top, info, blob)
        return NewLayer(parent, name, info, extractor.timed_directories, references)

    def check(self, stream: Source, diff_id: str, *, repair: bool = False) -> list[Difference]:
        """Extract a layer again, and return the differences of the stored one by path.

        ``repair`` replaces a layer that differs or is absent. No container may have it mounted.

        :raises InvalidRequest: when ``stream`` is not the tar of the layer.
        """
        import hashlib  # with OpenSSL, which is faster for files

        digest = hashlib.sha256()
        with (
            open_archive(
                stream, _subject(diff_id), limits=self._limits, tap=digest.update
            ) as archive,
            self._extract_temporary(
                archive, lambda: "sha256:" + digest.hexdigest(), diff_id, "directory"
            ) as new,
        ):
            with open_directory(f"{new.name}/fs", dir_fd=new.parent) as expected:
                try:
                    with self.open_root(diff_id) as actual:
                        differences = compare_trees(
                            actual,
                            expected,
                            timed_directories=new.timed_directories,
                            root=new.info.states_root,
                        )
                except (FileNotFoundError, NotADirectoryError):
                    differences = [Difference("/", "the layer is not extracted")]
                except CorruptState as error:
                    differences = [Difference("/", error.message)]
                except OSError as error:
                    if error.errno not in DAMAGED_DISK:
                        raise
                    differences = [Difference("/", f"it cannot be read: {error.strerror}")]
            differences += self._compare_info(new.info)
            if repair and differences:
                new = self._pack(new)
                with self._lock:
                    old = self._detach_damaged(diff_id)
                    self._rename(new.parent, new.name, new.info)
                if old is not None:
                    self.remove_incomplete(old)
        return differences

    def _compare_info(self, expected: LayerInfo) -> list[Difference]:
        document = self._directory / _hex(expected.diff_id) / "layer.json"
        try:
            actual = msgspec.json.decode(document.read_bytes(), type=LayerInfo)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return [Difference("layer.json", "it does not describe the layer")]
        if msgspec.structs.replace(actual, erofs=None) != expected:
            return [Difference("layer.json", "it does not describe the layer")]
        if actual.erofs is not None and actual.erofs.stored is not None:
            try:
                with open_directory(document.parent) as layer:
                    chunks.read_list(layer)
            except CorruptState as error:
                return [Difference("/", error.message)]
        return [] if self._is_protected(actual) else [Difference("/", "it is without fs-verity")]

    def _rename(self, parent: int, name: str, info: LayerInfo) -> None:
        with self._lock:
            try:
                os.rename(name, _hex(info.diff_id), src_dir_fd=parent, dst_dir_fd=parent)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if self.is_intact(info.diff_id):
                    return  # the caller removes this copy
                old = self._detach_damaged(info.diff_id)
                os.rename(name, _hex(info.diff_id), src_dir_fd=parent, dst_dir_fd=parent)
            else:
                old = None
            self._info[info.diff_id] = info
            self._damaged.discard(info.diff_id)
            self._arrived.notify_all()
        if info.erofs is not None:
            self._index.add(_hex(info.diff_id))
        if old is not None:
            self.remove_incomplete(old)

    def _detach_damaged(self, diff_id: str) -> str | None:
        """Take a damaged layer out of the store.

        :raises Conflict: when running containers have it mounted.
        """
        if self.is_on_disk(diff_id) and (users := self.users(diff_id)):
            raise Conflict(
                f"layer {diff_id} is damaged, and containers run on it: {', '.join(users)}",
                hint="stop them first",
            )
        return self.detach(diff_id)

    def adopt(self, path: str, info: LayerInfo) -> None:
        """Rename a directory into the store. It is removed if the layer exists already.

        The directory is on the file system of the store, and no process uses it. Its content equals
        the extracted tar with the digest of ``info``.
        """
        name = _INCOMPLETE + os.urandom(8).hex()
        with open_directory(self._directory) as parent, ExitStack() as references:
            os.mkdir(name, 0o700, dir_fd=parent)
            try:
                with open_directory(name, dir_fd=parent) as top:
                    os.rename(path, "fs", dst_dir_fd=top)
                    blob = None
                    if self.format != "directory":
                        blob = self._pack_directory(parent, top, info.diff_id, references)
                    info = self._finish(top, info, blob)
                self._rename(parent, name, info)
            finally:
                remove_tree(parent, name.encode())

    # -- layers that are not whole ----------------------------------------------------------------

    def add_lazy(self, layer: LazyLayer) -> bool:
        """Add a layer that is mounted before it is whole. Return False if it is there already."""
        with self._lock:
            former = self._lazy.get(layer.name)
            if former is not None and not (former.failure or former.interrupted):
                return False
            self._lazy[layer.name] = layer
            return True

    def replace_lazy(self, layer: LazyLayer) -> bool:
        """Use another mount of a lazy layer from now on. Return False if it has ended."""
        with self._lock:
            if layer.name not in self._lazy:
                return False
            self._lazy[layer.name] = layer
            return True

    def end_lazy(self, name: str, *, replaced: bool = True) -> None:
        """Use the directory of a layer from now on: it is whole, or was removed."""
        with self._lock:
            if self._lazy.pop(name, None) is not None:
                self._arrived.notify_all()
                self.on_lazy_end(name, replaced)

    def interrupt_lazy(self, name: str) -> None:
        """Record that no process serves a mounted layer now. A pull meanwhile brings its own."""
        with self._lock:
            if name in self._lazy:
                self._lazy[name] = self._lazy[name]._replace(interrupted=True)

    def resume_lazy(self, name: str) -> None:
        """Record that a layer which had failed may get whole: its server goes on."""
        with self._lock:
            if name in self._lazy:
                self._lazy[name] = self._lazy[name]._replace(failure="")

    def failure(self, names: Iterable[str]) -> str:
        """Return why one of these layers cannot get whole, '' if all are or may get so."""
        lazy = (self._mounted_lazy(name) for name in names)
        return next((each.failure for each in lazy if each is not None and each.failure), "")

    def shares_lazy(self, name: str, origin: str) -> bool:
        """Return whether a mounted layer is in order, and its bytes come from ``origin``."""
        lazy = self._lazy.get(name)
        return lazy is not None and lazy.origin == origin and self.is_intact(name)

    def fail_lazy(self, name: str, reason: str) -> None:
        """Record that a mounted layer cannot get whole. The next pull replaces it."""
        with self._arrived:
            layer = self._lazy.get(name)
            if layer is not None:
                self._lazy[name] = layer._replace(failure=reason)
            self._arrived.notify_all()

    def is_lazy(self, name: str) -> bool:
        """Return whether a layer, or a blob of it, is still being fetched."""
        return name in self._lazy

    def wait_whole(self, names: Iterable[str], cancelled: Callable[[], bool]) -> None:
        """Wait until layers are whole. A layer that does not exist is not waited for.

        A name that is a diff id is waited for as long as it is missing and a manifest's statement
        about it may still become true. ``cancelled`` is called every half second, and ends the
        wait.

        :raises Unavailable: when a layer cannot get whole.
        """
        with self._arrived:
            for name in names:
                while (failures := self._unfinished(name)) is not None and not cancelled():
                    if all(failures):
                        raise Unavailable(
                            f"layer {diff_id_of(name)} is not complete: {failures[0]}",
                            hint="pull the image again",
                        )
                    self._arrived.wait(_WAKE)

    def _unfinished(self, name: str) -> list[str] | None:
        """Return the failures, '' without one, of the lazy layers that are waited for."""
        if name in self._lazy:
            return [self._lazy[name].failure]
        if name != diff_id_of(name) or self.is_intact(name):
            return None
        return [each.failure for each in self._stated(name)] or None

    def _stated(self, diff_id: str) -> list[LazyLayer]:
        """Return the lazy layers that shall have a diff id."""
        return [each for each in tuple(self._lazy.values()) if each.info.diff_id == diff_id]

    # -- blobs of a layer -------------------------------------------------------------------------

    def record_blob(self, diff_id: str, digest: str) -> None:
        """Record that the uncompressed content of a blob is the layer. The caller has compared it.

        An error is logged: the content is compared again then.
        """
        if digest == diff_id or self.has_blob(diff_id, digest):
            return
        try:
            with (
                open_directory(self._directory / _hex(diff_id)) as layer,
                open("blobs", "ab", opener=lambda name, flags: os.open(
                    name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=layer
                )) as file,
            ):  # fmt: skip
                file.write(f"\n{digest}\n".encode())  # a torn line before it is a line of its own
        except OSError as error:
            _log.warning("a blob of layer %s is not recorded: %s", diff_id, error.strerror)

    def has_blob(self, diff_id: str, digest: str) -> bool:
        """Return whether the uncompressed content of a blob is known to be the layer."""
        if digest == diff_id:
            return True
        try:
            lines = (self._directory / _hex(diff_id) / "blobs").read_bytes().split(b"\n")
        except OSError:
            return False  # it is compared again
        return digest.encode() in lines[:-1]

    def check_blob(self, blob: Source, diff_id: str, digest: str) -> None:
        """Check that the uncompressed content of a blob is a layer.

        The caller records it when the digest of the blob is verified too.

        :raises InvalidRequest: when it has another digest.
        """
        import hashlib  # with OpenSSL, which is faster for files

        actual = hashlib.sha256()
        with Decompressor(f"blob {digest}") as decompressor:
            source, _ = decompressor.stream(blob)
            while chunk := source.read(_CHUNK):
                actual.update(chunk)
        if (found := "sha256:" + actual.hexdigest()) != diff_id:
            raise InvalidRequest(
                f"the content of blob {digest} has the digest {found}, the image says {diff_id}"
            )

    def mark(self, diff_id: str, *, damaged: bool) -> None:
        """Record whether a verification found a layer damaged. The next copy replaces it then."""
        with self._lock:
            if damaged:
                self._damaged.add(diff_id)
            else:
                self._damaged.discard(diff_id)

    def is_intact(self, name: str) -> bool:
        """Return whether the layer exists, can be described and is not known to be damaged."""
        return not self.problem(name)

    def is_whole(self, name: str) -> bool:
        """Return whether the layer is a directory whose content had its diff id."""
        diff_id = diff_id_of(name)
        return diff_id not in self._damaged and (diff_id in self._info or self.is_on_disk(diff_id))

    def _mounted_lazy(self, name: str) -> LazyLayer | None:
        """Return a lazy layer while there is no directory that can be used instead."""
        lazy = self._lazy.get(name)
        return None if lazy is None or self.is_whole(name) else lazy

    def problem(self, name: str) -> str:
        """Return why a layer cannot be used, '' if it can: missing, damaged, without fs-verity.

        The digests of files with fs-verity are compared. The files of other layers are not read.
        """
        diff_id = diff_id_of(name)
        problem = self._problem(diff_id)
        lazy = self._lazy.get(name)
        if problem and lazy is not None:
            return "damaged" if lazy.failure or lazy.interrupted else ""
        return problem

    def _problem(self, diff_id: str) -> str:
        if not self.is_on_disk(diff_id):
            return "missing"
        if diff_id in self._damaged:
            return "damaged"
        try:
            info = self.info(diff_id)
            if info.erofs is not None:
                with open_directory(self._directory / _hex(diff_id)) as layer:
                    erofs.check_digests(layer, info.erofs)
        except (NotFound, CorruptState):
            return "damaged"
        return "" if self._is_protected(info) else "without fs-verity"

    def _is_protected(self, info: LayerInfo) -> bool:
        """Return whether a layer has fs-verity, if new layers have it."""
        return self.format != "verity" or (info.erofs is not None and bool(info.erofs.metadata))

    def has(self, name: str) -> bool:
        diff_id = diff_id_of(name)
        known = name in self._lazy or diff_id in self._info
        return known or (self._directory / _hex(diff_id) / "layer.json").exists()

    def info(self, name: str) -> LayerInfo:
        """Return the document of a layer.

        :raises NotFound: when the layer does not exist.
        :raises CorruptState: when the document is damaged.
        """
        diff_id = diff_id_of(name)
        cached = self._info.get(diff_id)
        if cached is not None:
            return cached
        lazy = self._mounted_lazy(name)
        if lazy is not None:
            return lazy.info
        document = self._directory / _hex(diff_id) / "layer.json"
        with self._lock:  # a removal after the read would leave the layer in the cache
            try:
                info = msgspec.json.decode(document.read_bytes(), type=LayerInfo)
            except FileNotFoundError:
                raise self._missing(name) from None
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise _damaged_document(document, str(error)) from error
            except OSError as error:
                if error.errno not in DAMAGED_DISK:
                    raise
                raise _damaged_document(document, error.strerror or "") from error
            self._info[diff_id] = info
        return info

    def _missing(self, name: str) -> NotFound:
        diff_id = diff_id_of(name)
        if self._stated(diff_id):
            return NotFound(
                f"layer {diff_id} is not complete: its content is not verified yet",
                hint="try again when the image is whole",
            )
        return NotFound(f"layer {diff_id} does not exist", hint="pull or load the image again")

    def path(self, name: str) -> str:
        """Return the path of the layer's root directory, and mount the layer there if it is EROFS.

        :raises NotFound: when the layer does not exist.
        :raises Unavailable: when it is not complete, and the manifest of another image states it.
        :raises CorruptState: when it is damaged, or is not protected as new layers are.
        """
        if self._lazy and (lazy := self._mounted_lazy(name)) is not None:
            return lazy.path
        diff_id = diff_id_of(name)
        if not self.has(diff_id):
            missing = self._missing(name)
            if self._stated(diff_id):
                raise Unavailable(missing.message, hint=missing.hint)
            raise missing
        path = f"{self._directory}/{_hex(diff_id)}/fs"
        if diff_id not in self._mounted:
            with self._lock:
                self._mount(diff_id, path)
        return path

    def _mount(self, diff_id: str, path: str) -> None:
        """Mount a layer at ``path``, unless it is a directory."""
        if diff_id in self._mounted:
            return
        info = self.info(diff_id)
        if not self._is_protected(info):
            raise CorruptState(
                f"layer {diff_id} was unpacked without fs-verity, and the engine has verity=on",
                hint="jaula system check --repair",
            )
        if info.erofs is None:
            self._mounted.add(diff_id)
            return
        try:
            with (
                open_directory(self._directory / _hex(diff_id)) as layer,
                erofs.open_mount(layer, info.erofs) as mount,
            ):
                mounts.move_mount(mount, path)
        except CorruptState as error:
            self._damaged.add(diff_id)
            raise CorruptState(
                f"layer {diff_id} cannot be mounted: {error.message}",
                hint="jaula system check --repair",
            ) from error
        except OSError as error:
            raise resource_error(error, f"cannot mount layer {diff_id}") or error from error
        self._mounted.add(diff_id)

    @contextmanager
    def open_root(self, diff_id: str) -> Iterator[int]:
        """Yield a descriptor of the root directory of a layer. EROFS is mounted detached.

        :raises OSError: when the layer does not exist.
        :raises CorruptState: when it cannot be mounted.
        """
        with open_directory(self._directory / _hex(diff_id)) as layer:
            files = self._files(diff_id)
            if files is None:
                with open_directory("fs", dir_fd=layer) as root:
                    yield root
            else:
                with (
                    erofs.open_mount(layer, files) as mount,
                    open_directory(".", dir_fd=mount) as root,
                ):
                    yield root

    def _files(self, diff_id: str) -> erofs.ErofsFiles | None:
        try:
            return self.info(diff_id).erofs
        except (NotFound, CorruptState):
            return None

    def is_erofs(self, diff_id: str) -> bool:
        """Return whether a layer is an EROFS image, and so a file system of its own."""
        return self._files(diff_id) is not None

    def ids(self) -> Names:
        """Return the names of all layers, including those with a damaged document."""
        stored = {"sha256:" + name for name in os.listdir(self._directory) if len(name) == 64}
        return sorted(stored | self._lazy.keys())

    def size(self, name: str) -> int:
        """Return the bytes of a layer's regular files, 0 if its document cannot be read."""
        try:
            return self.info(name).size
        except (NotFound, CorruptState):
            return 0

    def stored_sizes(self, names: Iterable[str]) -> Callable[[Iterable[str]], int]:
        """Return a function that returns the bytes which some of these layers need together.

        It counts file contents, and a chunk that several layers share once. A layer with several
        names counts once.
        """
        sizes: dict[str, int] = {}
        sharing: dict[str, erofs.ErofsFiles] = {}
        for name in names:
            diff_id = diff_id_of(name)
            files = self._files(diff_id)
            if files is None or files.stored is None:
                sizes[_hex(diff_id)] = max(self.size(name), sizes.get(_hex(diff_id), 0))
            else:
                sharing[_hex(diff_id)] = files
        stored = blob_usage.StoredSizes(self._directory, sizes, sharing)
        return lambda some: stored.together({_hex(diff_id_of(name)) for name in some})

    def freed_size(self, names: Collection[str]) -> int:
        """Return the bytes of file contents that a removal of layers frees."""
        if not names:
            return 0
        stored = set(self.ids())
        together = self.stored_sizes(stored)
        return together(stored) - together(stored.difference(names))

    def inodes(self, name: str) -> int:
        """Return the inodes of a layer, 0 if it does not exist. The first call counts them."""
        lazy = self._mounted_lazy(name)
        if lazy is not None:
            return lazy.inodes
        diff_id = diff_id_of(name)
        count = self._inodes.get(diff_id)
        if count is None:
            try:
                with open_directory(self._directory / _hex(diff_id)) as layer:
                    if self._files(diff_id) is None:
                        count = tree_usage(layer)[1]
                    else:
                        names = os.listdir(layer)
                        shared = sum(name.startswith(f"{chunks.BLOB}.") for name in names)
                        count = len(names) - shared + 1
            except FileNotFoundError:
                return 0
            with self._lock:  # a removal meanwhile would leave the count in the cache
                if self.is_on_disk(diff_id):
                    self._inodes[diff_id] = count
        return count

    def remove(self, name: str) -> None:
        """Remove a layer if it exists. The caller ensures that it is not in use."""
        temporary = self.detach(name)
        if temporary is not None:
            self.remove_incomplete(temporary)

    def detach(self, name: str) -> str | None:
        """Take a layer out of the store, without deleting it yet: a rename is quick.

        Return the name for :meth:`remove_incomplete`, or None if the layer does not exist.
        """
        temporary = f"{_INCOMPLETE}{os.urandom(8).hex()}"
        with self._lock:
            if name in self._lazy:
                self.end_lazy(name, replaced=False)
                return temporary
            diff_id = diff_id_of(name)
            if diff_id != name:
                return None  # another image may have the layer whole
            try:
                os.rename(self._directory / _hex(diff_id), self._directory / temporary)
            except FileNotFoundError:
                return None
            finally:
                self._info.pop(diff_id, None)
                self._inodes.pop(diff_id, None)
                self._mounted.discard(diff_id)
        return temporary

    def is_on_disk(self, diff_id: str) -> bool:
        """Return whether the layer is on disk, without the cache."""
        return (self._directory / _hex(diff_id) / "fs").is_dir() and (
            self._directory / _hex(diff_id) / "layer.json"
        ).exists()

    def incomplete(self, before: int) -> Names:
        """Return what was incomplete at ``before``, in nanoseconds since the epoch."""
        return list_with_prefix(self._directory, _INCOMPLETE, before=before)

    def remove_incomplete(self, name: str) -> None:
        """Remove an incomplete or detached layer by name, with its mount.

        Chunks of removed layers that only this one needed are freed.
        """
        has_blob = (self._directory / name / erofs.BLOB).exists()
        if has_blob:
            erofs.unmount(f"{self._directory}/{name}/fs")
            blob_usage.free_removed(self._directory, name)
        with open_directory(self._directory) as parent:
            remove_tree(parent, name.encode())
        if has_blob:
            self._index.synchronize()

    def sweep(self) -> Names:
        """Remove incomplete layers. No layer may be in extraction."""
        names = list_with_prefix(self._directory, _INCOMPLETE)
        for name in names:
            self.remove_incomplete(name)
        return names


def _subject(diff_id: str | None) -> str:
    """Return the name of a layer in the errors of the processes that read it."""
    return f"layer {diff_id}" if diff_id else "a layer"


def _too_many_files() -> InvalidRequest:
    return InvalidRequest(
        f"the layer has more than {erofs.MAX_FILES} files, the limit of a layer as EROFS image;"
        " a KiB of attributes counts as a file",
        hint="start the engine without --storage-opt",
    )


def _write_erofs(top: int, root: int, blob: BlobWriter, diff_id: str) -> None:
    """Write the EROFS image of the tree ``root`` to the directory ``top``.

    :raises InvalidRequest: when a file exceeds the limits of EROFS.
    """
    try:
        erofs.create(top, root, blob)
    except ValueError as error:
        raise InvalidRequest(f"the layer {diff_id} does not fit in EROFS: {error}") from error


def _damaged_document(path: Path, reason: str) -> CorruptState:
    return CorruptState(
        f"the layer file {path} is damaged: {reason}", hint="pull or load the image again"
    )


def _hex(diff_id: str) -> str:
    """Return the directory name of a layer.

    :raises InvalidRequest: when ``diff_id`` is not a diff id, so it never becomes a path.
    """
    name = diff_id.removeprefix("sha256:")
    if len(name) != 64 or not all(c in "0123456789abcdef" for c in name):
        raise InvalidRequest(f"{diff_id[:80]!r} is not a diff id")
    return name


def root_directory_layer(layers: LayerStore, names: tuple[str, ...]) -> str:
    """Return the topmost of ``names`` (base first) whose tar has an entry '/', else the base."""
    for name in reversed(names):
        if layers.info(name).states_root:
            return name
    return names[0]
