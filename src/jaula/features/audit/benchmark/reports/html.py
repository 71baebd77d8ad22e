"""Assessment as one HTML page, with a table for each section."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from jaula import __version__
from jaula.features.audit.benchmark.assessment import Assessment, Finding, Outcome
from jaula.features.audit.benchmark.control import State
from jaula.features.audit.benchmark.reports.text import score_line
from jaula.features.verify.reports import html_page
from jaula.features.verify.reports.html_page import text

CLASSES: dict[State, str] = {
    State.PASS: "holds",
    State.FAIL: "fails",
    State.EXCEPTED: "relaxed",
    State.MANUAL: "relaxed",
    State.UNKNOWN: "unknown",
    State.NOT_APPLICABLE: "unknown",
}
"""Classes of the style that ``jaula verify`` has too."""
_COLUMNS = ("Control", "Level", "Subject", "Evidence", "State")


def render(assessment: Assessment) -> str:
    """Return the page, without a final newline."""
    sections = "".join(
        _section(key, name, [o for o in assessment.outcomes if o.control.section == key])
        for key, name in assessment.profile.sections.items()
    )
    title = f"{assessment.command}: {assessment.profile.title}"
    return html_page.page(
        title,
        title,
        f'<p class="summary">{text(score_line(assessment))}</p>'
        f"<p>Host {text(assessment.host)}, read at {escape(assessment.time)} by jaula "
        f"{escape(__version__)}.</p>{sections}",
    )


def _section(key: str, name: str, outcomes: Iterable[Outcome]) -> str:
    rows = [_row(outcome, each) for outcome in outcomes for each in _rows(outcome)]
    if not rows:
        return ""
    heading = f"{key} {name}" if key.isdigit() else name
    return (
        f'<section id="s{escape(key)}"><h2>{escape(heading)}</h2>'
        f"{html_page.table(_COLUMNS, rows)}</section>"
    )


def _rows(outcome: Outcome) -> tuple[Finding | None, ...]:
    """Return the findings, or None for a control without a subject."""
    return outcome.findings or (None,)


def _row(outcome: Outcome, finding: Finding | None) -> tuple[html_page.Cell, ...]:
    control = outcome.control
    state = finding.state if finding else outcome.state
    lines = [finding.evidence, finding.remediation, finding.note] if finding else []
    lines += finding.details if finding else ()
    return (
        ("", f"{escape(control.id)} {escape(control.title)}"),
        ("", str(control.level)),
        ("", text(finding.subject) if finding else "none"),
        ("", "<br>".join(text(line) for line in lines if line)),
        html_page.verdict(CLASSES[state], str(state)),
    )
