"""The seals in the audit log of an engine: of requests, and of the specs of starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from jaula.state import audit_log

_MARKS = (b'"seal":"', b'"spec_seal":"')


class Seals(msgspec.Struct, frozen=True):
    """The last seals of each container; ``error`` says what is wrong with the log, or is empty."""

    requests: Mapping[str, str]
    specs: Mapping[str, str]
    error: str


class _Line(msgspec.Struct, frozen=True):
    object: str = ""
    seal: str = ""
    spec_seal: str = ""


_lines = msgspec.json.Decoder(_Line)


def read(directory: Path) -> Seals:
    """Read the files of an audit log and verify their chain. An absent log is damaged.

    :raises OSError: when they cannot be read.
    """
    if not directory.is_dir():
        return Seals({}, {}, "it is absent")
    requests: dict[str, str] = {}
    specs: dict[str, str] = {}
    for path in audit_log.files(directory):
        for line in audit_log.lines(path):
            if not any(mark in line for mark in _MARKS):
                continue
            try:
                entry = _lines.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # the chain reports it
            if entry.seal:
                requests[entry.object] = entry.seal
            if entry.spec_seal:
                specs[entry.object] = entry.spec_seal
    verification = audit_log.verify(directory)
    errors = [error.text for error in verification.errors]
    return Seals(requests, specs, "; ".join(errors[:3]))
