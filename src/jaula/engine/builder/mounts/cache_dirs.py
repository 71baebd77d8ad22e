"""The directories of ``RUN --mount=type=cache``: kept between builds, below the root directory.

``<root>/build/caches/<digest>-<number>/data``; the number tells apart what ``sharing=private`` must
not share. A directory's name is a digest of who builds, the cache's id and what it began with, so
nobody gets at another's, and no id is a path.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from jaula.storage.trees import open_directory, remove_with_prefix, size_on_disk
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.config import Paths
    from jaula.images.build.dockerfile.ast import Sharing

_NEW = "new-"
_DATA = "data"
_ID = "id"
_SHOWN = 200  # characters of an id


class CacheDirs:
    """All caches of an engine."""

    def __init__(self, paths: Paths) -> None:
        self._directory = paths.root / "build" / "caches"
        self._users: dict[str, int] = {}  # steps that have a directory, by its path
        self._free = asyncio.Condition()
        self._tasks = BackgroundTasks(logging.getLogger("jaula.build"))

    async def take(self, name: str, sharing: Sharing, held: ExitStack, build: str) -> str:
        """The path of a cache's data, which may not be there yet; in use until ``held`` closes.

        ``locked`` waits until nobody has it, ``private`` takes one that nobody has.
        """
        number = 0
        async with self._free:
            while True:
                path = str(self._directory / f"{name}-{number}" / _DATA)
                if not self._users.get(path) or sharing == "shared":
                    break
                if sharing == "locked":
                    await self._free.wait()
                else:
                    number += 1
            self._users[path] = self._users.get(path, 0) + 1
        held.callback(self._let_go, path)
        return path

    def _let_go(self, path: str) -> None:
        left = self._users[path] - 1
        if left:
            self._users[path] = left
        else:
            del self._users[path]
        self._tasks.spawn(self._tell())

    async def _tell(self) -> None:
        async with self._free:
            self._free.notify_all()

    def make(
        self,
        path: str,
        *,
        mode: int,
        owner: tuple[int, int],
        fill: Callable[[int], None] | None,
    ) -> None:
        """Make the directory, with what it begins with; in a thread."""
        top = Path(path).parent
        half = self._directory / f"{_NEW}{os.urandom(8).hex()}"
        (half / _DATA).mkdir(mode=0o700, parents=True)
        try:
            with open_directory(half / _DATA) as target:
                if fill is not None:
                    fill(target)
                os.fchown(target, *owner)
                os.fchmod(target, mode)
            os.rename(half, top)
        except OSError:
            if not top.exists():  # a step beside it was faster
                raise
        finally:
            shutil.rmtree(half, ignore_errors=True)

    def note(self, path: str, id: str) -> None:
        """Write down what people call a cache."""
        place = Path(path).parent / _ID
        if not place.exists():
            place.write_text(id[:_SHOWN], errors="replace")

    def sweep(self) -> None:
        """Remove what a crash left half-made."""
        if self._directory.is_dir():
            remove_with_prefix(self._directory, _NEW)

    def list(self) -> list[tuple[str, str, int, float, bool]]:
        """Name, id, bytes, time of the last change, whether a step has it."""
        found = []
        for top in sorted(self._directory.glob("*-*")) if self._directory.is_dir() else ():
            data = top / _DATA
            if top.name.startswith(_NEW) or not data.is_dir():
                continue
            id = (top / _ID).read_text(errors="replace") if (top / _ID).exists() else ""
            with open_directory(data) as directory:
                size = size_on_disk(directory)
            used = bool(self._users.get(str(data)))
            found.append((top.name, id, size, data.stat().st_mtime, used))
        return found

    def remove(self, name: str) -> bool:
        """Remove one that no step has; whether it is gone."""
        top = self._directory / name
        if self._users.get(str(top / _DATA)):
            return False
        half = self._directory / f"{_NEW}{os.urandom(8).hex()}"
        os.rename(top, half)
        remove_with_prefix(self._directory, half.name)
        return True
