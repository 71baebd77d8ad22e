"""Lists of objects: a table, or the format of ``--format``.

A list is declared by its columns: the name for templates, the heading, and a function that computes
the text from the API's document.
"""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError
from jaula.cli.output import text_table
from jaula.spec.visible_text import visible_cell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Column = tuple[Any, Callable[[Any], Any]]  # heading, text of an item


def show(
    items: Sequence[Any], columns_of: Mapping[str, Column], default: str, output_format: str = ""
) -> None:
    """Print ``items``.

    ``output_format`` is the value of ``--format``: empty, ``table``, ``json``, or a template.
    ``default`` is the template of the table, ``{{.ID}}\\t{{.Names}}``.
    """
    sys.stdout.write(text(items, columns_of, default, output_format))


def text(
    items: Sequence[Any], columns_of: Mapping[str, Column], default: str, output_format: str = ""
) -> str:
    """Return the text that :func:`show` prints.

    :raises CliError: when the template is invalid.
    """
    if output_format in ("", "table"):
        names = [cell[3:-2] for cell in default.split("\t")]
        lines = ["\t".join(columns_of[name][0] for name in names)]
        for item in items:
            lines.append("\t".join(visible_cell(str(columns_of[name][1](item))) for name in names))
        return text_table.aligned(lines)
    from jaula.cli.output.template import Template, unescape

    output_format = "{{json .}}" if output_format == "json" else unescape(output_format)
    is_table = output_format.startswith("table ")
    template = Template(
        output_format.removeprefix("table ").strip(" ") if is_table else output_format
    )
    lines = []
    if is_table:
        lines.append(template.render({name: column[0] for name, column in columns_of.items()}))
    for item in items:
        lines.append(template.render(_row(item, columns_of)))
    if is_table:
        return text_table.aligned(lines)
    return "".join(line + "\n" for line in lines)


class _Row(dict[str, "Any"]):
    """The columns of one item, computed on demand."""

    def get(self, name: str, default: Any = None) -> Any:
        if name not in self:
            raise CliError(f"template: :1: can't evaluate field {name}", status=1)
        return self[name]


def _row(item: Any, columns_of: Mapping[str, Column]) -> dict[str, Any]:
    row = _Row()
    for name, column in sorted(columns_of.items()):
        row[name] = _lazy(column[1], item)
    return row


def _lazy(function: Callable[[Any], Any], item: Any) -> Callable[..., Any]:
    def compute(*arguments: Any) -> Any:
        value = function(item)
        return value(*arguments) if arguments else value

    return compute


def short_id(identity: str, no_trunc: bool = False) -> str:
    """Return an id as it is shown: twelve digits without its algorithm."""
    return identity if no_trunc else identity.rpartition(":")[2][:12]


def ellipsis(text: str, width: int) -> str:
    """Return at most ``width`` characters; the last one is an ellipsis if the text is cut."""
    return text if len(text) <= width else text[: width - 1] + "…"
