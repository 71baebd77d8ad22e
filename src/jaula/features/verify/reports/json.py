"""Report as JSON for programs: one flat list of rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jaula.features.verify.model.result import Result
from jaula.features.verify.reports.report import Report, check_info


def document(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """Return every row of every report, with the name of its container or host."""
    return [_row(report, row) for report in reports for row in report.rows]


def _row(report: Report, row: Result) -> dict[str, Any]:
    return {
        "subject": report.name,
        "kind": report.kind,
        **({"pod": report.pod} if report.pod else {}),
        "check": row.check,
        "id": row.id,
        "layer": row.layer,
        "requested": row.requested,
        "effective": row.effective,
        "evidence": row.evidence,
        "verdict": str(row.verdict),
        "references": list(check_info(row).references),
        "time": report.timestamp,
    }


def render(reports: Sequence[Report]) -> str:
    """Return indented ASCII JSON, because /proc may contain bytes that are not text."""
    return json.dumps(document(reports), indent=4)
