"""The engine's database: records as JSON documents in sqlite, one commit for each change.

WAL with ``synchronous=NORMAL`` (sqlite.org/wal.html): a process crash loses nothing. A power
failure may lose the changes since the last :meth:`Database.sync`, but never damages the file.
Facts about a failed fsync: the kernel reports a lost write once, and the page counts as clean
afterwards, so a later fsync succeeds without having written it. Some file systems keep what was to
be written in the page cache (ext4), others read the disk again (xfs, btrfs). So after a failure the
changes are compared with what the log has now, and a checkpoint writes them to the database file.

Unreadable data is reported as
:class:`~jaula.errors.CorruptState` and never overwritten: the operator decides what to do.

The schema is the sequence of :data:`MIGRATIONS`. A released migration is never edited.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from jaula.errors import FREE_SPACE, CorruptState, JaulaError, Unavailable, resource_error
from jaula.sha256 import sha256
from jaula.spec.run_options import DECLARED

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE containers (id TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE settings (id TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID",
    ),
    ("CREATE TABLE networks (id TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID",),
    ("CREATE TABLE build_steps (id TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID",),
    ("CREATE TABLE secrets (id TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID",),
    (),  # owners of build steps and of the names of images, which an older engine would drop
    (),  # ids of the networks of containers
    (),  # the state before a rollback
)
# An option that declares a member of the request names the schema that has it.
MIGRATIONS += ((),) * (max((option.schema for option in DECLARED), default=0) - len(MIGRATIONS))

Document = TypeVar("Document", bound=msgspec.Struct)

_log = logging.getLogger("jaula.state")

_PUT = {
    "containers": "INSERT INTO containers (id, document) VALUES (?, ?)"
    " ON CONFLICT (id) DO UPDATE SET document = excluded.document",
    "settings": "INSERT INTO settings (id, document) VALUES (?, ?)"
    " ON CONFLICT (id) DO UPDATE SET document = excluded.document",
    "networks": "INSERT INTO networks (id, document) VALUES (?, ?)"
    " ON CONFLICT (id) DO UPDATE SET document = excluded.document",
    "build_steps": "INSERT INTO build_steps (id, document) VALUES (?, ?)"
    " ON CONFLICT (id) DO UPDATE SET document = excluded.document",
    "secrets": "INSERT INTO secrets (id, document) VALUES (?, ?)"
    " ON CONFLICT (id) DO UPDATE SET document = excluded.document",
}
_DELETE = {
    "containers": "DELETE FROM containers WHERE id = ?",
    "settings": "DELETE FROM settings WHERE id = ?",
    "networks": "DELETE FROM networks WHERE id = ?",
    "build_steps": "DELETE FROM build_steps WHERE id = ?",
    "secrets": "DELETE FROM secrets WHERE id = ?",
}
_GET = {
    "containers": "SELECT document FROM containers WHERE id = ?",
    "settings": "SELECT document FROM settings WHERE id = ?",
    "networks": "SELECT document FROM networks WHERE id = ?",
    "build_steps": "SELECT document FROM build_steps WHERE id = ?",
    "secrets": "SELECT document FROM secrets WHERE id = ?",
}
_SIZES = {
    "containers": "SELECT id, length(document) FROM containers",
    "networks": "SELECT id, length(document) FROM networks",
    "secrets": "SELECT id, length(document) FROM secrets",
}
_ALL = {
    "containers": "SELECT id, document FROM containers",
    "settings": "SELECT id, document FROM settings",
    "networks": "SELECT id, document FROM networks",
    "build_steps": "SELECT id, document FROM build_steps",
    "secrets": "SELECT id, document FROM secrets",
}
_LOCK_TIMEOUT = 5.0  # seconds that a checkpoint waits for the engine's own transaction
_CHECK_LIMIT = 10_000  # changes whose digests are kept for the comparison
_DISK_ERRORS = ("disk is full", "disk I/O error", "readonly database", "unable to open")


class Database:
    """One open database, for one thread of one engine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fsync_failed = False
        self._lock = threading.RLock()  # of the changes below
        self._unsynced: dict[tuple[str, str], bytes] = {}  # digest, empty if deleted
        self._log_fd = self._directory_fd = -1
        self.changes = 0
        """The number of durable changes since the file was opened."""
        try:
            path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            os.close(descriptor)
        except OSError as error:
            raise Unavailable(
                f"cannot open the engine's database {path}: {error.strerror}",
                hint="the root directory must be writable by the engine",
            ) from error
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
        except sqlite3.Error as error:
            raise self._translate(error) from error
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._check()
            self._migrate()
            # Held from now on: a sync needs no free descriptor, and misses no failed write.
            self._log_fd = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            self._directory_fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except BaseException as error:
            self._close_files()
            self._db.close()
            if isinstance(error, sqlite3.Error):
                raise self._translate(error) from error
            if isinstance(error, OSError):
                raise self._sync_error(error) from error
            raise

    def _check(self) -> None:
        rows = self._db.execute("PRAGMA quick_check(1)").fetchall()
        if rows != [("ok",)]:
            raise self._corrupt_error(str(rows[0][0]) if rows else "no answer")

    def _migrate(self) -> None:
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > len(MIGRATIONS):
            raise CorruptState(
                f"the database {self._path} has version {version}, this engine supports"
                f" {len(MIGRATIONS)}",
                hint="a newer jaula wrote it; use that version",
            )
        for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for statement in statements:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {number}")
            except sqlite3.Error:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def put(self, table: str, key: str, document: msgspec.Struct, *, durable: bool = True) -> int:
        """Write one record and return its bytes.

        A crash of the engine keeps it; :meth:`sync` writes it to the disk. A change that is not
        ``durable`` means nothing after a power failure: no one waits for it.
        """
        data = msgspec.json.encode(document)
        self.put_raw(table, key, data, durable=durable)
        return len(data)

    def put_raw(self, table: str, key: str, data: bytes, *, durable: bool = True) -> None:
        """Write one record that is already encoded."""
        self._change(_PUT[table], (key, data), table, data, durable=durable)

    def delete(self, table: str, key: str, *, durable: bool = True) -> None:
        """Delete one record; an absent record is not an error."""
        self._change(_DELETE[table], (key,), table, None, durable=durable)

    def _change(
        self,
        statement: str,
        values: tuple[str | bytes, ...],
        table: str,
        data: bytes | None,
        *,
        durable: bool,
    ) -> None:
        row = table, str(values[0])
        with self._lock:  # a comparison sees a change and its digest together
            try:
                self._db.execute(statement, values)
            except sqlite3.Error as error:
                raise self._translate(error) from error
            if len(self._unsynced) >= _CHECK_LIMIT:
                self._unsynced.clear()
            self._unsynced[row] = _digest(data)
        self.changes += durable

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all changes of the block or none. The block must not wait."""
        with self._lock:
            before = dict(self._unsynced)
            try:
                self._db.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise self._translate(error) from error
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                self._unsynced = before
                if isinstance(error, sqlite3.Error):
                    raise self._translate(error) from error
                raise

    def sync(self) -> None:
        """Write the changes made so far to the disk. Safe in any thread, one call at a time.

        sqlite synchronizes the write-ahead log itself before a checkpoint, so the log is all there
        is to do. A failure is over with the first call that can write.

        :raises Unavailable: when the disk does not take them.
        :raises CorruptState: when the disk has lost changes that this process made.
        """
        with self._lock:
            written = dict(self._unsynced)
        try:
            if self._fsync_failed:
                self._write_again()
            os.fsync(self._log_fd)
            if self._directory_fd >= 0:
                os.fsync(self._directory_fd)  # has new files
                os.close(self._directory_fd)
                self._directory_fd = -1
        except OSError as error:
            self._fsync_failed = True
            raise self._sync_error(error) from error
        except sqlite3.Error as error:
            raise self._translate(error) from error
        self._fsync_failed = False
        with self._lock:
            for row, digest in written.items():
                if self._unsynced.get(row) == digest:
                    del self._unsynced[row]

    def _write_again(self) -> None:
        """Write what a failed fsync has lost: copy the log to the database file and empty it."""
        with contextlib.closing(
            sqlite3.connect(self._path, isolation_level=None, timeout=_LOCK_TIMEOUT)
        ) as other:
            other.execute("PRAGMA synchronous=FULL")
            if other.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]:
                raise self._lost("its pages are damaged")
            with self._lock:
                for (table, key), digest in self._unsynced.items():
                    row = other.execute(_GET[table], (key,)).fetchone()
                    if _digest(None if row is None else row[0]) != digest:
                        raise self._lost(f"record {key} of {table} is not the newest")
            busy = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if busy:
                raise OSError(errno.EBUSY, "a transaction is in progress")

    def _lost(self, what: str) -> CorruptState:
        return CorruptState(
            f"the disk has lost changes of the engine's database {self._path}: {what}",
            hint="repair the disk, then restart the engine, which goes on with what the disk has",
        )

    def _sync_error(self, error: OSError) -> Unavailable:
        what = f"cannot write the engine's database {self._path} to the disk"
        return resource_error(error, what) or Unavailable(
            f"{what}: {error.strerror}",
            hint="what was asked may be done, but a power failure could undo it; check the disk and"
            " the kernel's log, then try again",
        )

    def get(self, table: str, key: str, type_: type[Document]) -> Document | None:
        """Return one record, or None."""
        try:
            row = self._db.execute(_GET[table], (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._translate(error) from error
        return None if row is None else self._decode(table, key, row[0], type_)

    def all(self, table: str, type_: type[Document]) -> Iterator[tuple[str, Document]]:
        """Yield every record of a table with its key."""
        try:
            rows = self._db.execute(_ALL[table]).fetchall()
        except sqlite3.Error as error:
            raise self._translate(error) from error
        for key, data in rows:
            yield key, self._decode(table, key, data, type_)

    def sizes(self, table: str) -> dict[str, int]:
        """Return the bytes of every record of a table, by its key."""
        try:
            return dict(self._db.execute(_SIZES[table]))
        except sqlite3.Error as error:
            raise self._translate(error) from error

    def _decode(self, table: str, key: str, data: bytes, type_: type[Document]) -> Document:
        try:
            return msgspec.json.decode(data, type=type_)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._corrupt_error(f"record {key} of {table}: {error}") from error

    def _corrupt_error(self, what: str) -> CorruptState:
        return CorruptState(
            f"the engine's database {self._path} is damaged: {what}",
            hint="nothing was changed; restore a backup, or move the file away to start with an"
            " empty one (containers are then unknown, images and volumes are kept)",
        )

    def _translate(self, error: sqlite3.Error) -> JaulaError:
        text = str(error)
        if any(part in text for part in _DISK_ERRORS):
            other = "check free space and permissions of the root directory"
            return Unavailable(
                f"cannot write the engine's database {self._path}: {text}",
                hint=FREE_SPACE if "disk is full" in text else other,
            )
        if "locked" in text:
            return Unavailable(
                f"the engine's database {self._path} is locked",
                hint="another engine uses this root directory",
            )
        return self._corrupt_error(text)

    def close(self) -> None:
        """Write the records of the write-ahead log to the database, and close both.

        The empty log and its index remain: the next engine needs these files, and a full file
        system has no inodes for new ones. SQLite unlinks them unless the last connection is
        read-only.
        """
        with contextlib.ExitStack() as connections:
            connections.callback(self._close_files)
            try:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                reader = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)
                connections.callback(reader.close)
                reader.execute("PRAGMA user_version").fetchone()  # opens the log
            except sqlite3.Error as error:  # the log has every record until the next checkpoint
                _log.warning("%s", self._translate(error))
            connections.callback(self._db.close)

    def _close_files(self) -> None:
        for descriptor in (self._log_fd, self._directory_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._log_fd = self._directory_fd = -1


def _digest(data: bytes | None) -> bytes:
    return b"" if data is None else sha256(data).digest()
