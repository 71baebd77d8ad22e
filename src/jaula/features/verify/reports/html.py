"""Report as one HTML page: a drawing of each container's layers, and tables of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from jaula import __version__
from jaula.features.verify.model.result import Result, Verdict
from jaula.features.verify.reports import html_page, svg
from jaula.features.verify.reports.html_page import plain, text
from jaula.features.verify.reports.report import Report, check_info

COLUMNS = ("Check", "Asked for", "In effect", "Evidence", "Verdict")

_ORDER = (Verdict.FAILS, Verdict.UNKNOWN, Verdict.RELAXED)


def render(reports: Sequence[Report]) -> str:
    """Return the page."""
    broken = sum(not report.passed for report in reports)
    verdict = "everything holds as requested" if not broken else f"{broken} of {len(reports)} fail"
    timestamp = max((report.timestamp for report in reports), default="")
    body = "".join(_section(report, f"r{number}") for number, report in enumerate(reports))
    contents = "".join(
        f'<li><a href="#r{n}">{text(report.name)}</a>: {_counts(report)}</li>'
        for n, report in enumerate(reports)
    )
    return (
        html_page.page(
            f"jaula verify: {verdict}",
            f"Isolation in effect: {verdict}",
            f'<p class="summary">Read from the kernel at {escape(timestamp)} by jaula '
            f"{escape(__version__)}, and compared with the request.</p>"
            f"<ul>{contents}</ul>{body}",
        )
        + "\n"
    )


def _section(report: Report, anchor: str) -> str:
    drawn = [layer for layer, _, _ in svg.LAYERS]
    layers = list(dict.fromkeys(row.layer for row in report.rows))
    layers.sort(key=lambda layer: drawn.index(layer) if layer in drawn else len(drawn))
    drawing = (
        svg.draw(plain(report.name), report.rows, anchor) if report.kind == "container" else ""
    )
    tables = "".join(
        _layer(layer, [row for row in report.rows if row.layer == layer], f"{anchor}-{layer}")
        for layer in layers
    )
    return (
        f'<section id="{anchor}"><h2>{escape(report.kind)} {text(report.name)}</h2>'
        f'<p class="summary">{_counts(report)}</p>{_exceptions(report)}{drawing}{tables}</section>'
    )


def _exceptions(report: Report) -> str:
    """Return the rows that fail, are unknown or relaxed, as a first table; '' without them."""
    rows = [row for row in report.rows if row.verdict is not Verdict.HOLDS]
    rows.sort(key=lambda row: _ORDER.index(row.verdict))
    return f"<h3>Rows that do not hold or are relaxed</h3>{_table(rows)}" * bool(rows)


def _counts(report: Report) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in report.counts().items())


def _layer(layer: str, rows: Sequence[Result], anchor: str) -> str:
    checks = {row.check: check_info(row) for row in rows}
    notes = "".join(
        f"<details><summary>{escape(each.title)}: why, and what to do</summary>"
        f"<p>{escape(each.reason)}</p><p>{escape(each.advice[:1].upper() + each.advice[1:])}.</p>"
        f"<p>Evidence: <code>{escape(each.evidence)}</code>. "
        f"References: {escape(', '.join(each.references))}.</p></details>"
        for each in checks.values()
    )
    return f'<h3 id="{anchor}">{escape(layer)}</h3>{notes}{_table(rows)}'


def _table(rows: Sequence[Result]) -> str:
    return html_page.table(COLUMNS, map(_row, rows))


def _row(row: Result) -> tuple[html_page.Cell, ...]:
    return (
        ("", text(row.id)),
        ("", text(row.requested)),
        ("", text(row.effective)),
        ("", f"<code>{text(row.evidence)}</code>"),
        html_page.verdict(svg.COLOURS[row.verdict], str(row.verdict)),
    )
