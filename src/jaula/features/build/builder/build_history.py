"""The last builds of BuildKit's clients, for ``buildx history``. They are kept in memory only.

A record has the attestations of its build, whether they were requested or not. Records are limited
in number, and attestations in bytes. For a new record the caller who has most loses the oldest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from jaula.sha256 import sha256

_MAX_RECORDS = 100  # of all callers
_MAX_BYTES = 16 << 20  # of the attestations of all records


class Attachment(msgspec.Struct, frozen=True):
    """An attestation of a build: its predicate type and its predicate.

    ``platform`` is '' if the build had only one result.
    """

    platform: str
    kind: str
    data: bytes

    @property
    def digest(self) -> str:
        """The digest of the predicate."""
        return "sha256:" + sha256(self.data).hexdigest()


class BuildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One build that has ended. Times are in nanoseconds; ``error`` is empty after a success.

    ``ref`` is the client's id of the build, and ``attributes`` are the options that it sent.
    ``progress`` is what the client has seen, in the form of its protocol.
    """

    ref: str
    frontend: str
    attributes: Mapping[str, str]
    created: int
    completed: int
    error: str = ""
    response: Mapping[str, str] = {}
    steps: int = 0
    cached: int = 0
    warnings: int = 0
    progress: bytes = b""
    attachments: tuple[Attachment, ...] = ()

    @property
    def bytes(self) -> int:
        """The size of all attachments."""
        return sum(len(attachment.data) for attachment in self.attachments)


class BuildHistory:
    """The records of an engine. A caller sees its own only."""

    def __init__(self) -> None:
        self._records: list[tuple[str, BuildRecord]] = []

    def add(self, owner: str, record: BuildRecord) -> None:
        """Add a record; the caller with the most records or bytes may lose an older one for it."""
        self._records.append((owner, record))
        if len(self._records) > _MAX_RECORDS:
            counts = Counter(key for key, _ in self._records)
            self._records.remove(self._oldest(counts.most_common(1)[0][0]))
        sizes: Counter[str] = Counter()
        for key, each in self._records:
            sizes[key] += each.bytes
        while sizes.total() > _MAX_BYTES:
            largest = sizes.most_common(1)[0][0]
            entry = self._oldest(largest, with_attachments=True)
            sizes[largest] -= entry[1].bytes
            without = msgspec.structs.replace(entry[1], attachments=())
            self._records[self._records.index(entry)] = largest, without

    def _oldest(self, owner: str, *, with_attachments: bool = False) -> tuple[str, BuildRecord]:
        return next(
            entry
            for entry in self._records
            if entry[0] == owner and (entry[1].bytes or not with_attachments)
        )

    def list(self, owner: str) -> list[BuildRecord]:
        """Return the records of a caller, oldest first."""
        return [record for key, record in self._records if key == owner]

    def attachment(self, owner: str, digest: str) -> Attachment | None:
        """Return an attachment of a caller's records by its digest; None if absent."""
        records = (record for key, record in self._records if key == owner)
        attachments = (a for record in records for a in record.attachments)
        return next((a for a in attachments if a.digest == digest), None)

    def remove(self, owner: str, ref: str) -> bool:
        """Remove a record of a caller; return whether it existed."""
        for entry in self._records:
            if entry[0] == owner and entry[1].ref == ref:
                self._records.remove(entry)
                return True
        return False
