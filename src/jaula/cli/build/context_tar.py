"""A directory of this machine as the tar that ``/build`` takes, written while it is made.

Everything becomes root's and has no names of owners; entries are in order of name, so the same
files give the same bytes. What the ignore file names is not read. Sockets and device nodes are left
out: no image gets them from a context.
"""

from __future__ import annotations

import os
import stat

from jaula.cli.errors import CliError
from jaula.storage.tar import writer
from jaula.storage.tar.entry import DIRECTORY, FIFO, HARD_LINK, REGULAR, SYMLINK, TarEntry
from jaula.storage.tar.writer import TAR_TYPES, Sink, TarWriter, portable_xattrs, read_padded
from jaula.storage.trees import walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.images.build.dockerignore import Dockerignore

_TAKEN = (REGULAR, DIRECTORY, SYMLINK, FIFO)


class ContextTar:
    """One archive. ``ignore`` says what stays out, None nothing."""

    def __init__(self, sink: Sink, ignore: Dockerignore | None = None) -> None:
        self._writer = TarWriter(sink)
        self._ignore = ignore
        self._links: dict[tuple[int, int], bytes] = {}
        self._hidden: dict[
            bytes, TarEntry
        ] = {}  # directories that come only with something in them

    def text(self, name: str, content: bytes) -> None:
        """A file that is on no disk."""
        self._writer.add(writer.new_entry(name, size=len(content)), [content])

    def finish(self) -> None:
        """End the archive."""
        self._writer.finish()

    def directory(self, path: str) -> None:
        """What a directory holds. Raises Failure for what cannot be read."""
        where = b""
        try:
            root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for where, folder, entries in walk(root):
                    entries[:] = [
                        (name, facts)
                        for name, facts in entries
                        if self._take(folder, name, facts, where + b"/" + name if where else name)
                    ]
            finally:
                os.close(root)
        except OSError as error:
            place = os.path.join(path, os.fsdecode(where), os.fsdecode(error.filename or ""))
            raise CliError(f"{place.rstrip('/')}: {(error.strerror or '').lower()}") from None

    def _take(self, folder: int, name: bytes, facts: os.stat_result, path: bytes) -> bool:
        """Write one entry, unless it stays out; whether what is below it is to be looked at."""
        directory = stat.S_ISDIR(facts.st_mode)
        if self._ignore is not None and self._ignore.excludes_path(os.fsdecode(path)):
            if not directory or not self._ignore.may_contain_exception(os.fsdecode(path)):
                return False
            self._hidden[path] = self._entry(facts, path, DIRECTORY)
            return True
        kind = TAR_TYPES.get(stat.S_IFMT(facts.st_mode))
        if kind not in _TAKEN:
            return False
        self._reveal(path)
        entry = self._entry(facts, path, kind)
        if kind != DIRECTORY and facts.st_nlink > 1:
            first = self._links.setdefault((facts.st_dev, facts.st_ino), path)
            if first != path:
                entry.type, entry.link = HARD_LINK, first
                self._writer.add(entry)
                return False
        if kind == SYMLINK:
            entry.link = os.readlink(name, dir_fd=folder)
        if kind == REGULAR:
            self._file(folder, name, entry)
        else:
            self._writer.add(entry)
        return directory

    def _file(self, folder: int, name: bytes, entry: TarEntry) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        reading = os.open(name, flags, dir_fd=folder)
        try:
            entry.xattrs = portable_xattrs(reading)
            entry.size = os.fstat(reading).st_size
            self._writer.add(entry, read_padded(reading, entry.size))
        finally:
            os.close(reading)

    def _reveal(self, path: bytes) -> None:
        """Write the directories above ``path`` that were held back, topmost first."""
        if not self._hidden:
            return
        found = []
        while b"/" in path:
            path = path.rpartition(b"/")[0]
            if (entry := self._hidden.pop(path, None)) is not None:
                found.append(entry)
        for entry in reversed(found):
            self._writer.add(entry)

    @staticmethod
    def _entry(facts: os.stat_result, path: bytes, kind: int) -> TarEntry:
        entry = TarEntry()
        entry.name, entry.type = path, kind
        entry.mode, entry.mtime = stat.S_IMODE(facts.st_mode), max(facts.st_mtime_ns, 0)
        return entry
