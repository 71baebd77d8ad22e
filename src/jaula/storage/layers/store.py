"""The store of unpacked layers: ``<layers>/<diff id in hex>/fs`` and ``layer.json`` beside it.

A layer is named by its diff id, the sha256 of its uncompressed tar (image-spec 1.1 ``config.md``,
'Layer DiffID'). It is unpacked below a temporary name and renamed when its digest is known and
right, so a layer that is there is whole. After a crash of the engine :meth:`LayerStore.sweep`
takes away what was half-made. Nothing waits for the disk: after a loss of power a layer may have
to be loaded again.

The directory is closed to other users: layers hold set-user-ID programs.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

import msgspec

from jaula.config import Paths
from jaula.errors import CorruptState, InvalidRequest, NotFound, Unavailable
from jaula.storage.compare import Difference, compare_trees
from jaula.storage.compression import PrefixedStream, Source, decompress_stream
from jaula.storage.layers.extract import Extractor
from jaula.storage.tar.reader import Limits, TarReader
from jaula.storage.trees import (
    list_with_prefix,
    open_directory,
    remove_tree,
    remove_with_prefix,
    write_new,
)

_HALF_MADE = "new-"


class LayerInfo(msgspec.Struct, frozen=True):
    """Facts about a layer: sizes are bytes of its regular files and of its uncompressed tar.

    ``states_root`` says whether the layer's tar describes the root directory itself.
    """

    diff_id: str
    size: int
    tar_size: int
    states_root: bool = False


Names = list[str]


class NewLayer(NamedTuple):
    """A layer under a temporary name; ``timed`` are its directories whose times the tar states."""

    parent: int
    name: str
    info: LayerInfo
    timed: Collection[bytes]


class LayerStore:
    """The layers of one engine. Methods may be called from several threads."""

    def __init__(self, paths: Paths, *, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        self._directory = paths.layers
        self._limits = limits
        self._known: dict[str, LayerInfo] = {}
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def extract(self, stream: Source, expected: str | None = None) -> LayerInfo:
        """Unpack a layer's tar, plain or compressed; a layer that is there already is kept.

        Raises :class:`InvalidRequest` for a damaged or hostile archive and where the diff id is not
        ``expected``, :class:`Unavailable` for a full disk; nothing is left of it then.
        """
        digest = hashlib.sha256()
        source, _ = decompress_stream(stream)
        reader = TarReader(source, limits=self._limits, tap=digest.update)
        return self._unpack(reader, lambda: "sha256:" + digest.hexdigest(), expected)

    def extract_plain(self, tar: BinaryIO, diff_id: str) -> LayerInfo:
        """Unpack an uncompressed tar of which the caller has computed the diff id.

        The file is mapped, so its data goes to the layer without a copy in between. It must not be
        changed by anyone meanwhile.
        """
        if self.has(diff_id):
            return self.info(diff_id)
        size = os.fstat(tar.fileno()).st_size
        if not size:
            raise InvalidRequest("the layer's archive is empty")
        mapped = mmap.mmap(tar.fileno(), size, access=mmap.ACCESS_READ)
        reader = TarReader(mapped, limits=self._limits)
        try:
            return self._unpack(reader, lambda: diff_id, diff_id)
        finally:
            reader.close()  # unmapped with its last piece, which a traceback may still hold

    def extract_stream(self, tar: Source, diff_id: Callable[[], str]) -> LayerInfo:
        """Unpack an uncompressed tar that still comes; ``diff_id`` is asked when its end was read.

        The caller has computed it, and waits to see whether there was a layer in it at all.
        """
        reader = TarReader(PrefixedStream(b"", tar), limits=self._limits)
        return self._unpack(reader, diff_id, None)

    def _unpack(
        self, reader: TarReader, diff_id: Callable[[], str], expected: str | None
    ) -> LayerInfo:
        with self._fresh(reader, diff_id, expected) as fresh:
            self._place(fresh.parent, fresh.name, fresh.info)
        self._known[fresh.info.diff_id] = fresh.info
        return fresh.info

    @contextmanager
    def _fresh(
        self, reader: TarReader, diff_id: Callable[[], str], expected: str | None
    ) -> Iterator[NewLayer]:
        """A layer unpacked under a temporary name, and removed if it still has that in the end."""
        name = _HALF_MADE + secrets.token_hex(8)
        try:
            with open_directory(self._directory) as parent:
                os.mkdir(name, 0o700, dir_fd=parent)
                try:
                    yield self._fill(parent, name, reader, diff_id, expected)
                finally:
                    remove_tree(parent, name.encode())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Unavailable(f"cannot unpack a layer: {error.strerror}") from error
            raise

    def _fill(
        self,
        parent: int,
        name: str,
        reader: TarReader,
        diff_id: Callable[[], str],
        expected: str | None,
    ) -> NewLayer:
        with open_directory(name, dir_fd=parent) as top:
            os.mkdir("fs", 0o755, dir_fd=top)
            with open_directory("fs", dir_fd=top) as root:
                os.fchmod(root, 0o755)
                extractor = Extractor(root)
                extractor.run(reader)
            reader.drain()
            found = diff_id()
            if expected is not None and found != expected:
                raise InvalidRequest(
                    f"the layer's content has the digest {found}, the image says {expected}"
                )
            info = LayerInfo(found, extractor.size, reader.consumed, extractor.states_root)
            write_new(top, "layer.json", msgspec.json.encode(info))
        return NewLayer(parent, name, info, extractor.timed)

    def check(self, stream: Source, diff_id: str, *, mend: bool = False) -> list[Difference]:
        """Unpack a layer once more and compare: what is not as its tar says, by path.

        ``mend`` puts the new one in the place of one that differs or is not there; no container
        may have it mounted. Raises :class:`InvalidRequest` where ``stream`` is not its tar.
        """
        digest = hashlib.sha256()
        source, _ = decompress_stream(stream)
        reader = TarReader(source, limits=self._limits, tap=digest.update)
        name = _hex(diff_id)
        with self._fresh(reader, lambda: "sha256:" + digest.hexdigest(), diff_id) as fresh:
            with open_directory(f"{fresh.name}/fs", dir_fd=fresh.parent) as wanted:
                try:
                    with open_directory(f"{name}/fs", dir_fd=fresh.parent) as found:
                        told = compare_trees(
                            found, wanted, timed=fresh.timed, root=fresh.info.states_root
                        )
                except (FileNotFoundError, NotADirectoryError):
                    told = [Difference("/", "the layer is not unpacked")]
            told += self._document_deviations(fresh.info)
            if mend and told:
                self.remove(diff_id)
                self._place(fresh.parent, fresh.name, fresh.info)
                self._known[diff_id] = fresh.info
        return told

    def _document_deviations(self, wanted: LayerInfo) -> list[Difference]:
        document = self._directory / _hex(wanted.diff_id) / "layer.json"
        try:
            right = msgspec.json.decode(document.read_bytes(), type=LayerInfo) == wanted
        except (OSError, msgspec.DecodeError):
            right = False
        return [] if right else [Difference("layer.json", "it is not the layer's description")]

    def _place(self, parent: int, name: str, info: LayerInfo) -> None:
        try:
            os.rename(name, _hex(info.diff_id), src_dir_fd=parent, dst_dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # the same layer was made before; ours is removed by the caller

    def adopt(self, path: str, info: LayerInfo) -> None:
        """Make a directory a layer by renaming it; where there is that layer already it goes.

        It lies on the layers' file system, nobody uses it any more, and it is what unpacking the
        tar of which ``info`` has the digest would have given.
        """
        name = _HALF_MADE + secrets.token_hex(8)
        with open_directory(self._directory) as parent:
            os.mkdir(name, 0o700, dir_fd=parent)
            try:
                with open_directory(name, dir_fd=parent) as top:
                    os.rename(path, "fs", dst_dir_fd=top)
                    write_new(top, "layer.json", msgspec.json.encode(info))
                self._place(parent, name, info)
            finally:
                remove_tree(parent, name.encode())
        self._known[info.diff_id] = info

    def has(self, diff_id: str) -> bool:
        return diff_id in self._known or (self._directory / _hex(diff_id) / "layer.json").exists()

    def info(self, diff_id: str) -> LayerInfo:
        """Raises :class:`NotFound`, or :class:`CorruptState` where its document is damaged."""
        known = self._known.get(diff_id)
        if known is None:
            document = self._directory / _hex(diff_id) / "layer.json"
            try:
                known = msgspec.json.decode(document.read_bytes(), type=LayerInfo)
            except FileNotFoundError:
                raise NotFound(f"layer {diff_id} does not exist") from None
            except msgspec.DecodeError as error:
                raise CorruptState(
                    f"the layer's document {document} is damaged: {error}",
                    hint="remove its directory and load the image again",
                ) from error
            self._known[diff_id] = known
        return known

    def path(self, diff_id: str) -> str:
        """The layer's root directory; raises :class:`NotFound`."""
        if not self.has(diff_id):
            raise NotFound(f"layer {diff_id} does not exist", hint="load the image again")
        return f"{self._directory}/{_hex(diff_id)}/fs"

    def ids(self) -> Names:
        """Diff ids of all layers, those with a damaged document too."""
        return sorted("sha256:" + name for name in os.listdir(self._directory) if len(name) == 64)

    def size(self, diff_id: str) -> int:
        """Bytes of a layer's regular files; 0 where its document cannot be read."""
        try:
            return self.info(diff_id).size
        except (NotFound, CorruptState):
            return 0

    def remove(self, diff_id: str) -> None:
        """Take a layer away; none there is no error. The caller knows that nothing uses it."""
        name = _hex(diff_id)
        self._known.pop(diff_id, None)
        half = f"{_HALF_MADE}{secrets.token_hex(8)}"  # no longer a layer from the first moment on
        with open_directory(self._directory) as parent:
            try:
                os.rename(name, half, src_dir_fd=parent, dst_dir_fd=parent)
            except FileNotFoundError:
                return
            remove_tree(parent, half.encode())

    def is_on_disk(self, diff_id: str) -> bool:
        """Whether the layer is on disk, whatever was known of it before."""
        return (self._directory / _hex(diff_id) / "fs").is_dir() and (
            self._directory / _hex(diff_id) / "layer.json"
        ).exists()

    def incomplete(self, before: int) -> Names:
        """What was not finished by ``before``, in nanoseconds since the epoch."""
        return list_with_prefix(self._directory, _HALF_MADE, before=before)

    def remove_incomplete(self, name: str) -> None:
        """Remove one of :meth:`half_made`."""
        with open_directory(self._directory) as parent:
            remove_tree(parent, name.encode())

    def sweep(self) -> Names:
        """Remove what a crash left half-made; call it before anything is unpacked."""
        return remove_with_prefix(self._directory, _HALF_MADE)


def _hex(diff_id: str) -> str:
    """The directory's name; a diff id that is none never becomes a path."""
    name = diff_id.removeprefix("sha256:")
    if len(name) != 64 or not all(c in "0123456789abcdef" for c in name):
        raise InvalidRequest(f"{diff_id[:80]!r} is no diff id")
    return name


def root_directory_layer(layers: LayerStore, diff_ids: tuple[str, ...]) -> str:
    """The topmost of ``diff_ids`` (base first) whose tar describes '/', else the base."""
    for diff_id in reversed(diff_ids):
        if layers.info(diff_id).states_root:
            return diff_id
    return diff_ids[0]
