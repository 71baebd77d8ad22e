"""The index of the chunks of all layers: ``chunks.db`` in the engine's directory.

It is made from the lists of the layers (:mod:`jaula.storage.erofs.chunks`), and only tells where a
chunk may be: its user compares the bytes. So the file is never written to the disk on purpose, a
row may be stale, and a damaged file is made again. The first use after a start compares its layers
with those on the disk.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from jaula.errors import CorruptState
from jaula.storage.erofs import chunks
from jaula.storage.erofs.chunks import Candidate, Chunk
from jaula.storage.trees import open_directory

Result = TypeVar("Result")

_log = logging.getLogger("jaula.storage")

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS layers (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS chunks (key BLOB NOT NULL, layer INTEGER NOT NULL,
    device INTEGER NOT NULL, offset INTEGER NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (key, layer)) WITHOUT ROWID;
COMMIT;
"""
_FIND = (
    "SELECT name, device, offset, size FROM chunks JOIN layers ON id = layer WHERE key = ? LIMIT 16"
)
_WAIT = 10.0  # seconds for the lock of another connection


class ChunkIndex:
    """The index of one directory of layers. The methods are thread-safe.

    An error of sqlite is logged. The layers stay whole without an index; they only share less.
    """

    def __init__(self, path: Path, layers: Path) -> None:
        self._path = path
        self._layers = layers
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def find(self, key: bytes) -> list[Candidate]:
        """Return places of chunks with a key."""
        return self._run(
            lambda database: [Candidate(*row) for row in database.execute(_FIND, (key,))], []
        )

    def add(self, layer: str) -> None:
        """Add the chunks of a layer, instead of those that the index has for its name."""
        self._run(lambda database: _replace(database, layer, self._list(layer)), None)

    def synchronize(self) -> None:
        """Remove the chunks of layers that were removed."""
        self._run(self._synchronize, None)

    def close(self) -> None:
        """Close the database. The next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _run(self, action: Callable[[sqlite3.Connection], Result], default: Result) -> Result:
        """Return the result of an action on the database, ``default`` after an error."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                return action(self._connection)
            except sqlite3.ProgrammingError:
                raise
            except (sqlite3.Error, OSError) as error:
                _log.warning("the index of chunks %s fails: %s", self._path, str(error))
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
                if isinstance(error, sqlite3.DatabaseError) and not isinstance(
                    error, sqlite3.OperationalError
                ):
                    self._delete()  # it is damaged; a full disk and a lock are operational errors
                return default

    def _delete(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    def _open(self) -> sqlite3.Connection:
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        database = sqlite3.connect(
            self._path, isolation_level=None, timeout=_WAIT, check_same_thread=False
        )
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=OFF")
            database.executescript(_SCHEMA)
            self._synchronize(database)
        except BaseException:
            database.close()
            raise
        return database

    def _synchronize(self, database: sqlite3.Connection) -> None:
        """Make the layers of the index those on the disk."""
        known = {name for (name,) in database.execute("SELECT name FROM layers")}
        stored = {
            name
            for name in os.listdir(self._layers)
            if len(name) == 64 and (self._layers / name / chunks.LIST).exists()
        }
        for name in known - stored:
            _replace(database, name, None)
        for name in sorted(stored - known):
            _replace(database, name, self._list(name))

    def _list(self, layer: str) -> Iterable[Chunk]:
        """Return the chunks of a layer, none if it was removed or its list is damaged."""
        try:
            with open_directory(self._layers / layer) as directory:
                return chunks.read_list(directory)
        except FileNotFoundError:
            return ()
        except CorruptState as error:
            _log.warning("layer %s: %s", layer, error.message)
            return ()


class StoredChunks:
    """Reads chunks of layers by digest, for a process that does not change the index."""

    def __init__(self, path: Path, layers: Path) -> None:
        self._path = path
        self._layers = layers
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._failed = False

    def read(self, digest: str, size: int) -> bytes | None:
        """Return the content of a chunk with a digest ``sha256:HEX``, None if no layer has it.

        The content is compared with the digest. After an error of the index no chunk is found.
        """
        expected = bytes.fromhex(digest.removeprefix("sha256:"))
        for each in self._find(chunks.key(expected)):
            if each.size != size:
                continue
            try:
                blob = f"{self._layers}/{each.layer}/{chunks.blob_name(each.device)}"
                descriptor = os.open(blob, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:  # the layer was removed
                continue
            try:
                content = os.pread(descriptor, size, each.offset)
            except OSError as error:
                _log.warning("cannot read a chunk of layer %s: %s", each.layer, error.strerror)
                continue
            finally:
                os.close(descriptor)
            import hashlib  # with OpenSSL, which is faster for contents

            if hashlib.sha256(content).digest() == expected:
                return content
        return None

    def _find(self, key: bytes) -> list[Candidate]:
        with self._lock:
            try:
                if self._failed or (self._connection is None and not self._path.exists()):
                    return []
                if self._connection is None:
                    self._connection = sqlite3.connect(
                        f"{self._path.as_uri()}?mode=ro",
                        uri=True,
                        isolation_level=None,
                        check_same_thread=False,
                    )
                return [Candidate(*row) for row in self._connection.execute(_FIND, (key,))]
            except sqlite3.DatabaseError as error:
                _log.warning("the index of chunks %s fails: %s", self._path, str(error))
                self._failed = True
                return []


def _replace(database: sqlite3.Connection, layer: str, new: Iterable[Chunk] | None) -> None:
    """Replace the rows of a layer; None removes it."""
    database.execute("BEGIN IMMEDIATE")
    try:
        with closing(database.execute("SELECT id FROM layers WHERE name = ?", (layer,))) as rows:
            row = rows.fetchone()
        if row is not None:
            database.execute("DELETE FROM chunks WHERE layer = ?", row)
            database.execute("DELETE FROM layers WHERE id = ?", row)
        if new is not None:
            number = database.execute("INSERT INTO layers (name) VALUES (?)", (layer,)).lastrowid
            database.executemany(
                "INSERT OR IGNORE INTO chunks VALUES (?, ?, ?, ?, ?)",
                ((each.key, number, each.device, each.offset, each.size) for each in new),
            )
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise
