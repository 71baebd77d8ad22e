"""Secrets and configs of one engine: named pieces of data for containers.

Both are stored encrypted in the database, and containers refer to them by id. They differ in who
can read the content: that of a secret only the containers that have it.

Names and sizes are those of swarmkit's ``api/validation``. So are the error texts, which clients
print.
"""

from __future__ import annotations

import re
import string
import time
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from jaula.caller_quota import OwnedSizes
from jaula.engine.authz.request_ceilings import Share
from jaula.errors import Conflict, InvalidRequest, NotFound
from jaula.features.secrets.encryption import SecretEncryption
from jaula.state.database import Database

if TYPE_CHECKING:
    from jaula.engine.engine import Engine
    from jaula.engine.model.services import Services

TABLE = "secrets"
_NAME = re.compile(r"[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?", re.ASCII)
_MAX_NAME = 64  # characters
_LETTERS = string.ascii_lowercase + string.digits


class SecretKind(StrEnum):
    """The kind of a record."""

    SECRET = "secret"
    CONFIG = "config"


LIMITS = {SecretKind.SECRET: 500 * 1024, SecretKind.CONFIG: 1000 * 1024}
"""Maximum sizes in bytes."""


class SecretRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One secret or config; times in nanoseconds of Unix time, ``index`` counts changes."""

    id: str
    kind: SecretKind
    name: str
    sealed: bytes
    owner: str
    created: int
    updated: int
    index: int = 1
    labels: dict[str, str] = {}

    @property
    def about(self) -> str:
        """Return the associated data to which the encryption is bound."""
        return f"{self.kind} {self.id} {self.name}"


def secret_store(services: Services) -> SecretStore:
    """Return the secrets and configs of an engine.

    :raises CorruptState: when one cannot be read.
    """
    store = SecretStore(services.database, SecretEncryption(services.config.paths.root))
    store.load()
    return store


async def load(engine: Engine) -> None:
    """Read the secrets of an engine that starts, in its event loop.

    :raises CorruptState: when one cannot be read.
    """
    engine.services.service(secret_store)


def owned(services: Services, share: Share, owner: str) -> int:
    """Return how many secrets and configs an owner has, or the bytes of their records."""
    sizes = services.service(secret_store).sizes
    if share is Share.SECRETS:
        return sizes.count(owner)
    return sizes.size(owner) if share is Share.RECORD_SIZE else 0


class SecretStore:
    """All records. The contents stay in the database; the rest is in memory."""

    def __init__(self, database: Database, encryption: SecretEncryption) -> None:
        self._database = database
        self._encryption = encryption
        self._records: dict[str, SecretRecord] = {}
        self.sizes = OwnedSizes()  # of the records as they are stored, with their contents

    def load(self) -> None:
        """Read every record.

        :raises CorruptState: when one cannot be read.
        """
        sizes = self._database.sizes(TABLE)
        for key, record in self._database.all(TABLE, SecretRecord):
            self._records[key] = _head(record)
            self.sizes.set(key, record.owner, sizes[key])

    def of(self, kind: SecretKind) -> Iterator[SecretRecord]:
        """Iterate over the records of one kind, in order of name."""
        records = (record for record in self._records.values() if record.kind is kind)
        return iter(sorted(records, key=lambda record: record.name))

    def find(self, kind: SecretKind, ref: str) -> SecretRecord:
        """Return the record for ``ref`` (id, name or unique id prefix).

        :raises NotFound: when there is none.
        :raises InvalidRequest: when several ids have the prefix.
        """
        records = list(self.of(kind))
        for record in records:  # before one whose name is the id of another one
            if ref == record.id:
                return record
        for record in records:
            if ref == record.name:
                return record
        matches = [record for record in records if ref and record.id.startswith(ref)]
        if len(matches) > 1:
            raise InvalidRequest(f"{kind} {ref} is ambiguous ({len(matches)} matches found)")
        if not matches:
            raise NotFound(f"{kind} {ref[:80]} not found")
        return matches[0]

    def create(
        self, kind: SecretKind, name: str, labels: dict[str, str], data: bytes, owner: str
    ) -> SecretRecord:
        """Store a new record.

        :raises Conflict: when there is one of that name.
        :raises InvalidRequest: when the name or the size is not valid.
        """
        _check(kind, name, data)
        if any(record.name == name for record in self.of(kind)):
            raise Conflict(f"{kind} {name} already exists")
        return self._save(self._sealed(kind, name, labels, data, owner))

    def replace(
        self, former: SecretRecord, labels: dict[str, str], data: bytes, owner: str
    ) -> SecretRecord:
        """Store a new record, with an id of its own, in the place of ``former``: both or nothing.

        :raises InvalidRequest: when the size is not valid.
        :raises Unavailable: when the disk does not take it; the former record stays.
        """
        _check(former.kind, former.name, data)
        record = self._sealed(former.kind, former.name, labels, data, owner)
        with self._database.transaction():
            self._database.delete(TABLE, former.id)
            self._database.put(TABLE, record.id, record)
        del self._records[former.id]
        self._records[record.id] = _head(record)
        return record

    def _sealed(
        self, kind: SecretKind, name: str, labels: dict[str, str], data: bytes, owner: str
    ) -> SecretRecord:
        """Return a new record."""
        now = time.time_ns()
        import secrets

        record_id = "".join(secrets.choice(_LETTERS) for _ in range(25))
        empty = SecretRecord(record_id, kind, name, b"", owner, now, now, labels=labels)
        return msgspec.structs.replace(empty, sealed=self._encryption.seal(data, empty.about))

    def relabel(self, record: SecretRecord, labels: dict[str, str]) -> SecretRecord:
        """Replace the labels; nothing else of a record can change."""
        return self._save(
            msgspec.structs.replace(
                self._whole(record), labels=labels, updated=time.time_ns(), index=record.index + 1
            )
        )

    def _save(self, record: SecretRecord) -> SecretRecord:
        size = self._database.put(TABLE, record.id, record)
        self._records[record.id] = _head(record)
        self.sizes.set(record.id, record.owner, size)
        return record

    def _whole(self, record: SecretRecord) -> SecretRecord:
        stored = self._database.get(TABLE, record.id, SecretRecord)
        if stored is None:
            raise NotFound(f"{record.kind} {record.name} not found")
        return stored

    def remove(self, record: SecretRecord) -> None:
        """Remove a record."""
        self._database.delete(TABLE, record.id)
        del self._records[record.id]
        self.sizes.drop(record.id)

    def data(self, record: SecretRecord) -> bytes:
        """Return the decrypted content."""
        whole = self._whole(record)
        return self._encryption.open(whole.sealed, whole.about)


def _head(record: SecretRecord) -> SecretRecord:
    return msgspec.structs.replace(record, sealed=b"")


def _check(kind: SecretKind, name: str, data: bytes) -> None:
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"invalid name {name[:80]!r}: only 64 [a-zA-Z0-9-_.] characters allowed,"
            " and the start and end character must be [a-zA-Z0-9]"
        )
    minimum = 0 if kind is SecretKind.CONFIG else 1
    if not minimum <= len(data) < LIMITS[kind]:
        raise InvalidRequest(
            f"{kind} data must be larger than {minimum - 1 if minimum else 0} and less than"
            f" {LIMITS[kind]} bytes"
        )
