"""Report as SARIF 2.1.0 (OASIS standard), for code scanning and dashboards.

Each check is a rule, each row a result: ``pass`` if it holds, ``fail`` at level error if not,
``review`` if it is relaxed, ``open`` if unknown. A result is about a container and a file of the
kernel, so it has a logical and a physical location.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.result import Result, Verdict
from jaula.features.verify.reports import sarif_log
from jaula.features.verify.reports.report import CHECK_INFOS, Report

KINDS: dict[Verdict, tuple[str, str]] = {
    Verdict.HOLDS: ("pass", "none"),
    Verdict.RELAXED: ("review", "none"),
    Verdict.FAILS: ("fail", "error"),
    Verdict.UNKNOWN: ("open", "none"),
}
"""(kind, level) of SARIF 3.27.9 and 3.27.10."""


def document(reports: Sequence[Report]) -> dict[str, Any]:
    """Return the log file as Python values, with one run."""
    used = {row.check for report in reports for row in report.rows}
    rules = [info for info in CHECK_INFOS if info.id in used]
    index = {info.id: number for number, info in enumerate(rules)}
    return sarif_log.log(
        "jaula verify",
        max((report.timestamp for report in reports), default="1970-01-01T00:00Z"),
        [_rule(info) for info in rules],
        [_result(report, row, index[row.check]) for report in reports for row in report.rows],
    )


def render(reports: Sequence[Report]) -> str:
    """Return indented JSON."""
    return sarif_log.render(document(reports))


def _rule(info: CheckInfo) -> dict[str, Any]:
    return sarif_log.rule(
        info.id, info.title, info.reason, (info.layer, *info.references),
        f"{info.advice}\nEvidence: {info.evidence}",
    )  # fmt: skip


def _result(report: Report, row: Result, number: int) -> dict[str, Any]:
    requested = row.requested or "nothing"
    location = sarif_log.resource(row.id, f"{report.name}/{row.id}")
    path = next((word for word in row.evidence.replace(",", " ").split() if word[:1] == "/"), "")
    if path:
        location["physicalLocation"] = {
            "artifactLocation": {"uri": f"file://{quote(os.fsencode(path))}"}
        }
    return sarif_log.result(
        (row.check, number),
        KINDS[row.verdict],
        f"{report.name}: {row.id}: requested: {requested}; in effect: {row.effective}",
        location,
        {"subjectAndRow/v1": sarif_log.fingerprint(report.name, row.id)},
        {"verdict": str(row.verdict), "evidence": row.evidence},
    )
