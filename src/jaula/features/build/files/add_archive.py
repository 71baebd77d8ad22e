"""``ADD`` of an archive: copy its content in place of the file.

Follows the Dockerfile reference: a file is recognised as an archive by its content, never by its
name. A tar may be plain or compressed with gzip, bzip2, xz or zstd. A file that only looks like an
archive is copied unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import msgspec

from jaula.errors import InvalidRequest
from jaula.features.build.files.source_archives import Archive, File
from jaula.storage.tar.sandboxed import open_archive
from jaula.storage.tar.tar_entry import TarEntry


class PackedArchive(msgspec.Struct, frozen=True):
    """The content of the archive ``file``, with the owners in it."""

    file: File
    name: bytes = b""
    contents_only: bool = True
    keeps_owners: bool = True

    def archive(self, name: bytes) -> Archive:
        return _PackedArchive(self.file)


class _PackedArchive:
    def __init__(self, file: File) -> None:
        with ExitStack() as opened:
            stream = opened.enter_context(os.fdopen(file.open(), "rb"))
            self._reader = opened.enter_context(open_archive(stream))
            self._opened = opened.pop_all()

    def __iter__(self) -> Iterator[TarEntry]:
        return iter(self._reader)

    def data(self) -> Iterator[memoryview]:
        return self._reader.data()

    def close(self) -> None:
        self._opened.close()


def close(archive: Archive) -> None:
    """Close the file of an archive, if it has one."""
    if isinstance(archive, _PackedArchive):
        archive.close()


def is_packed(file: File) -> bool:
    """Return whether a file is an archive."""
    packed = None
    try:
        packed = _PackedArchive(file)
        return next(iter(packed), None) is not None
    except InvalidRequest:
        return False
    finally:
        if packed is not None:
            packed.close()
