"""Write a directory as the tar that ``/build`` takes, while it is read.

All entries belong to root and have no owner names. Entries are sorted by name, so the same files
give the same bytes. Files that the ignore file excludes are not read. Sockets and device nodes are
left out: an image cannot get them from a context.
"""

from __future__ import annotations

import os
import stat

from jaula.cli.cli_errors import CliError
from jaula.storage.tar import tar_writer
from jaula.storage.tar.tar_entry import DIRECTORY, FIFO, REGULAR, SYMLINK, TarEntry
from jaula.storage.tar.tar_writer import (
    TAR_TYPES,
    HardLinks,
    Sink,
    TarWriter,
    portable_xattrs,
    read_padded,
)
from jaula.storage.trees import walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.features.build.files.dockerignore import Dockerignore

_INCLUDED_TYPES = (REGULAR, DIRECTORY, SYMLINK, FIFO)


class ContextTar:
    """One archive. ``ignore`` excludes files; None excludes none."""

    def __init__(self, sink: Sink, ignore: Dockerignore | None = None) -> None:
        self._writer = TarWriter(sink)
        self._ignore = ignore
        self._links = HardLinks()
        # Excluded directories, written once an included file is below them.
        self._pending: dict[bytes, TarEntry] = {}

    def text(self, name: str, content: bytes) -> None:
        """Add a file with ``content`` that does not exist on disk."""
        self._writer.add(tar_writer.new_entry(name, size=len(content)), [content])

    def finish(self) -> None:
        """Write the end of the archive."""
        self._writer.finish()

    def directory(self, path: str) -> None:
        """Add the contents of a directory.

        :raises CliError: when a file cannot be read.
        """
        relative = b""
        try:
            root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for relative, directory, entries in walk(root):
                    entries[:] = [
                        (name, status)
                        for name, status in entries
                        if self._add_entry(
                            directory, name, status, relative + b"/" + name if relative else name
                        )
                    ]
            finally:
                os.close(root)
        except OSError as error:
            failed = os.path.join(path, os.fsdecode(relative), os.fsdecode(error.filename or ""))
            raise CliError(f"{failed.rstrip('/')}: {(error.strerror or '').lower()}") from None

    def _add_entry(self, parent: int, name: bytes, status: os.stat_result, path: bytes) -> bool:
        """Add one entry unless it is excluded. Return whether to descend into it."""
        is_directory = stat.S_ISDIR(status.st_mode)
        if self._ignore is not None and self._ignore.excludes_path(os.fsdecode(path)):
            if not is_directory or not self._ignore.may_contain_exception(os.fsdecode(path)):
                return False
            self._pending[path] = self._header(status, path, DIRECTORY)
            return True
        kind = TAR_TYPES.get(stat.S_IFMT(status.st_mode))
        if kind not in _INCLUDED_TYPES:
            return False
        self._add_pending_parents(path)
        entry = self._header(status, path, kind)
        if self._links.link(entry, status):
            self._writer.add(entry)
            return False
        if kind == SYMLINK:
            entry.link = os.readlink(name, dir_fd=parent)
        if kind == REGULAR:
            self._add_file(parent, name, entry)
        else:
            self._writer.add(entry)
        return is_directory

    def _add_file(self, parent: int, name: bytes, entry: TarEntry) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(name, flags, dir_fd=parent)
        try:
            entry.xattrs = portable_xattrs(file)
            entry.size = os.fstat(file).st_size
            self._writer.add(entry, read_padded(file, entry.size))
        finally:
            os.close(file)

    def _add_pending_parents(self, path: bytes) -> None:
        """Write the pending directories above ``path``, topmost first."""
        if not self._pending:
            return
        parents = []
        while b"/" in path:
            path = path.rpartition(b"/")[0]
            if (entry := self._pending.pop(path, None)) is not None:
                parents.append(entry)
        for entry in reversed(parents):
            self._writer.add(entry)

    @staticmethod
    def _header(status: os.stat_result, path: bytes, kind: int) -> TarEntry:
        entry = TarEntry()
        entry.name, entry.type = path, kind
        entry.mode, entry.mtime = stat.S_IMODE(status.st_mode), max(status.st_mtime_ns, 0)
        return entry
