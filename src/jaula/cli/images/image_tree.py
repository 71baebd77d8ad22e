"""The images with their platforms, as ``docker images --tree`` of Docker 29 prints them.

On a terminal the first line is the legend, and the columns that do not fit are left out.
"""

from __future__ import annotations

from jaula.cli.output.list_output import short_id
from jaula.spec import units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Document = dict[str, Any]
    Row = tuple[str, str, str, str]

_UNTAGGED = "<untagged>"
_LEGEND = " Info ->  U In Use"
_GAP = "   "
_MIN_NAME = 12  # cells
_COLUMNS = (("ID", 12), ("DISK USAGE", 10), ("CONTENT SIZE", 12), ("EXTRA", 5))


def render(images: Iterable[Document], width: int) -> Iterator[str]:
    """Yield the lines of the tree. ``width`` is that of the terminal in cells, or 0."""
    views = sorted((_view(image) for image in images), key=lambda view: (not view[0], view[0]))
    rows = [child for _, _, children in views for child, _ in children]
    names = [name for tags, _, _ in views for name in tags or [_UNTAGGED]]
    widest = max((len(text) for text in ("IMAGE", *names, *rows)), default=0)
    columns = list(_COLUMNS)
    name_width = widest
    if width:
        yield _LEGEND.rjust(width)
        name_width = width
        for index, (_, cells) in enumerate(_COLUMNS):
            if name_width - cells - len(_GAP) < _MIN_NAME:
                columns = columns[:index]
                break
            name_width -= cells + len(_GAP)
        name_width = min(name_width, widest)
    titles = [title.ljust(cells) for title, cells in columns]
    yield _GAP.join(["IMAGE".ljust(name_width), *titles])
    spacing = bool(rows)
    for tags, details, children in views:
        yield from _names(tags or [_UNTAGGED], _cells(details, len(columns)), name_width)
        for child, values in children:
            yield child.ljust(name_width) + _cells(values, len(columns))
        if spacing:
            yield ""


def _view(image: Document) -> tuple[list[str], Row, list[tuple[str, Row]]]:
    """Return the names of an image, its values, and a line for each of its platforms."""
    usage, content, in_use = 0, 0, image.get("Containers", 0) > 0
    children: list[tuple[str, Row]] = []
    for manifest in image.get("Manifests") or ():
        size = manifest["Size"]
        usage += size["Total"]
        content += size["Content"]
        if manifest["Kind"] != "image":
            continue
        data = manifest["ImageData"]
        used = bool(data["Containers"])
        in_use = in_use or used
        platform = data["Platform"]
        parts = (platform.get(key, "") for key in ("os", "architecture", "variant"))
        text = "/".join(part for part in parts if part)
        children.append((text, _row(manifest["ID"], size["Total"], size["Content"], used)))
    marked = [
        (f"{'├' if number < len(children) else '└'}─ {text}", row)
        for number, (text, row) in enumerate(children, 1)
    ]
    tags = sorted(image.get("RepoTags") or ())
    # The size of an image is that of its unpacked layers.
    return tags, _row(image["Id"], image["Size"] + content, content, in_use), marked


def _row(identity: str, usage: int, content: int, used: bool) -> Row:
    sizes = units.human_size(usage, 3), units.human_size(content, 3)
    return (short_id(identity), *sizes, "U" if used else " ")


def _cells(row: Row, count: int) -> str:
    """Return the columns of a line after the first one. Sizes are aligned to the right."""
    texts = []
    for (title, cells), text in zip(_COLUMNS[:count], row, strict=False):
        texts.append(
            text.rjust(cells) if "SIZE" in title or "USAGE" in title else text.ljust(cells)
        )
    return "".join(_GAP + text for text in texts)


def _names(names: list[str], cells: str, width: int) -> Iterator[str]:
    """Yield a line for each name. The values are beside the last one, or below it if it is long."""
    yield from names[:-1]
    if len(names[-1]) > width:
        yield names[-1]
        yield " " * width + cells
    else:
        yield names[-1].ljust(width) + cells
