"""Report as one HTML page: no external resources, no script, light and dark, printable.

All text from containers and the kernel is escaped, and the page's policy forbids scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from jaula import __version__
from jaula.audit.model.result import Result, Verdict
from jaula.audit.reports import svg
from jaula.audit.reports.report import Report, check_info

STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8080800c;
  --holds: #1a7f37; --relaxed: #9a6700; --fails: #cf222e; --unknown: #57606a; }
@media (prefers-color-scheme: dark) { :root { --holds: #3fb950; --relaxed: #d29922;
  --fails: #f85149; --unknown: #8b949e; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 74rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
th, td { text-align: left; vertical-align: top; padding: .3rem .5rem;
  border-top: 1px solid var(--line); overflow-wrap: anywhere; }
th { font-weight: 600; } thead th { border-top: 0; font-size: .85rem; }
code { font: .85em ui-monospace, monospace; }
th:nth-child(1) { width: 17%; } th:nth-child(4) { width: 22%; } th:nth-child(5) { width: 6.5rem; }
.verdict { font-weight: 600; white-space: nowrap; }
td.holds { color: var(--holds); } td.relaxed { color: var(--relaxed); }
td.fails { color: var(--fails); } td.unknown { color: var(--unknown); }
details { font-size: .9rem; margin: .2rem 0 .4rem; } summary { cursor: pointer; }
svg { width: 100%; height: auto; max-width: 860px; margin-top: 1rem;
  font: 13px system-ui, sans-serif; }
svg a { text-decoration: none; } svg rect { fill: var(--soft); stroke-width: 1.5; }
svg text { fill: currentColor; } svg .title { font-weight: 700; }
svg .holds rect { stroke: var(--holds); } svg .relaxed rect { stroke: var(--relaxed);
  stroke-dasharray: 6 3; } svg .fails rect { stroke: var(--fails); stroke-width: 4; }
svg .unknown rect { stroke: var(--unknown); stroke-dasharray: 2 3; }
svg .program rect { stroke: currentColor; }
.summary { font-size: 1.05rem; }
@media (max-width: 46rem) {
  thead { display: none; }
  tr { display: block; border-top: 1px solid var(--line); padding: .4rem 0; }
  td { display: grid; grid-template-columns: 6.5rem 1fr; border: 0; padding: .1rem 0; }
  td::before { content: attr(data-column); font-size: .85rem; opacity: .75; }
}
@media print { details { display: none; } tr { break-inside: avoid; } }
"""

COLUMNS = ("Check", "Asked for", "In effect", "Evidence", "Verdict")

_ORDER = (Verdict.FAILS, Verdict.UNKNOWN, Verdict.RELAXED)
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(reports: Sequence[Report]) -> str:
    """Return the page."""
    broken = sum(not report.passed for report in reports)
    verdict = "everything holds as requested" if not broken else f"{broken} of {len(reports)} fail"
    timestamp = max((report.timestamp for report in reports), default="")
    body = "".join(_section(report, f"r{number}") for number, report in enumerate(reports))
    contents = "".join(
        f'<li><a href="#r{n}">{_text(report.name)}</a>: {_counts(report)}</li>'
        for n, report in enumerate(reports)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>jaula verify: {escape(verdict)}</title><style>{STYLE}</style></head><body>"
        f"<h1>Isolation in effect: {escape(verdict)}</h1>"
        f'<p class="summary">Read from the kernel at {escape(timestamp)} by jaula '
        f"{escape(__version__)}, and compared with the request.</p>"
        f"<ul>{contents}</ul>{body}</body></html>\n"
    )


def _section(report: Report, anchor: str) -> str:
    drawn = [layer for layer, _, _ in svg.LAYERS]
    layers = list(dict.fromkeys(row.layer for row in report.rows))
    layers.sort(key=lambda layer: drawn.index(layer) if layer in drawn else len(drawn))
    drawing = (
        svg.draw(_plain(report.name), report.rows, anchor) if report.kind == "container" else ""
    )
    tables = "".join(
        _layer(layer, [row for row in report.rows if row.layer == layer], f"{anchor}-{layer}")
        for layer in layers
    )
    return (
        f'<section id="{anchor}"><h2>{escape(report.kind)} {_text(report.name)}</h2>'
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
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    body = "".join(map(_row, rows))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(row: Result) -> str:
    cells = (
        ("", _text(row.id)),
        ("", _text(row.requested)),
        ("", _text(row.effective)),
        ("", f"<code>{_text(row.evidence)}</code>"),
        (f' class="verdict {svg.COLOURS[row.verdict]}"', escape(str(row.verdict))),
    )
    columns = "".join(
        f'<td data-column="{name}"{kind}><span>{text}</span></td>'
        for name, (kind, text) in zip(COLUMNS, cells, strict=True)
    )
    return f"<tr>{columns}</tr>"


def _text(value: str) -> str:
    return escape(_plain(value))


def _plain(value: str) -> str:
    """Replace non-printable characters: /proc can contain any bytes."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value)
