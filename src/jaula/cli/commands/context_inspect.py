"""``jaula context inspect``."""

from __future__ import annotations

from typing import Any

from jaula.cli.client import contexts, endpoint
from jaula.cli.client.endpoint import DEFAULT
from jaula.cli.command import Command, Options
from jaula.cli.errors import CliError, EngineError
from jaula.cli.output import inspect

_IN_MEMORY = "<IN MEMORY>"


def run(options: Options) -> int:
    """Print the documents of contexts, by default of the current one."""
    return inspect.show(
        options.arguments or [endpoint.current_context()], options.text("format"), _document
    )


def _document(name: str) -> dict[str, Any]:
    try:
        context = contexts.load(name)
    except CliError as error:
        missing = EngineError(inspect.NOT_FOUND, "")
        missing.message = error.message
        raise missing from None
    document = context.document()
    if name == DEFAULT:
        document["Metadata"] = {}
    stored = name != DEFAULT
    return document | {
        "TLSMaterial": {contexts.ENDPOINT: sorted(context.files)} if context.files else {},
        "Storage": {
            "MetadataPath": contexts.meta_path(name) if stored else _IN_MEMORY,
            "TLSPath": contexts.tls_path(name) if stored else _IN_MEMORY,
        },
    }


COMMAND = Command(
    "[OPTIONS] [CONTEXT...]",
    "Display detailed information on one or more contexts",
    run,
    flags=(inspect.FORMAT,),
    description="Prints Docker's document of each context as JSON, or the output of a template.",
    examples=(("Print its address", "jaula context inspect -f '{{.Endpoints.docker.Host}}' far"),),
    see_also=("context ls",),
    completes="context",
)
