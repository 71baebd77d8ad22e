"""The files of an image, read from the archive of ``docker save``.

The archive is read once, as a stream. Kept are directories, symbolic links, modes and owners of all
files, and the content of programs, libraries, scripts and small files: in one temporary file
without a name. Layers are put together as overlayfs does (opencontainers/image-spec, ``layer.md``).
Paths are resolved inside this tree, so no link of the image leads to the host.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from typing import IO, NamedTuple

from jaula.errors import InvalidRequest
from jaula.spec.image_documents import (
    DOCUMENT_LIMIT,
    ArchiveImage,
    ImageDocument,
    decode,
)
from jaula.storage.compression import PrefixedStream, Source, decompress_stream
from jaula.storage.layers.extract import clean_path
from jaula.storage.tar.tar_entry import DIRECTORY, HARD_LINK, REGULAR, SYMLINK, quote_name
from jaula.storage.tar.tar_reader import Limits, TarReader, is_tar_header

ENTRIES_LIMIT = 1_000_000  # files of all layers
KEPT_LIMIT = 4 << 30  # bytes of content that are kept
PROGRAM_LIMIT = 256 << 20  # bytes of one program or library
SMALL_LIMIT = 64 << 10  # bytes of another file that is kept
_LINKS_LIMIT = 40  # symbolic links of one path, as in the kernel
_DEPTH_LIMIT = 256  # components of a path
_LAYER_LIMIT = 64 << 30  # bytes of one layer


class Directory:
    """A directory: its entries by name, mode and owner."""

    __slots__ = ("entries", "gid", "mode", "uid")

    def __init__(self, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        self.entries: dict[str, Node] = {}
        self.mode, self.uid, self.gid = mode, uid, gid


class File(NamedTuple):
    """A file; ``offset`` is -1 if its content is not kept."""

    mode: int
    size: int
    offset: int


class Link(NamedTuple):
    """A symbolic link."""

    target: str


Node = Directory | File | Link


class _Change(NamedTuple):
    path: str
    node: Node | None  # None: a hard link
    link: str = ""


class ImageTree:
    """The root directory of an image."""

    def __init__(self, root: Directory, content: IO[bytes]) -> None:
        self._root = root
        self._content = content

    def close(self) -> None:
        """Remove the kept content."""
        self._content.close()

    def resolve(self, path: str) -> tuple[str, Directory | File] | None:
        """Return the path without symbolic links, and what is there; None if there is nothing."""
        pending = path.split("/")[::-1]
        reached: list[tuple[str, Directory]] = [("", self._root)]
        links = 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if len(reached) > 1:
                    reached.pop()
                continue
            node = reached[-1][1].entries.get(part)
            if isinstance(node, Link):
                links += 1
                if links > _LINKS_LIMIT or len(pending) > _DEPTH_LIMIT * 16:
                    return None
                if node.target.startswith("/"):
                    del reached[1:]
                pending += node.target.split("/")[::-1]
            elif isinstance(node, Directory):
                reached.append((part, node))
                if len(reached) > _DEPTH_LIMIT:
                    return None
            elif node is not None and not any(each not in ("", ".") for each in pending):
                return "/".join([name for name, _ in reached] + [part]), node
            else:
                return None
        return "/".join(name for name, _ in reached) or "/", reached[-1][1]

    def file(self, path: str) -> tuple[str, File] | None:
        """Return the path without symbolic links and the file that it names, None for another."""
        found = self.resolve(path)
        return (found[0], found[1]) if found and isinstance(found[1], File) else None

    def read(self, path: str, limit: int = PROGRAM_LIMIT) -> bytes | None:
        """Return the content of a file; None if it is absent, larger, or was not kept."""
        found = self.file(path)
        if found is None or found[1].offset < 0 or found[1].size > limit:
            return None
        self._content.seek(found[1].offset)
        return self._content.read(found[1].size)

    def names(self, path: str) -> tuple[str, ...]:
        """Return the names in a directory, sorted; none if it is not one."""
        found = self.resolve(path)
        if found is None or not isinstance(found[1], Directory):
            return ()
        return tuple(sorted(found[1].entries))

    def directories(self, path: str) -> Iterator[tuple[str, Directory]]:
        """Yield the directories below a directory, with their paths."""
        found = self.resolve(path)
        pending = [found] if found else []
        while pending:
            prefix, directory = pending.pop()
            if not isinstance(directory, Directory):
                continue
            for name, node in sorted(directory.entries.items()):
                if isinstance(node, Directory):
                    each = f"{prefix.rstrip('/')}/{name}"
                    yield each, node
                    pending.append((each, node))


class SavedImage(NamedTuple):
    """An image of an archive: its id is the digest of the configuration."""

    id: str
    document: ImageDocument
    tree: ImageTree


def read_archive(stream: Source, reference: str = "") -> SavedImage:
    """Read the first image of an archive, or that with the tag ``reference``.

    :raises InvalidRequest: when it is not an archive of images, or a limit is exceeded.
    """
    content: IO[bytes] = tempfile.TemporaryFile(prefix="jaula-harden-")  # noqa: SIM115
    try:
        return _Archive(content).read(stream, reference)
    except BaseException:
        content.close()
        raise


class _EntryStream(io.RawIOBase):
    """The data of the present entry of an archive, as a stream."""

    def __init__(self, head: bytes, chunks: Iterator[memoryview]) -> None:
        self._rest = memoryview(head)
        self._chunks = chunks

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(bytes(chunk))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


class _Archive:
    def __init__(self, content: IO[bytes]) -> None:
        self._content = content
        self._size = 0
        self._entries = 0
        self._documents: dict[str, bytes] = {}
        self._layers: dict[str, list[_Change]] = {}
        self._links: dict[str, str] = {}

    def read(self, stream: Source, reference: str) -> SavedImage:
        source, _ = decompress_stream(stream)
        reader = TarReader(source, limits=Limits(entries=20_000))
        for entry in reader:
            name = clean_path(entry.name).decode(errors="replace")
            if entry.type in (SYMLINK, HARD_LINK):
                base = name.rpartition("/")[0] if entry.type == SYMLINK else ""
                self._links[name] = _normalize(f"{base}/{entry.link.decode(errors='replace')}")
            elif entry.type == REGULAR:
                self._read_member(name, entry.size, reader)
        manifest = self._documents.get("manifest.json")
        if manifest is None:
            raise InvalidRequest("the archive has no manifest.json: it is not one of docker save")
        images = decode(manifest, tuple[ArchiveImage, ...], "manifest.json")
        for image in images:
            if not reference or reference in image.repo_tags:
                break
        else:
            raise InvalidRequest(f"the archive does not have the image {reference or '(any)'}")
        document = self._documents.get(image.config)
        if document is None:
            raise InvalidRequest("the archive does not have the configuration of the image")
        root = Directory()
        for layer in image.layers:
            changes = self._layers.get(self._links.get(layer, layer))
            if changes is None:
                raise InvalidRequest(f"the archive does not have the layer {layer[:100]!r}")
            _apply(root, changes)
        digest = image.config.rpartition("/")[2].removesuffix(".json")
        return SavedImage(
            f"sha256:{digest}",
            decode(document, ImageDocument, "the configuration of the image"),
            ImageTree(root, self._content),
        )

    def _read_member(self, name: str, size: int, reader: TarReader) -> None:
        chunks = reader.data()
        head = b"".join(bytes(chunk) for chunk in _take(chunks, 512))
        if head[:1] in (b"{", b"[") and size <= DOCUMENT_LIMIT:
            self._documents[name] = head + b"".join(bytes(chunk) for chunk in chunks)
            return
        stream = io.BufferedReader(_EntryStream(head, chunks), 1 << 16)
        source, _ = decompress_stream(stream)
        plain = io.BufferedReader(source, 1 << 16)
        block = plain.read(512)
        if len(block) == 512 and (is_tar_header(memoryview(block)) or not any(block)):
            self._layers[name] = list(self._read_layer(PrefixedStream(block, plain)))

    def _read_layer(self, stream: io.RawIOBase) -> Iterator[_Change]:
        for_layer = TarReader(stream, limits=Limits(bytes=_LAYER_LIMIT))
        for entry in for_layer:
            self._entries += 1
            if self._entries > ENTRIES_LIMIT:
                raise InvalidRequest(f"the image has more than {ENTRIES_LIMIT} files")
            path = clean_path(entry.name).decode(errors="replace")
            if entry.type == DIRECTORY:
                yield _Change(path, Directory(entry.mode, entry.uid, entry.gid))
            elif entry.type == SYMLINK:
                yield _Change(path, Link(entry.link.decode(errors="replace")))
            elif entry.type == HARD_LINK:
                yield _Change(path, None, clean_path(entry.link).decode(errors="replace"))
            elif entry.type == REGULAR:
                offset = self._keep(for_layer, entry.size, entry.name)
                yield _Change(path, File(entry.mode, entry.size, offset))

    def _keep(self, reader: TarReader, size: int, name: bytes) -> int:
        """Keep the content of a file if it may be needed; return its offset, otherwise -1."""
        if size > PROGRAM_LIMIT:
            return -1
        chunks = reader.data()
        first = next(chunks, None)
        if first is None:
            return self._size
        head = bytes(first[:4])
        if size > SMALL_LIMIT and head != b"\x7fELF" and head[:2] != b"#!":
            return -1
        if self._size + size > KEPT_LIMIT:
            raise InvalidRequest(
                f"the programs of the image have more than {KEPT_LIMIT >> 30} GiB, at "
                f"{quote_name(name)}"
            )
        offset = self._size
        self._content.seek(offset)
        self._content.write(first)
        for chunk in chunks:
            self._content.write(chunk)
        self._size += size
        return offset


def _take(chunks: Iterator[memoryview], size: int) -> Iterator[memoryview]:
    taken = 0
    while taken < size and (chunk := next(chunks, None)) is not None:
        taken += len(chunk)
        yield chunk


def _normalize(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _apply(root: Directory, changes: list[_Change]) -> None:
    """Put a layer on top of the directory."""
    lower = [change for change in changes if change.path.rpartition("/")[2].startswith(".wh.")]
    for change in lower:
        parent, _, name = change.path.rpartition("/")
        directory = _directory(root, parent, make=False)
        if directory is None:
            continue
        if name == ".wh..wh..opq":
            directory.entries.clear()
        else:
            directory.entries.pop(name.removeprefix(".wh."), None)
    for path, node, link in changes:
        parent, _, name = path.rpartition("/")
        if name.startswith(".wh."):
            continue
        if not name:
            continue  # the root itself
        directory = _directory(root, parent, make=True)
        if directory is None:
            continue
        if node is None:
            source, _, source_name = link.rpartition("/")
            holder = _directory(root, source, make=False)
            node = holder.entries.get(source_name) if holder else None
            if node is None or isinstance(node, Directory):
                continue
        present = directory.entries.get(name)
        if isinstance(node, Directory) and isinstance(present, Directory):
            present.mode, present.uid, present.gid = node.mode, node.uid, node.gid
        elif isinstance(node, Directory):
            directory.entries[name] = Directory(node.mode, node.uid, node.gid)
        else:
            directory.entries[name] = node


def _directory(root: Directory, path: str, *, make: bool) -> Directory | None:
    """Return a directory, without following links; None if it is absent or too deep."""
    directory = root
    for depth, part in enumerate(path.split("/") if path else ()):
        if depth >= _DEPTH_LIMIT:
            return None
        node = directory.entries.get(part)
        if not isinstance(node, Directory):
            if not make:
                return None
            node = directory.entries[part] = Directory()
        directory = node
    return directory
