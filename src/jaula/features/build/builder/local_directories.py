"""The directories of clients as builds received them last, from which the next build is filled.

They are at ``<root>/build/contexts/<digest>/data``. The digest is that of the client's key, the key
that the client chose for the directory, and the name of the directory. So no client gets a file of
another one. A build receives into a directory of its own, in which it links unchanged files, and
which replaces the former one when the build has ended. So no directory here ever changes while a
build reads it.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaula.kernel.syncfs import write_durable
from jaula.sha256 import sha256
from jaula.storage.trees import open_directory, remove_with_prefix, size_on_disk

if TYPE_CHECKING:
    from jaula.config import Paths

_NEW, _OLD = "new-", "old-"  # prefixes of a directory that is complete, and of one to be removed
_DATA, _ID, _OWNER = "data", "id", "owner"
_MAX_ID = 200  # characters
_MAX_KEPT = 32  # directories of all clients


Identity = tuple[int, int]
"""Inode and time of change, in ns, of a directory whose entries do not change. A file system gives
the inode of a removed directory to the next one."""


class LocalDirectory(NamedTuple):
    """One directory; ``used`` is in seconds since 1970, ``size`` in bytes.

    ``owner`` is the client, '' if an older engine has recorded none. ``identity`` tells it from one
    that a build puts in its place later.
    """

    name: str
    id: str
    size: int
    used: float
    owner: str
    identity: Identity


class LocalDirectoryStore:
    """All directories of an engine. The methods block, and are safe in any thread."""

    def __init__(self, paths: Paths) -> None:
        self._directory = paths.root / "build" / "contexts"

    def previous(self, owner: str, shared_key: str, name: str) -> str:
        """Return the path of a client's directory, which may not exist; '' without a key."""
        if not shared_key:
            return ""
        return str(self._directory / _digest(owner, shared_key, name) / _DATA)

    def keep(self, owner: str, shared_key: str, name: str, path: str) -> None:
        """Move a directory that was received completely here, in place of the former one."""
        if not shared_key:
            return
        target = self._directory / _digest(owner, shared_key, name)
        new = self._directory / f"{_NEW}{os.urandom(8).hex()}"
        new.mkdir(mode=0o700, parents=True)
        with suppress(FileNotFoundError):  # the end of the engine removed it
            os.rename(path, new / _DATA)
            (new / _ID).write_text(name[:_MAX_ID], errors="replace")
            write_durable(new / _OWNER, owner.encode())
            self._discard(target)
            with suppress(OSError):  # another build was first
                os.rename(new, target)
        shutil.rmtree(new, ignore_errors=True)
        self._remove_oldest()

    def _discard(self, top: Path, identity: Identity | None = None) -> bool:
        """Remove a directory, with ``identity`` only this one; return whether it existed."""
        old = self._directory / f"{_OLD}{os.urandom(8).hex()}"
        if not detach(top, old, identity):
            return False
        remove_with_prefix(self._directory, old.name)
        return True

    def _remove_oldest(self) -> None:
        tops = [top for top in self._tops() if not top.name.startswith((_NEW, _OLD))]
        tops.sort(key=_modified, reverse=True)
        for top in tops[_MAX_KEPT:]:
            self._discard(top)

    def _tops(self) -> list[Path]:
        try:
            return list(self._directory.iterdir())
        except FileNotFoundError:
            return []

    def sweep(self) -> None:
        """Remove what a killed engine left unfinished."""
        if self._directory.is_dir():
            remove_with_prefix(self._directory, _NEW, _OLD)

    def list(self) -> list[LocalDirectory]:
        """Return all directories."""
        entries = []
        for top in self._tops():
            if top.name.startswith((_NEW, _OLD)):
                continue
            try:
                identity = identity_of(top)
                with open_directory(top / _DATA) as data:
                    size = size_on_disk(data)
                id = (top / _ID).read_text(errors="replace")
                owner = read_owner(top / _OWNER)
                used = identity[1] / 1e9
                entries.append(LocalDirectory(top.name, id, size, used, owner, identity))
            except FileNotFoundError:
                continue  # a build has replaced it
        return entries

    def remove(self, name: str, identity: Identity) -> bool:
        """Remove a directory; return whether it existed.

        One that a build has put in its place meanwhile stays.
        """
        return self._discard(self._directory / name, identity)


def identity_of(top: Path) -> Identity:
    """Return the identity of a directory."""
    status = top.stat()
    return status.st_ino, status.st_mtime_ns


def detach(top: Path, hidden: Path, identity: Identity | None) -> bool:
    """Rename a directory if it exists and, unless that is None, has the identity.

    Return whether it was renamed. The identity is compared after the rename: the name may be given
    to another directory at any time.
    """
    try:
        os.rename(top, hidden)
    except FileNotFoundError:
        return False
    if identity is None or identity_of(hidden) == identity:
        return True
    with suppress(OSError):  # a newer one has the name already
        os.rename(hidden, top)
        return False
    shutil.rmtree(hidden)
    return False


def read_owner(file: Path) -> str:
    """Return the owner in a file, '' if there is none."""
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def _digest(owner: str, shared_key: str, name: str) -> str:
    return sha256("\0".join((owner, shared_key, name)).encode()).hexdigest()


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
