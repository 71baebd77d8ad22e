"""Report for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from jaula.features.verify.model.result import Verdict, plain
from jaula.features.verify.reports.report import Report, check_info
from jaula.features.verify.verify import render as table


def render(reports: Sequence[Report]) -> str:
    """Return a table for each report; with several, headings and a summary."""
    parts = []
    for report in reports:
        of_pod = f" of pod {plain(report.pod)}" if report.pod else ""
        heading = f"{report.name}{of_pod}:\n" if len(reports) > 1 else ""
        parts.append(heading + table(report.rows) + _advice(report))
    if len(reports) > 1:
        broken = [report.name for report in reports if not report.passed]
        total = f"{len(reports)} reports: {len(reports) - len(broken)} are proofs"
        parts.append(total + (f"; not {', '.join(broken)}" if broken else ""))
    return "\n\n".join(parts)


def _advice(report: Report) -> str:
    """Return the advice of each check with a failing row, once."""
    failing = {row.check: check_info(row) for row in report.rows if row.verdict is Verdict.FAILS}
    return "".join(f"\nadvice for {each.id}: {each.advice}" for each in failing.values())
