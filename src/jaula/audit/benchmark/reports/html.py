"""Assessment as one HTML page: no external resources, no script, light and dark, printable.

All text from containers, images and the kernel is escaped, and the page's policy forbids scripts.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from jaula import __version__
from jaula.audit.benchmark.assessment import Assessment, Finding, Outcome
from jaula.audit.benchmark.control import BENCHMARK, State
from jaula.audit.benchmark.reports.junit import SECTIONS
from jaula.audit.benchmark.reports.text import score_line
from jaula.audit.model.result import plain
from jaula.audit.reports.html import POLICY, STYLE

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
        _section(number, name, [o for o in assessment.outcomes if o.control.section == number])
        for number, name in SECTIONS.items()
    )
    title = f"jaula audit: {BENCHMARK}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1>"
        f'<p class="summary">{_text(score_line(assessment))}</p>'
        f"<p>Host {_text(assessment.host)}, read at {escape(assessment.time)} by jaula "
        f"{escape(__version__)}.</p>{sections}</body></html>"
    )


def _section(number: int, name: str, outcomes: Iterable[Outcome]) -> str:
    rows = "".join(_row(outcome, each) for outcome in outcomes for each in _rows(outcome))
    if not rows:
        return ""
    head = "".join(f"<th>{column}</th>" for column in _COLUMNS)
    return (
        f'<section id="s{number}"><h2>{number} {escape(name)}</h2>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _rows(outcome: Outcome) -> tuple[Finding | None, ...]:
    """Return the findings, or None for a control without a subject."""
    return outcome.findings or (None,)


def _row(outcome: Outcome, finding: Finding | None) -> str:
    control = outcome.control
    state = finding.state if finding else outcome.state
    lines = [finding.evidence, finding.remediation, finding.note] if finding else []
    evidence = "<br>".join(_text(line) for line in lines if line)
    cells = (
        ("", f"{escape(control.id)} {escape(control.title)}"),
        ("", str(control.level)),
        ("", _text(finding.subject) if finding else "none"),
        ("", evidence),
        (f' class="verdict {CLASSES[state]}"', escape(str(state))),
    )
    columns = "".join(
        f'<td data-column="{name}"{kind}><span>{text}</span></td>'
        for name, (kind, text) in zip(_COLUMNS, cells, strict=True)
    )
    return f"<tr>{columns}</tr>"


def _text(value: str) -> str:
    return escape(plain(value))
