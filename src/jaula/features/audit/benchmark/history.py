"""Past assessments of an engine, for the trend: a file of JSON lines, at most 100.

It is in the state directory of the user who runs the command (XDG base directory specification),
since a client writes it: ``jaula/audit/ENGINE.jsonl``. An entry has the score, and the findings
that do not hold.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from jaula.errors import CorruptState, InvalidRequest
from jaula.kernel.syncfs import write_durable

KEPT = 100  # entries
MAX_FINDINGS = 2000  # in an entry
LIMIT = 64 << 20  # bytes of a file that is read


class Entry(msgspec.Struct, frozen=True):
    """One assessment; ``states`` are those of controls by number.

    ``findings`` has ``NUMBER SUBJECT`` with the state of each that neither passes nor is not
    applicable.
    """

    time: str
    engine: str
    holding: int
    applicable: int
    states: dict[str, str]
    scopes: tuple[str, ...] = ()
    findings: dict[str, str] = {}
    profile: str = "cis"


_decoder = msgspec.json.Decoder(Entry)


class Change(msgspec.Struct, frozen=True):
    """A control, or one of its subjects, that has another state; '' is absent."""

    id: str
    subject: str
    before: str
    after: str


def directory(environment: Mapping[str, str], home: str) -> Path:
    """Return the directory of all histories. Pure."""
    base = environment.get("XDG_STATE_HOME", "")
    return Path(base if base.startswith("/") else f"{home}/.local/state") / "jaula" / "audit"


def entry(document: Mapping[str, Any]) -> Entry:
    """Return the entry of a JSON report.

    :raises InvalidRequest: when it is not a report of ``jaula audit``.
    """
    try:
        controls = document["controls"]
        findings = {
            f"{control['id']} {finding['subject']}": str(finding["state"])
            for control in controls
            for finding in control["findings"]
            if finding["state"] not in ("pass", "not-applicable")
        }
        total = document["score"]["all"]
        return Entry(
            str(document["time"]),
            str(document["engine"]),
            int(total["holding"]),
            int(total["applicable"]),
            {str(control["id"]): str(control["state"]) for control in controls},
            tuple(map(str, document["scopes"])),
            dict(list(findings.items())[:MAX_FINDINGS]),
            str(document.get("profile", "cis")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidRequest(
            f"not a report of jaula audit --format json: {type(error).__name__} {error}"
        ) from None


def load(path: str) -> Entry:
    """Return the entry of a file with a JSON report.

    :raises InvalidRequest: when it cannot be read or is not a report.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise InvalidRequest(f"report {path}: {error.strerror}") from None
    if len(data) > LIMIT:
        raise InvalidRequest(f"report {path} has more than {LIMIT} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidRequest(f"report {path} is not JSON") from None
    return entry(document)


class History:
    """The history of one engine."""

    def __init__(self, top: Path, engine: str) -> None:
        """``engine`` is its id; it becomes a file name, so other characters are replaced."""
        name = re.sub(r"[^A-Za-z0-9_-]", "_", engine)[:100] or "none"
        self.path = top / f"{name}.jsonl"

    def read(self) -> list[Entry]:
        """Return the entries, oldest first.

        :raises CorruptState: when a line is not an entry.
        """
        try:
            with self.path.open("rb") as file:
                lines = file.read(LIMIT).splitlines()
        except FileNotFoundError:
            return []
        try:
            return [_decoder.decode(line) for line in lines if line.strip()]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CorruptState(
                f"history {self.path}: {error}", hint="remove the file; a new one is written"
            ) from None

    def add(self, new: Entry) -> None:
        """Append an entry and drop the oldest beyond 100. Parallel commands take turns.

        :raises OSError: when the directory is not writable.
        :raises CorruptState: as :meth:`read`.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = [*self.read(), new][-KEPT:]
            data = b"".join(msgspec.json.encode(each) + b"\n" for each in entries)
            write_durable(self.path, data)


def diff(before: Entry, after: Entry) -> list[Change]:
    """Return the controls and findings with another state, in the order of the benchmark. Pure."""
    changes = []
    for id in sorted({*before.states, *after.states}, key=lambda id: (_order(id), id)):
        first, second = before.states.get(id, ""), after.states.get(id, "")
        if first != second:
            changes.append(Change(id, "", first, second))
    for key in sorted({*before.findings, *after.findings}, key=lambda k: (_order(k), k)):
        first, second = before.findings.get(key, ""), after.findings.get(key, "")
        if first != second:
            id, _, subject = key.partition(" ")
            changes.append(Change(id, subject, first, second))
    return sorted(changes, key=lambda change: (_order(change.id), change.id, change.subject))


def _order(key: str) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in key.partition(" ")[0].split(".")]


def comparable(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries with the profile and scopes of the last one, oldest first. Pure."""
    return [
        each
        for each in entries
        if (each.profile, each.scopes) == (entries[-1].profile, entries[-1].scopes)
    ]


def trend(entries: Sequence[Entry]) -> str:
    """Return the last scores of the same parts, oldest first: ``70/90, 72/90``. Pure."""
    return ", ".join(f"{each.holding}/{each.applicable}" for each in comparable(entries)[-5:])
