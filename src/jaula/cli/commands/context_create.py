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
    """Keep a new context and print its name."""
    (name,) = options.arguments
    contexts.check_name(name)
    if contexts.exists(name):
        raise CliError(f'context "{name}" already exists')
    if options.is_set("docker") and options.is_set("from"):
        raise CliError("cannot use --docker flag when --from is set")
    if options.is_set("docker"):
        made = contexts.parse_endpoint(options.text("docker"))
    else:
        made = contexts.load(options.text("from") or endpoint.current_context())
    description = options.text("description") or made.description
    contexts.save(made._replace(name=name, description=description))
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
        "A context is a name for an engine, with what is needed to speak with it. It is kept where "
        "Docker keeps its own, so docker and jaula see the same ones."
    ),
    examples=(
        (
            "An engine on another host",
            "jaula context create far --docker host=tcp://10.0.0.7:2376,ca=c.pem,cert=d.pem,key=k.pem",
        ),
        ("Talk to it once", "jaula --context far ps"),
    ),
    see_also=("context use", "context ls"),
)
