"""Limit an archive that is being unpacked: free disk space, modes, cancellation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaula.features.build.files.source_archives import Archive
from jaula.storage import free_space
from jaula.storage.tar.tar_entry import DIRECTORY, REGULAR, SYMLINK, TarEntry

if TYPE_CHECKING:
    from jaula.features.build.files.chmod import Change
    from jaula.images.registry.cancellation import Cancellation

_CHECK_INTERVAL = 32 << 20  # bytes written between two checks of the free space


class QuotaStream:
    """``archive``, unpacked on the file system of the descriptor ``directory``."""

    def __init__(
        self,
        archive: Archive,
        directory: int,
        mode: Change | None = None,
        cancel: Cancellation | None = None,
    ) -> None:
        self._archive = archive
        self._directory = directory
        self._mode = mode
        self._cancel = cancel
        self._unchecked = 0

    def __iter__(self) -> Iterator[TarEntry]:
        for entry in self._archive:
            if self._cancel is not None:
                self._cancel.check()
            if entry.type == REGULAR:
                self._check_space(entry.size)
            if self._mode is not None and entry.type != SYMLINK:
                entry.mode = self._mode(entry.mode, entry.type == DIRECTORY)
            yield entry

    def data(self) -> Iterator[memoryview]:
        return self._archive.data()

    def _check_space(self, size: int) -> None:
        self._unchecked -= size + 4096
        if self._unchecked < 0:
            free_space.check(self._directory, size)
            self._unchecked = _CHECK_INTERVAL
