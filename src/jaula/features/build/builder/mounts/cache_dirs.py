"""The directories of ``RUN --mount=type=cache``, which outlive builds.

They are at ``<root>/build/caches/<digest>-<number>/data``; the number separates directories that
``sharing=private`` must not share. The digest is that of the client's key, the id of the cache and
its initial content. So no client reaches the cache of another one, and no id is used as a path.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaula.features.build.builder.local_directories import Identity, detach, identity_of, read_owner
from jaula.kernel.syncfs import write_durable
from jaula.storage.trees import open_directory, remove_with_prefix, size_on_disk
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.config import Paths
    from jaula.images.dockerfile.ast import Sharing

_NEW = "new-"  # prefix of an unfinished directory
_DATA = "data"
_ID = "id"
_OWNER = "owner"
_MAX_ID = 200  # characters


class CacheDir(NamedTuple):
    """One cache directory; ``modified`` is in seconds since 1970, ``size`` in bytes.

    ``owner`` is the client that made it, '' if an older engine has recorded none. ``identity``
    tells it from one that is made with its name later.
    """

    name: str
    id: str
    size: int
    modified: float
    in_use: bool
    owner: str
    identity: Identity


class CacheDirs:
    """All cache directories of an engine."""

    def __init__(self, paths: Paths) -> None:
        self._directory = paths.root / "build" / "caches"
        self._users: dict[str, int] = {}  # number of steps that use a directory, by its path
        self._released = asyncio.Condition()
        self._tasks = BackgroundTasks(logging.getLogger("jaula.build"))

    async def acquire(self, name: str, sharing: Sharing, held: ExitStack) -> str:
        """Return the path of a cache, which may not exist yet; it is in use until ``held`` closes.

        ``locked`` waits until no step uses it, ``private`` chooses one that no step uses.
        """
        number = 0
        async with self._released:
            while True:
                path = str(self._directory / f"{name}-{number}" / _DATA)
                if not self._users.get(path) or sharing == "shared":
                    break
                if sharing == "locked":
                    await self._released.wait()
                else:
                    number += 1
            self._users[path] = self._users.get(path, 0) + 1
        held.callback(self._release, path)
        return path

    def _release(self, path: str) -> None:
        left = self._users[path] - 1
        if left:
            self._users[path] = left
        else:
            del self._users[path]
        self._tasks.spawn(self._notify())

    async def _notify(self) -> None:
        async with self._released:
            self._released.notify_all()

    def create(
        self,
        path: str,
        *,
        mode: int,
        owner: tuple[int, int],
        client: str,
        fill: Callable[[int], None] | None,
    ) -> None:
        """Create the directory of a client with its initial content. Blocks."""
        top = Path(path).parent
        unfinished = self._directory / f"{_NEW}{os.urandom(8).hex()}"
        (unfinished / _DATA).mkdir(mode=0o700, parents=True)
        try:
            write_durable(unfinished / _OWNER, client.encode())
            with open_directory(unfinished / _DATA) as target:
                if fill is not None:
                    fill(target)
                os.fchown(target, *owner)
                os.fchmod(target, mode)
            os.rename(unfinished, top)
        except OSError:
            if not top.exists():  # another step created it first
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def write_id(self, path: str, id: str) -> None:
        """Store the id of a cache, for lists of caches."""
        file = Path(path).parent / _ID
        if not file.exists():
            file.write_text(id[:_MAX_ID], errors="replace")

    def sweep(self) -> None:
        """Remove directories that a crash left unfinished."""
        if self._directory.is_dir():
            remove_with_prefix(self._directory, _NEW)

    def list(self) -> list[CacheDir]:
        """Return all cache directories. Blocks."""
        entries = []
        for top in sorted(self._directory.glob("*-*")) if self._directory.is_dir() else ():
            data = top / _DATA
            if top.name.startswith(_NEW) or not data.is_dir():
                continue
            identity = identity_of(top)
            id = (top / _ID).read_text(errors="replace") if (top / _ID).exists() else ""
            with open_directory(data) as directory:
                size = size_on_disk(directory)
            in_use = bool(self._users.get(str(data)))
            owner = read_owner(top / _OWNER)
            entries.append(
                CacheDir(top.name, id, size, data.stat().st_mtime, in_use, owner, identity)
            )
        return entries

    def remove(self, name: str, identity: Identity) -> bool:
        """Remove a directory unless a step uses it. Return whether it was removed.

        One that has the name now, and not the identity, stays.
        """
        top = self._directory / name
        if self._users.get(str(top / _DATA)):
            return False
        unfinished = self._directory / f"{_NEW}{os.urandom(8).hex()}"
        if not detach(top, unfinished, identity):
            return False
        remove_with_prefix(self._directory, unfinished.name)
        return True
