"""The seals of requests in the audit log of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from jaula.state import audit_log

_MARK = b'"seal":"'


class SealedRequests(msgspec.Struct, frozen=True):
    """The last seal of each container; ``error`` says what is wrong with the log, or is empty."""

    seals: Mapping[str, str]
    error: str


class _Line(msgspec.Struct, frozen=True):
    object: str = ""
    seal: str = ""


def read(directory: Path) -> SealedRequests:
    """Read the files of an audit log and verify their chain.

    :raises OSError: when they cannot be read.
    """
    seals: dict[str, str] = {}
    for path in audit_log.files(directory):
        for line in audit_log.lines(path):
            if _MARK in line:
                entry = msgspec.json.decode(line, type=_Line)
                seals[entry.object] = entry.seal
    verification = audit_log.verify(directory)
    errors = [error.text for error in verification.errors]
    return SealedRequests(seals, "; ".join(errors[:3]))
