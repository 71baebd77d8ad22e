"""HTML of the report: escaped text, tables, figures, and the style. Pure.

The page loads nothing and has no script. Every text that is not :class:`Html` is escaped, and
characters that are not printable are replaced: names in a record are chosen by the container.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src 'none'; form-action 'none'"
MAX_ROWS = 400  # of one table
MAX_TEXT = 400  # characters of one cell

STYLE = """
:root { color-scheme: light dark;
  --paper: #f7f6f3; --card: #fffefb; --ink: #1c1f23; --soft: #5f6670; --line: #dedbd3;
  --fill: #efede7; --accent: #2f5d8a;
  --holds: #1a7a3c; --relaxed: #8f5f00; --fails: #c4232d; --unknown: #5b6470;
  --holds-fill: #e4f2e7; --relaxed-fill: #fbf0d9; --fails-fill: #fbe5e5; --unknown-fill: #e9ebee; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14161a; --card: #1b1e23; --ink: #e7e8ea; --soft: #99a1ac; --line: #31363e;
  --fill: #23272e; --accent: #7fb0e0;
  --holds: #4cc074; --relaxed: #dfa83c; --fails: #ff7b7b; --unknown: #98a2ae;
  --holds-fill: #16301f; --relaxed-fill: #33270f; --fails-fill: #3b1a1c;
  --unknown-fill: #262b31; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main, header, footer { max-width: 70rem; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 2.6rem; }
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: 2px; }
.kicker { margin: 0; color: var(--soft); font-size: .82rem; letter-spacing: .08em;
  text-transform: uppercase; }
h1 { margin: .1rem 0 .3rem; font-size: clamp(1.9rem, 5vw, 2.9rem); line-height: 1.1;
  letter-spacing: -.02em; overflow-wrap: anywhere; }
h2 { margin: 3.4rem 0 .2rem; padding-top: .9rem; border-top: 3px solid var(--ink);
  font-size: 1.45rem; letter-spacing: -.01em; }
h3 { margin: 1.9rem 0 .5rem; font-size: 1.02rem; }
p { margin: .3rem 0 .8rem; max-width: 46rem; }
.lead, .muted { color: var(--soft); }
code, .code { font: .87em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
.identity { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.1rem;
  margin: 1rem 0 0; font-size: .92rem; }
.identity dt { color: var(--soft); } .identity dd { margin: 0; min-width: 0;
  overflow-wrap: anywhere; }
.verdict-box { display: flex; gap: 1rem; align-items: baseline; margin: 1.6rem 0 0;
  padding: 1rem 1.2rem; border-radius: .5rem; border-left: .4rem solid; font-size: 1.06rem; }
.verdict-box strong { font-size: 1.28rem; white-space: nowrap; letter-spacing: -.01em; }
.verdict-box.holds { background: var(--holds-fill); border-color: var(--holds); }
.verdict-box.relaxed { background: var(--relaxed-fill); border-color: var(--relaxed); }
.verdict-box.fails { background: var(--fails-fill); border-color: var(--fails); }
.verdict-box.unknown { background: var(--unknown-fill); border-color: var(--unknown); }
.holds strong, .holds.word { color: var(--holds); }
.relaxed strong, .relaxed.word { color: var(--relaxed); }
.fails strong, .fails.word { color: var(--fails); }
.unknown strong, .unknown.word { color: var(--unknown); }
.word { font-weight: 650; white-space: nowrap; }
.figures { display: grid; grid-template-columns: repeat(4, 1fr); gap: .9rem; margin: 1rem 0 0; }
.figure { display: block; padding: .95rem 1.1rem 1rem; background: var(--card);
  border: 1px solid var(--line); border-radius: .5rem; color: inherit; text-decoration: none; }
a.figure:hover { border-color: var(--accent); }
.figure .label { color: var(--soft); font-size: .84rem; }
.figure .number { display: block; margin: .1rem 0 .15rem; font-size: 2.5rem; line-height: 1.1;
  font-weight: 300; letter-spacing: -.03em; font-variant-numeric: tabular-nums; }
.figure .number small { font-size: 1.15rem; color: var(--soft); letter-spacing: 0;
  white-space: nowrap; }
.figure .note { font-size: .87rem; line-height: 1.4; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.3rem; margin: 1.3rem 0 0; font-size: .92rem; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .92rem; }
th, td { padding: .38rem .7rem .38rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
thead th { border-bottom: 1.5px solid var(--soft); color: var(--soft); font-size: .82rem;
  font-weight: 600; white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td code { overflow-wrap: break-word; }
td:last-child, th:last-child { padding-right: 0; }
details { margin: .5rem 0; border: 1px solid var(--line); border-radius: .4rem;
  background: var(--card); }
summary { padding: .5rem .9rem; cursor: pointer; font-weight: 550; }
summary .muted { font-weight: 400; }
details > :not(summary) { margin-left: .9rem; margin-right: .9rem; }
details > :last-child { margin-bottom: .8rem; }
.names { display: flex; flex-wrap: wrap; gap: .3rem; margin: .4rem 0 .8rem; padding: 0;
  list-style: none; }
.names li { padding: .02rem .45rem; border-radius: .25rem; background: var(--fill);
  font: .82rem/1.6 ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.names.fails li { background: var(--fails-fill); } .names.relaxed li {
  background: var(--relaxed-fill); }
.bar { display: flex; height: .7rem; margin: .7rem 0 .5rem; overflow: hidden;
  border-radius: .35rem; background: var(--fill); }
.bar span { display: block; } .bar .holds { background: var(--holds); }
.bar .relaxed { background: var(--relaxed); } .bar .fails { background: var(--fails); }
.bar .unknown, .legend .unknown { background: var(--unknown); opacity: .45; }
.legend .holds { background: var(--holds); } .legend .relaxed { background: var(--relaxed); }
.legend .fails { background: var(--fails); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; max-width: none;
  font-size: .87rem; color: var(--soft); }
.legend i { display: inline-block; width: .65rem; height: .65rem; margin-right: .4rem;
  border-radius: .2rem; }
svg { display: block; width: 100%; height: auto; font: 13px system-ui, sans-serif; }
svg text { fill: currentColor; } svg a { text-decoration: none; color: inherit; }
svg .title { font-weight: 700; }
.layers { max-width: 860px; margin: 1rem auto; }
.layers rect { fill: #8080800c; stroke-width: 1.5; }
.layers .holds rect { stroke: var(--holds); }
.layers .relaxed rect { stroke: var(--relaxed); stroke-dasharray: 6 3; }
.layers .fails rect { stroke: var(--fails); stroke-width: 4; }
.layers .unknown rect { stroke: var(--unknown); stroke-dasharray: 2 3; }
.layers .program rect { stroke: currentColor; }
.timeline svg { min-width: 40rem; }
.timeline .lane { fill: var(--fill); } .timeline .axis { stroke: var(--line); }
.timeline text { font-size: 12px; } .timeline .soft { fill: var(--soft); }
.timeline .exec { fill: var(--accent); } .timeline .network { fill: #8a5bc0; }
.timeline .write { fill: var(--relaxed); } .timeline .refused { fill: var(--fails); }
.key .exec { background: var(--accent); } .key .network { background: #8a5bc0; }
.key .write { background: var(--relaxed); } .key .refused { background: var(--fails); }
footer { margin-top: 3.5rem; padding-top: 1rem; padding-bottom: 3rem; color: var(--soft);
  font-size: .87rem; }
@media (max-width: 64rem) { .figures { grid-template-columns: 1fr 1fr; } }
@media (max-width: 40rem) { main, header, footer { padding-left: 1rem; padding-right: 1rem; }
  header { padding-top: 1.4rem; } .verdict-box { display: block; }
  .verdict-box strong { display: block; white-space: normal; }
  .figure .number { font-size: 2rem; } .identity { grid-template-columns: 1fr; gap: 0; }
  .identity dt { margin-top: .35rem; font-size: .82rem; }
  .wide thead { display: none; } .wide tr { display: block; padding: .45rem 0;
    border-bottom: 1px solid var(--line); }
  .wide td { display: grid; grid-template-columns: 6.2rem 1fr; padding: .08rem 0; border: 0;
    text-align: left; white-space: normal; }
  .wide td::before { content: attr(data-column); color: var(--soft); font-size: .84rem; } }
@media print { :root { color-scheme: light; --paper: #fff; --card: #fff; }
  body { font-size: 10.5pt; } nav { display: none; } h2 { break-after: avoid; }
  tr, .figure, .verdict-box, svg { break-inside: avoid; }
  details::details-content { content-visibility: visible; height: auto; }
  details { border: 0; background: none; } }
"""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Html:
    """Return escaped text; HTML is returned as it is."""
    if isinstance(value, Html):
        return value
    cut = "…" if len(str(value)) > MAX_TEXT else ""
    return Html(escape(plain(str(value)[:MAX_TEXT])) + cut)


def plain(value: str) -> str:
    """Replace characters that are not printable, directions of text among them."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value)


def join(parts: Iterable[object], separator: str = "") -> Html:
    """Return the parts as one piece of HTML."""
    return Html(separator.join(text(part) for part in parts))


def code(value: object) -> Html:
    """Return a text in the font of names; a path may be broken after each component."""
    return Html(f"<code>{text(value).replace('/', '/<wbr>')}</code>")


def word(value: object, kind: str) -> Html:
    """Return a verdict in its colour."""
    return Html(f'<span class="word {text(kind)}">{text(value)}</span>')


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: str = "") -> Html:
    """Return a table; columns whose names are in ``numbers``, separated by commas, are numbers.

    Rows beyond ``MAX_ROWS`` are left out, and counted below the table.
    """
    right = set(numbers.split(","))
    kinds = [' class="n"' if name in right else "" for name in columns]
    head = "".join(f"<th{k}>{text(c)}</th>" for c, k in zip(columns, kinds, strict=True))
    body = "".join(
        "<tr>"
        + "".join(
            f'<td{kind} data-column="{text(name)}"><span>{text(cell)}</span></td>'
            for name, kind, cell in zip(columns, kinds, row, strict=True)
        )
        + "</tr>"
        for row in rows[:MAX_ROWS]
    )
    more = len(rows) - MAX_ROWS
    rest = f'<p class="muted">{more} more rows are left out.</p>' if more > 0 else ""
    return Html(
        f'<div class="scroll"><table class="wide"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{rest}"
    )


def details(title: object, content: object, *, note: object = "", opened: bool = False) -> Html:
    """Return a folded part."""
    extra = f' <span class="muted">{text(note)}</span>' if note else ""
    state = " open" if opened else ""
    return Html(f"<details{state}><summary>{text(title)}{extra}</summary>{text(content)}</details>")


def names(values: Iterable[object], kind: str = "") -> Html:
    """Return a list of short names."""
    items = list(values)
    rows = "".join(f"<li>{text(each)}</li>" for each in items[:MAX_ROWS])
    if len(items) > MAX_ROWS:
        rows += f"<li>{len(items) - MAX_ROWS} more</li>"
    return Html(f'<ul class="names {text(kind)}">{rows}</ul>')


def bar(parts: Sequence[tuple[str, int, str]]) -> Html:
    """Return a bar of parts with its legend; a part is a class, a number and a word."""
    total = sum(number for _, number, _ in parts) or 1
    spans = "".join(
        f'<span class="{text(kind)}" style="width:{100 * number / total:.2f}%"></span>'
        for kind, number, _ in parts
        if number
    )
    legend = "".join(
        f'<span><i class="{text(kind)}"></i>{number} {text(name)}</span>'
        for kind, number, name in parts
        if number
    )
    return Html(f'<div class="bar">{spans}</div><p class="legend">{legend}</p>')


def figure(target: str, label: str, number: object, unit: object, note: object) -> Html:
    """Return one of the numbers of the first screen, a link to its section."""
    small = f" <small>{text(unit)}</small>" if unit else ""
    return Html(
        f'<a class="figure" href="#{target}"><span class="label">{text(label)}</span>'
        f'<span class="number">{text(number)}{small}</span>'
        f'<span class="note">{text(note)}</span></a>'
    )
