"""SVG drawing of a record: one lane for each program, with marks for what it did. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from jaula.features.report.activity import Lane
from jaula.features.report.html import Html, text

WIDTH, LABEL, LANE, TOP = 1000, 260, 26, 24  # user units
MAX_MARKS = 300  # of one lane
KINDS = {
    "exec": "executes a program",
    "network": "uses the network",
    "write": "writes a file",
    "refused": "is refused",
}


def draw(lanes: Sequence[Lane], duration: int) -> Html:
    """Return an ``svg`` element; ``duration`` is in microseconds."""
    duration = max(duration, *(lane.last for lane in lanes), 1)
    height = TOP + LANE * len(lanes) + 6
    scale = (WIDTH - LABEL - 12) / duration
    label = "what each program did, and when"
    box = f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}"'
    parts = [f'<div class="timeline scroll"><svg {box}>']
    for step in range(5):
        x = LABEL + (WIDTH - LABEL - 12) * step / 4
        anchor = "end" if step == 4 else "middle" if step else "start"
        parts.append(
            f'<line class="axis" x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{height}"/>'
            f'<text class="soft" x="{x:.1f}" y="12" text-anchor="{anchor}">'
            f"{_seconds(duration * step / 4)}</text>"
        )
    for number, lane in enumerate(lanes):
        y = TOP + LANE * number
        x, wide = LABEL + lane.first * scale, max(3.0, (lane.last - lane.first) * scale)
        name = lane.program if len(lane.program) <= 36 else "…" + lane.program[-35:]
        parts.append(
            f'<text x="0" y="{y + 14}">{text(name)}<title>{text(lane.program)}</title></text>'
            f'<rect class="lane" x="{x:.1f}" y="{y + 3}" width="{wide:.1f}" height="15" rx="3"/>'
        )
        for time, kind, title in lane.marks[:MAX_MARKS]:
            parts.append(
                f'<rect class="{text(kind)}" x="{LABEL + time * scale - 1:.1f}" y="{y + 3}" '
                f'width="2.5" height="15"><title>{_seconds(time)} {text(title)}</title></rect>'
            )
    legend = "".join(
        f'<span><i class="{kind}"></i>{meaning}</span>' for kind, meaning in KINDS.items()
    )
    parts.append(f'</svg></div><p class="legend key">{legend}</p>')
    return Html("".join(parts))


def _seconds(microseconds: float) -> str:
    seconds = microseconds / 1e6
    if seconds >= 120:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.1f} s" if seconds >= 2 else f"{seconds:.3f} s" if seconds else "0 s"
