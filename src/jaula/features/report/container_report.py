"""The parts of a report, and the verdict on them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from jaula.features.audit.benchmark.assessment import Outcome
from jaula.features.audit.benchmark.control import State
from jaula.features.record.record_reader import Record
from jaula.features.verify.model.result import Result, Verdict
from jaula.features.verify.reports.report import Report
from jaula.spec.confinement_profile import Profile
from jaula.spec.runtime_spec import Spec

PROBES = "probes"  # the layer of the rows of escape attempts


class NamedRecord(msgspec.Struct, frozen=True):
    """A record and the name of its file."""

    name: str
    record: Record


class ContainerReport(msgspec.Struct, frozen=True):
    """Everything that a page shows. ``missing`` says why a part is absent, by its name.

    ``time`` is RFC 3339 in UTC. ``inspect`` is the engine's document of the container.
    """

    time: str
    host: str
    kernel: str
    inspect: Mapping[str, Any]
    digests: tuple[str, ...] = ()  # of the image at registries
    records: tuple[NamedRecord, ...] = ()
    profile: Profile | None = None
    profile_name: str = ""
    spec: Spec | None = None
    proof: Report | None = None
    outcomes: tuple[Outcome, ...] = ()
    missing: Mapping[str, str] = {}

    @property
    def name(self) -> str:
        """The name of the container."""
        return str(self.inspect.get("Name") or "").lstrip("/")


class Standing(StrEnum):
    """The verdict on the whole; the values are classes of the style."""

    HOLDS = "holds"
    RELAXED = "relaxed"
    FAILS = "fails"
    UNKNOWN = "unknown"


def attempts(rows: tuple[Result, ...]) -> list[Result]:
    """Return the rows of escape attempts."""
    return [row for row in rows if row.layer == PROBES]


def broken_records(report: ContainerReport) -> list[str]:
    """Return the names of records that are not intact."""
    return [each.name for each in report.records if each.record.errors]


def failed_controls(report: ContainerReport) -> int:
    """Return the number of controls that fail without an exception."""
    return sum(outcome.state is State.FAIL for outcome in report.outcomes)


def foreign_records(report: ContainerReport) -> list[str]:
    """Return the names of records of another image or container."""
    image, own = report.inspect.get("Image"), report.inspect.get("Id")
    return [
        each.name
        for each in report.records
        if each.record.header is not None
        and each.record.header.container.image_id != image
        and each.record.header.container.id != own
    ]


def judge(report: ContainerReport, beyond: int = 0) -> tuple[Standing, str]:
    """Return the verdict and the sentence that explains it.

    ``beyond`` is the number of permissions that were used and that the profile does not have.
    """
    if broken := broken_records(report):
        return Standing.FAILS, f"The record {broken[0]} is not intact."
    if foreign := foreign_records(report):
        return Standing.FAILS, f"The record {foreign[0]} is of another image."
    rows = report.proof.rows if report.proof else ()
    if fails := sum(row.verdict is Verdict.FAILS for row in rows):
        return Standing.FAILS, f"{_rows(fails)} of the proof: the kernel is not as requested."
    if not rows:
        why = report.missing.get("proof", "the proof is missing")
        return Standing.UNKNOWN, f"Nothing is proved: {why}."
    if unknown := sum(row.verdict is Verdict.UNKNOWN for row in rows):
        return Standing.UNKNOWN, f"{_rows(unknown)} of the proof could not be read."
    relaxed = sum(row.verdict is Verdict.RELAXED for row in rows)
    failed = failed_controls(report)
    words = []
    if relaxed:
        words.append(f"{_rows(relaxed)} {'is' if relaxed == 1 else 'are'} relaxed by request")
    if failed:
        words.append(f"{failed} audit {'control fails' if failed == 1 else 'controls fail'}")
    if beyond:
        uses = "1 permission was" if beyond == 1 else f"{beyond} permissions were"
        words.append(f"{uses} used that the profile does not have")
    if words:
        return Standing.RELAXED, f"The kernel enforces what was requested. {_join(words)}."
    return Standing.HOLDS, "The kernel enforces what was requested, without an exception."


def _rows(number: int) -> str:
    return "1 row" if number == 1 else f"{number} rows"


def _join(words: list[str]) -> str:
    text = ", and ".join(words)
    return text[:1].upper() + text[1:]
