"""``jaula context create``."""

from __future__ import annotations

import sys

from jaula.cli.client import contexts, endpoint
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError

ENDPOINT = Flag(
    "docker",
    "",
    "string",
    "Set the docker endpoint (host=ADDRESS,ca=FILE,cert=FILE,key=FILE,skip-tls-verify=BOOL)",
)
DESCRIPTION = Flag("description", "", "string", "Description of the context")  # fmt: skip


def run(options: Options) -> int:
    """Store a new context and print its name."""
    (name,) = options.arguments
    contexts.check_name(name)
    if contexts.exists(name):
        raise CliError(f'context "{name}" already exists')
    if options.is_set("docker") and options.is_set("from"):
        raise CliError("cannot use --docker flag when --from is set")
    if options.is_set("docker"):
        context = contexts.parse_endpoint(options.text("docker"))
    else:
        context = contexts.load(options.text("from") or endpoint.current_context())
    description = options.text("description") or context.description
    contexts.save(context._replace(name=name, description=description))
    print(name)
    sys.stderr.write(f'Successfully created context "{name}"\n')
    return 0


COMMAND = Command(
    "[OPTIONS] CONTEXT",
    "Create a context",
    run,
    flags=(
        DESCRIPTION,
        ENDPOINT,
        Flag("from", "", "string", "Create context from a named context", completes="context"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "A context is a name for an endpoint and its TLS files. It is stored where Docker "
        "stores its contexts, so docker and jaula share them."
    ),
    examples=(
        (
            "An engine on another host",
            "jaula context create far --docker host=tcp://10.0.0.7:2376,ca=c.pem,cert=d.pem,key=k.pem",
        ),
        ("Use it for one command", "jaula --context far ps"),
    ),
    see_also=("context use", "context ls"),
)
