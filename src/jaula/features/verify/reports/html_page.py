"""HTML page of a report: no external resources, no script, light and dark, printable.

``jaula verify``, ``jaula audit`` and ``jaula image audit`` use it. All text from containers, images
and the kernel is escaped, and the page's policy forbids scripts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

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

POLICY = "default-src 'none'; style-src 'unsafe-inline'"

Cell = tuple[str, str]
"""(CSS classes, HTML); '' without classes."""


def page(title: str, heading: str, body: str) -> str:
    """Return the page, without a final newline; ``body`` is HTML. Pure."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(heading)}</h1>{body}</body></html>"
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return a table; a narrow screen shows the name of its column before each cell. Pure."""
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join(_row(columns, row) for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(columns: Sequence[str], row: Sequence[Cell]) -> str:
    cells = "".join(
        f'<td data-column="{column}"{_classes(classes)}><span>{html}</span></td>'
        for column, (classes, html) in zip(columns, row, strict=True)
    )
    return f"<tr>{cells}</tr>"


def _classes(classes: str) -> str:
    return f' class="{classes}"' if classes else ""


def verdict(css_class: str, word: str) -> Cell:
    """Return the cell of a verdict; ``css_class`` has its colour. Pure."""
    return f"verdict {css_class}", escape(word)


def text(value: str) -> str:
    """Return a text as HTML without control characters. Pure."""
    return escape(plain(value))


def plain(value: str) -> str:
    """Replace non-printable characters: /proc can contain any bytes. Pure."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value)
