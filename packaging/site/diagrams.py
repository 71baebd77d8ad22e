"""Drawings of the diagrams of the pages: a flowchart of Mermaid becomes an SVG image by graphviz.

GitHub draws the blocks itself. The site has the drawings, so that no page needs a script. They are
committed as ``diagrams/DIGEST.svg``, by the digest of the block, and ``scripts/build-docs
--diagrams`` draws the missing ones. They are lines in the colour of the text, for light and dark.

Source: https://mermaid.js.org/syntax/flowchart.html. The parser knows the part that the pages use:
nodes with a label in quotes, three kinds of edges, and subgraphs.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

DIRECTORY = Path(__file__).resolve().parent / "diagrams"
BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)

_NODE = r"(\w+)(?:\[\"(.*?)\"\])?"
_EDGE = re.compile(
    rf"{_NODE} (?:--> |-- (?P<solid>.*?) --> |-\. (?P<dashed>.*?) \.-> |-\.-> ){_NODE}$"
)


class DiagramError(ValueError):
    """A line of a block that the parser does not know."""


def blocks(text: str) -> Iterator[re.Match[str]]:
    """Yield the diagrams of a page; group 1 is the block's text."""
    yield from BLOCK.finditer(text)


def path(block: str) -> Path:
    """Return the file of the drawing of a block."""
    return DIRECTORY / f"{hashlib.sha256(block.encode()).hexdigest()[:16]}.svg"


def dot(block: str) -> str:
    """Return the graph in graphviz's language.

    :raises DiagramError: when a line is not a node, an edge or a subgraph.
    """
    first, *lines = [line.strip() for line in block.splitlines() if line.strip()]
    if first != "flowchart TD":
        raise DiagramError(f"{first!r}: must be 'flowchart TD'")
    result = [
        "digraph {",
        'rankdir=TB; ranksep=0.45; nodesep=0.3; bgcolor="transparent"; compound=true;',
        'node [shape=box, style=rounded, fontname="sans-serif", fontsize=11, margin="0.14,0.08"];',
        'edge [fontname="sans-serif", fontsize=9, arrowsize=0.6];',
    ]
    for line in lines:
        result += _statements(line)
    return "\n".join([*result, "}"])


def _statements(line: str) -> list[str]:
    if subgraph := re.fullmatch(rf"subgraph {_NODE}", line):
        name, label = subgraph[1], subgraph[2] or subgraph[1]
        hidden = f'{name} [shape=point, style=invis, width=0.01, label=""];'
        return [f"subgraph cluster_{name} {{ style=rounded; label={_quoted(label)};", hidden]
    if line == "end":
        return ["}"]
    if node := re.fullmatch(_NODE, line):
        return [_node(node[1], node[2])]
    edge = _EDGE.match(line)
    if edge is None:
        raise DiagramError(f"{line!r}: must be a node, an edge or a subgraph")
    left, left_label, _, _, right, right_label = edge.groups()
    label = (edge["solid"] or edge["dashed"] or "").strip('"')
    style = ", style=dashed" if "-." in edge[0] else ""
    nodes = [_node(left, left_label)] if left_label else []
    nodes += [_node(right, right_label)] if right_label else []
    return [*nodes, f"{left} -> {right} [label={_quoted(label)}{style}];"]


def _node(name: str, label: str | None) -> str:
    return f"{name} [label={_quoted(label or name)}];"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"').replace("<br/>", "\\n") + '"'


def draw(block: str) -> str:
    """Return the drawing as an SVG element. The program dot of graphviz draws it."""
    done = subprocess.run(
        ["dot", "-Tsvg"], input=dot(block), capture_output=True, text=True, check=True
    )
    svg = done.stdout[done.stdout.index("<svg") :]
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<title>.*?</title>\n?", "", svg)
    svg = re.sub(r' id="[^"]*"', "", svg).replace("\n\n", "\n")
    svg = svg.replace('stroke="black"', 'stroke="currentColor"')
    svg = svg.replace('fill="black"', 'fill="currentColor"').replace(
        "<text ", '<text fill="currentColor" '
    )
    return re.sub(r'<svg width="[^"]*" height="[^"]*"', '<svg role="img" class="diagram"', svg)
