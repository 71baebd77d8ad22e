"""Report as SARIF 2.1.0 (OASIS standard), for code scanning and dashboards.

Each check is a rule, each row a result: ``pass`` if it holds, ``fail`` at level error if not,
``review`` if it is relaxed, ``open`` if unknown. A result is about a container and a file of the
kernel, so it has a logical and a physical location.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from jaula import __version__
from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.result import Result, Verdict
from jaula.audit.reports.report import CHECK_INFOS, Report

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"

KINDS: dict[Verdict, tuple[str, str]] = {
    Verdict.HOLDS: ("pass", "none"),
    Verdict.RELAXED: ("review", "none"),
    Verdict.FAILS: ("fail", "error"),
    Verdict.UNKNOWN: ("open", "none"),
}
"""(kind, level); a level other than none is valid with kind fail only (SARIF 3.27.10)."""


def document(reports: Sequence[Report]) -> dict[str, Any]:
    """Return the log file as Python values, with one run."""
    used = {row.check for report in reports for row in report.rows}
    rules = [info for info in CHECK_INFOS if info.id in used]
    index = {info.id: number for number, info in enumerate(rules)}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "jaula verify",
                        "version": __version__,
                        "semanticVersion": semantic_version(__version__),
                        "rules": [_rule(info) for info in rules],
                    }
                },
                "invocations": [
                    {
                        "executionSuccessful": True,
                        "endTimeUtc": max(
                            (r.timestamp for r in reports), default="1970-01-01T00:00Z"
                        ),
                    }
                ],
                "results": [
                    _result(report, row, index[row.check])
                    for report in reports
                    for row in report.rows
                ],
                "columnKind": "unicodeCodePoints",
            }
        ],
    }


def render(reports: Sequence[Report]) -> str:
    """Return indented JSON."""
    return json.dumps(document(reports), indent=2)


def _rule(info: CheckInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "name": info.title,
        "shortDescription": {"text": info.title},
        "fullDescription": {"text": info.reason},
        "help": {"text": f"{info.advice}\nEvidence: {info.evidence}"},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["security", info.layer, *info.references]},
    }


def _result(report: Report, row: Result, number: int) -> dict[str, Any]:
    kind, level = KINDS[row.verdict]
    requested = row.requested or "nothing"
    text = f"{report.name}: {row.id}: requested: {requested}; in effect: {row.effective}"
    location: dict[str, Any] = {
        "logicalLocations": [
            {"name": row.id, "fullyQualifiedName": f"{report.name}/{row.id}", "kind": "resource"}
        ]
    }
    path = next((word for word in row.evidence.replace(",", " ").split() if word[:1] == "/"), "")
    if path:
        location["physicalLocation"] = {
            "artifactLocation": {"uri": f"file://{quote(os.fsencode(path))}"}
        }
    return {
        "ruleId": row.check,
        "ruleIndex": number,
        "kind": kind,
        "level": level,
        "message": {"text": text},
        "locations": [location],
        "partialFingerprints": {"subjectAndRow/v1": fingerprint(report.name, row.id)},
        "properties": {"verdict": str(row.verdict), "evidence": row.evidence},
    }


def fingerprint(*words: str) -> str:
    """Return a fingerprint of a row that is equal in every report on the same container."""
    return sha256("\n".join(words).encode("utf-8", "surrogateescape")).hexdigest()


def semantic_version(version: str) -> str:
    """Return a version as three numbers (semver.org)."""
    head = version.split("+")[0].split(".")
    numbers = [part for part in head if part.isdigit()][:3]
    return ".".join([*numbers, "0", "0", "0"][:3])
