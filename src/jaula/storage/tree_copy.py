"""Copy a tree that programs change: most of it while they run, the rest while they are stopped.

:meth:`TreeCopy.begin` copies everything, and :meth:`TreeCopy.finish` what has changed since. A file
is skipped if its fingerprint is the same, and if its ctime is
older than the begin. Every change of content or metadata sets ctime, so only the other files need a
second look.

Facts about ctime: a store to a shared mapping sets it when the page becomes dirty, not again until
the page was written back. So the file system is written back first (syncfs(2)), and what is dirtied
afterwards has a ctime that counts as new. A tree on a file system that may not set it, such as
tmpfs, is copied at the end only (:func:`jaula.storage.filesystem_type.dates_all_writes`). The clock
of ctime advances in ticks of some milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from jaula.kernel.syncfs import sync_file_systems
from jaula.storage.filesystem_type import dates_all_writes
from jaula.storage.trees import (
    RECENT,
    Fingerprint,
    copy_entry,
    copy_metadata,
    open_directory,
    open_subdirectory,
    remove_tree,
    walk,
)


class TreeCopy:
    """One copy of the directory ``source`` to ``target``, which does not exist."""

    def __init__(self, source: str, target: Path) -> None:
        self.target = target
        self._source = source
        self._states: dict[bytes, Fingerprint] = {}
        self._links: dict[int, bytes] = {}  # names in the copy by inode of the source

    def begin(self) -> None:
        """Copy what programs do not change meanwhile. They may run.

        :raises OSError: when the disk is full.
        """
        self.target.mkdir(mode=0o700)
        if not dates_all_writes(Path(self._source)):
            return
        begun = time.time_ns() - RECENT
        sync_file_systems(Path(self._source))
        with open_directory(self._source) as source, open_directory(self.target) as target:
            for path, directory, entries in walk(source):
                with _subdirectory(target, path) as copy:
                    for name, status in entries:
                        full = path + b"/" + name if path else name
                        if stat.S_ISDIR(status.st_mode):
                            os.mkdir(name, 0o700, dir_fd=copy)
                        elif status.st_ctime_ns < begun and status.st_nlink == 1:
                            self._copy_quiet(directory, copy, name, full, status)

    def _copy_quiet(
        self, directory: int, copy: int, name: bytes, full: bytes, status: os.stat_result
    ) -> None:
        """Copy a file that has not changed for a while; forget it if it changes meanwhile."""
        try:
            copy_entry(directory, copy, name, status, limit=status.st_size)
            now = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            now = None
        if now is not None and Fingerprint.of(now) == Fingerprint.of(status):
            self._states[full] = Fingerprint.of(status)
        else:
            remove_tree(copy, name)

    def finish(self) -> None:
        """Make the copy equal to the source, which no program changes any more.

        :raises OSError: when the disk is full.
        """
        with open_directory(self._source) as source, open_directory(self.target) as target:
            for path, directory, entries in walk(source):
                with _subdirectory(target, path) as copy:
                    self._finish_directory(target, path, directory, copy, entries)
            for path, directory, _ in walk(source):  # last: an entry changes a directory's times
                with _subdirectory(target, path) as copy:
                    copy_metadata(directory, copy)

    def _finish_directory(
        self,
        target: int,
        path: bytes,
        directory: int,
        copy: int,
        entries: list[tuple[bytes, os.stat_result]],
    ) -> None:
        present = {name for name, _ in entries}
        for extra in set(map(os.fsencode, os.listdir(copy))) - present:
            remove_tree(copy, extra)
        for name, status in entries:
            full = path + b"/" + name if path else name
            if self._states.get(full) == Fingerprint.of(status):
                continue
            if stat.S_ISDIR(status.st_mode) and _is_directory(copy, name):
                continue
            remove_tree(copy, name)
            first = self._links.get(status.st_ino)
            if first is not None:
                os.link(first, name, src_dir_fd=target, dst_dir_fd=copy, follow_symlinks=False)
                continue
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                self._links[status.st_ino] = full
            copy_entry(directory, copy, name, status)


@contextlib.contextmanager
def _subdirectory(target: int, path: bytes) -> Iterator[int]:
    descriptor = open_subdirectory(target, path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_directory(parent: int, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
