"""``inspect`` for all kinds of objects: their documents in one list, or through a template."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import EngineError
from jaula.cli.command_parser import Flag
from jaula.spec.fast_json import pretty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NOT_FOUND = 404
FORMAT = Flag(
    "format", "f", "string", "Format output using a custom template (json, or a Go template)"
)


def show(names: list[str], output_format: str, find: Callable[[str], Any]) -> int:
    """Print the document of each name.

    Return 1 if an object does not exist, else 0. The other documents are still printed.
    """
    documents: list[Any] = []
    missing: list[EngineError] = []
    for name in names:
        try:
            documents.append(find(name))
        except EngineError as error:
            if error.code != NOT_FOUND:
                raise
            missing.append(error)
    print_documents(documents, output_format)
    for absent in missing:
        from jaula.cli import suggestion
        from jaula.cli.main import Settings

        sys.stderr.write(absent.message + "\n")
        suggestion.print_object_hint(absent, Settings.host)
    return 1 if missing else 0


def print_documents(documents: list[Any], output_format: str) -> None:
    """Print documents as JSON, or each one through the template ``output_format``."""
    if output_format in ("", "json"):
        from jaula.spec.fast_json import encode

        print(pretty(documents) if not output_format else encode(documents))
    else:
        from jaula.cli.output.template import Template, unescape

        template = Template(unescape(output_format), strict=True)
        for document in documents:
            print(template.render(document))
    sys.stdout.flush()
