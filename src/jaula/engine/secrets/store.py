"""Secrets and configs of one engine: named pieces of data that containers may be given.

Both are kept encrypted in the database and handed out by id. They differ in who sees the content:
a secret's is seen by the containers that have it and by nobody else.

Names and sizes are those of swarmkit's ``api/validation``; so are the texts of errors, which
clients show.
"""

from __future__ import annotations

import re
import secrets
import string
import time
from collections.abc import Iterator
from enum import StrEnum

import msgspec

from jaula.errors import Conflict, InvalidRequest, NotFound
from jaula.state.database import Database
from jaula.state.secret_encryption import SecretEncryption

TABLE = "secrets"
_NAME = re.compile(r"[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?", re.ASCII)
_LONGEST = 64  # characters of a name
_LETTERS = string.ascii_lowercase + string.digits


class SecretKind(StrEnum):
    """What a record is."""

    SECRET = "secret"
    CONFIG = "config"


LIMITS = {SecretKind.SECRET: 500 * 1024, SecretKind.CONFIG: 1000 * 1024}
"""Bytes."""


class SecretRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One secret or config; times in nanoseconds since the epoch, ``index`` counts changes."""

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
        """What the sealed data is bound to."""
        return f"{self.kind} {self.id} {self.name}"


class SecretStore:
    """All of them. Their contents stay in the database; records without them are in memory."""

    def __init__(self, database: Database, vault: SecretEncryption) -> None:
        self._database = database
        self._vault = vault
        self._known: dict[str, SecretRecord] = {}

    def load(self) -> None:
        """Read every record. Raises ``CorruptState``."""
        self._known = {
            key: _head(record) for key, record in self._database.all(TABLE, SecretRecord)
        }

    def of(self, kind: SecretKind) -> Iterator[SecretRecord]:
        """All of one kind, in order of name."""
        found = (record for record in self._known.values() if record.kind is kind)
        return iter(sorted(found, key=lambda record: record.name))

    def find(self, kind: SecretKind, ref: str) -> SecretRecord:
        """By id, name, or a unique beginning of an id.

        :raises NotFound: there is none.
        """
        records = list(self.of(kind))
        for record in records:
            if ref in (record.id, record.name):
                return record
        found = [record for record in records if ref and record.id.startswith(ref)]
        if len(found) > 1:
            raise InvalidRequest(f"{kind} {ref} is ambiguous ({len(found)} matches found)")
        if not found:
            raise NotFound(f"{kind} {ref[:80]} not found")
        return found[0]

    def create(
        self, kind: SecretKind, name: str, labels: dict[str, str], data: bytes, owner: str
    ) -> SecretRecord:
        """Keep a new one.

        :raises Conflict: there is one of that name.
        :raises InvalidRequest: the name or the size cannot be.
        """
        _check(kind, name, data)
        if any(record.name == name for record in self.of(kind)):
            raise Conflict(f"{kind} {name} already exists")
        now = time.time_ns()
        chosen = "".join(secrets.choice(_LETTERS) for _ in range(25))
        empty = SecretRecord(chosen, kind, name, b"", owner, now, now, labels=labels)
        sealed = self._vault.seal(data, empty.about)
        return self._save(msgspec.structs.replace(empty, sealed=sealed))

    def relabel(self, record: SecretRecord, labels: dict[str, str]) -> SecretRecord:
        """Other labels; nothing else of a record can change."""
        return self._save(
            msgspec.structs.replace(
                self._whole(record), labels=labels, updated=time.time_ns(), index=record.index + 1
            )
        )

    def _save(self, record: SecretRecord) -> SecretRecord:
        self._database.put(TABLE, record.id, record)
        self._known[record.id] = _head(record)
        return record

    def _whole(self, record: SecretRecord) -> SecretRecord:
        found = self._database.get(TABLE, record.id, SecretRecord)
        if found is None:
            raise NotFound(f"{record.kind} {record.name} not found")
        return found

    def remove(self, record: SecretRecord) -> None:
        """Forget one."""
        self._database.delete(TABLE, record.id)
        del self._known[record.id]

    def data(self, record: SecretRecord) -> bytes:
        """The content, in clear."""
        whole = self._whole(record)
        return self._vault.open(whole.sealed, whole.about)


def _head(record: SecretRecord) -> SecretRecord:
    return msgspec.structs.replace(record, sealed=b"")


def _check(kind: SecretKind, name: str, data: bytes) -> None:
    if len(name) > _LONGEST or not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"invalid name {name[:80]!r}: only 64 [a-zA-Z0-9-_.] characters allowed,"
            " and the start and end character must be [a-zA-Z0-9]"
        )
    least = 0 if kind is SecretKind.CONFIG else 1
    if not least <= len(data) < LIMITS[kind]:
        raise InvalidRequest(
            f"{kind} data must be larger than {least - 1 if least else 0} and less than"
            f" {LIMITS[kind]} bytes"
        )
