"""SVG drawing of a container's layers: nested boxes, outermost first. Pure.

A layer without an entry here appears in the tables only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from jaula.features.verify.model.result import Result, Verdict
from jaula.features.verify.reports.report import worst

LAYERS: tuple[tuple[str, str, str], ...] = (
    ("profile", "profile", "the operator's requirements"),
    ("image", "image", "the image policy"),
    ("cgroups", "cgroups", "limits: memory, CPU, processes"),
    ("namespaces", "namespaces", "own processes, mounts, network, names"),
    ("users", "user mapping", "root is unprivileged outside"),
    ("network", "network", "own interfaces, bridge firewall"),
    ("mounts", "mounts", "own root, no files of the host"),
    ("masks", "masks", "kernel files masked or read-only"),
    ("devices", "devices", "an allow-list"),
    ("lsm", "LSM", "labels, Landlock"),
    ("seccomp", "seccomp", "an allow-list of system calls"),
    ("capabilities", "capabilities", "parts of root's privileges"),
    ("no_new_privs", "no_new_privs", "set-user-id programs gain nothing"),
    ("rlimits", "rlimits", "limits of one process"),
    ("descriptors", "descriptors", "no open file refers outside"),
    ("probes", "probes", "escape attempts from inside"),
)
"""(layer of the rows, title, description), from the outside inwards."""

COLOURS: Mapping[Verdict, str] = {
    Verdict.HOLDS: "holds",
    Verdict.RELAXED: "relaxed",
    Verdict.FAILS: "fails",
    Verdict.UNKNOWN: "unknown",
}
"""CSS classes of the page."""

WIDTH, STEP, SIDE, CORE = 860, 30, 11, 64  # user units


def draw(name: str, rows: Sequence[Result], anchor: str) -> str:
    """Return an ``svg`` element; each layer links to ``#anchor-layer``."""
    present = [entry for entry in LAYERS if any(row.layer == entry[0] for row in rows)]
    height = STEP * len(present) + CORE + SIDE * len(present) + 2
    label = escape(f"layers of {name}", quote=True)
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">']
    for depth, (layer, title, description) in enumerate(present):
        layer_rows = [row for row in rows if row.layer == layer]
        verdict = worst(layer_rows)
        x, y = SIDE * depth + 1, STEP * depth + 1
        wide, high = WIDTH - 2 * x, height - y - SIDE * depth - 1
        held = sum(row.verdict is Verdict.HOLDS for row in layer_rows)
        parts.append(
            f'<a href="#{anchor}-{layer}"><g class="{COLOURS[verdict]}">'
            f'<rect x="{x}" y="{y}" width="{wide}" height="{high}" rx="7"/>'
            f'<text x="{x + 12}" y="{y + 20}"><tspan class="title">{escape(title)}</tspan> '
            f"{escape(description)}</text>"
            f'<text x="{x + wide - 12}" y="{y + 20}" text-anchor="end">'
            f"{held} of {len(layer_rows)} hold{_worst_word(verdict)}</text></g></a>"
        )
    x, y = SIDE * len(present) + 1, STEP * len(present) + 1
    parts.append(
        f'<g class="program"><rect x="{x}" y="{y}" width="{WIDTH - 2 * x}" '
        f'height="{CORE - 4}" rx="7"/><text x="{WIDTH / 2}" y="{y + CORE / 2 + 3}" '
        f'text-anchor="middle" class="title">{escape(name)}</text></g></svg>'
    )
    return "".join(parts)


def _worst_word(verdict: Verdict) -> str:
    return "" if verdict is Verdict.HOLDS else f" ({verdict})"
