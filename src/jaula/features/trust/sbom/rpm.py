"""Packages of rpm: its databases ``rpmdb.sqlite``, ``Packages.db`` and ``Packages``.

Sources: rpm's ``docs/manual/format_header.md``, ``tags.md`` and ``lib/backend/dbi.c``; sqlite.org,
"Defense Against The Dark Arts". A header is a table of tags in front of a store of values. The
SQLite database is read here, the others by :mod:`.rpm_ndb` and :mod:`.rpm_bdb`.

If there are several databases, the first kind in this order counts, as when rpm searches for one.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from time import monotonic

from jaula.errors import InvalidRequest
from jaula.features.trust.sbom import rpm_bdb, rpm_ndb
from jaula.features.trust.sbom.package import Package, text
from jaula.features.trust.sbom.sbom_rootfs import RootfsReader
from jaula.features.trust.sbom.sqlite_wal import with_log, without_log

_DIRECTORIES = ("usr/lib/sysimage/rpm", "var/lib/rpm")
_LIMIT = 512 << 20  # bytes
_TIMEOUT = 30  # seconds for all queries
_MAX_TAGS = 4096
_NAME, _VERSION, _RELEASE, _EPOCH, _VENDOR = 1000, 1001, 1002, 1003, 1011
_LICENCE, _URL, _ARCH, _SOURCE = 1014, 1020, 1022, 1044
_INT32, _STRING, _TRANSLATED = 4, 6, 9
_KEY = "gpg-pubkey"  # a signing key, which rpm stores like a package

Header = dict[int, "str | int"]


def packages(rootfs: RootfsReader) -> Iterator[Package]:
    """Yield the packages in the database."""
    for directory in _DIRECTORIES:
        path = f"{directory}/rpmdb.sqlite"
        data = rootfs.read(path, _LIMIT)
        if data:
            log = rootfs.read(f"{path}-wal", _LIMIT) or b""
            yield from _parse(_blobs(data, log, path), path)
            return
    for name, blobs in (("Packages.db", rpm_ndb.blobs), ("Packages", rpm_bdb.blobs)):
        for directory in _DIRECTORIES:
            path = f"{directory}/{name}"
            data = rootfs.read(path, _LIMIT)
            if data:
                yield from _parse(blobs(data, path), path)
                return


def _parse(blobs: Iterator[bytes], path: str) -> Iterator[Package]:
    for blob in blobs:
        try:
            header = read_header(blob)
        except (struct.error, IndexError) as error:
            raise InvalidRequest(f"{path} is damaged: {error}") from None
        name, version = text(header.get(_NAME)), text(header.get(_VERSION))
        if not name or not version or name == _KEY:
            continue
        release = text(header.get(_RELEASE))
        epoch = header.get(_EPOCH)
        yield Package(
            kind="rpm",
            name=name,
            version=f"{version}-{release}" if release else version,
            architecture=text(header.get(_ARCH)),
            epoch=str(epoch) if isinstance(epoch, int) and epoch else "",
            source=text(header.get(_SOURCE)),
            licence=text(header.get(_LICENCE)),
            supplier=text(header.get(_VENDOR)),
            homepage=text(header.get(_URL)),
            path=path,
        )


def _blobs(data: bytes, log: bytes, path: str) -> Iterator[bytes]:
    """Yield the headers of a SQLite database, in order. Refuse a view in path of the table.

    ``log`` is the write-ahead log, which may contain the last changes. SQLite reads a copy in
    memory, so it opens no file.
    """
    if log:
        data = with_log(data, log)
    database = sqlite3.connect(":memory:", isolation_level=None)
    ends = monotonic() + _TIMEOUT
    try:
        database.deserialize(without_log(data))
        database.set_progress_handler(lambda: monotonic() > ends, 10_000)
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 64 << 20)
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("PRAGMA cell_size_check = ON")
        database.execute("PRAGMA temp_store = MEMORY")
        kind = database.execute(
            "SELECT type, sql FROM sqlite_schema WHERE name = 'Packages'"
        ).fetchone()
        if kind is None or kind[0] != "table" or "virtual" in str(kind[1]).lower():
            raise InvalidRequest(f"{path} has no table Packages")
        for (blob,) in database.execute("SELECT blob FROM Packages ORDER BY hnum"):
            if not isinstance(blob, bytes):
                raise InvalidRequest(f"{path} is damaged: a header is not a blob")
            yield blob
    except (sqlite3.Error, OverflowError) as error:
        raise InvalidRequest(f"{path} is damaged: {error}") from None
    finally:
        database.close()


def read_header(blob: bytes) -> Header:
    """Return the values of a header's tags.

    :raises struct.error: or IndexError, if the header is damaged.
    """
    tags, size = struct.unpack_from(">II", blob)
    start = 8 + tags * 16
    if tags > _MAX_TAGS or start + size > len(blob):
        raise IndexError("a header is longer than its blob")
    store = memoryview(blob)[start : start + size]
    header: Header = {}
    for number in range(tags):
        tag, kind, offset, count = struct.unpack_from(">IIiI", blob, 8 + number * 16)
        if tag in header or not count or not 0 <= offset < size:
            continue
        if kind == _INT32:
            header[tag] = struct.unpack_from(">I", store, offset)[0]
        elif kind in (_STRING, _TRANSLATED):
            value = bytes(store[offset : offset + 4096])
            header[tag] = value.partition(b"\0")[0].decode("utf-8", "replace")
    return header
