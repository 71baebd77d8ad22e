"""The commands of contexts: ``jaula context create``, ``use``, ``ls`` and others."""

from __future__ import annotations

import sys
from typing import Any

from jaula.cli.cli_errors import CliError, EngineError
from jaula.cli.client import contexts, engine_address
from jaula.cli.client.contexts import Context
from jaula.cli.client.engine_address import DEFAULT
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.output import inspect_output, list_output

ENDPOINT = Flag(
    "docker",
    "",
    "string",
    "Set the docker endpoint (host=ADDRESS,ca=FILE,cert=FILE,key=FILE,skip-tls-verify=BOOL)",
)
DESCRIPTION = Flag("description", "", "string", "Description of the context")  # fmt: skip


def create(options: Options) -> int:
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
        context = contexts.load(options.text("from") or engine_address.current_context())
    description = options.text("description") or context.description
    contexts.save(context._replace(name=name, description=description))
    print(name)
    sys.stderr.write(f'Successfully created context "{name}"\n')
    return 0


CREATE = Command(
    "[OPTIONS] CONTEXT",
    "Create a context",
    create,
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


def export(options: Options) -> int:
    """Write a context, with its private key, into an archive."""
    from jaula.cli.client import context_archive

    name = options.arguments[0]
    target = options.arguments[1] if len(options.arguments) > 1 else f"{name}.dockercontext"
    data = context_archive.pack(contexts.load(contexts.check_name(name)))
    if target == "-":
        if sys.stdout.isatty():
            raise CliError("cowardly refusing to export to a terminal, specify a file path")
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return 0
    import os

    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CliError(f"open {target}: {(error.strerror or str(error)).lower()}") from None
    with open(descriptor, "wb") as file:
        file.write(data)
    sys.stderr.write(f'Written file "{target}"\n')
    return 0


EXPORT = Command(
    "CONTEXT [FILE|-]",
    "Export a context to a tar archive FILE or a tar stream on STDOUT",
    export,
    min_args=1,
    max_args=2,
    description=(
        "The archive contains the private key: anyone who has it can connect to the engine."
    ),
    examples=(("To a file", "jaula context export far far.tar"),),
    see_also=("context import",),
    completes="context",
)


def import_(options: Options) -> int:
    """Store the context of an archive under a name."""
    from jaula.cli.client import context_archive

    name, source = options.arguments
    contexts.check_name(name)
    if contexts.exists(name):
        raise CliError(f'context "{name}" already exists')
    limit = context_archive.MAX_SIZE
    if source == "-":
        data = sys.stdin.buffer.read(limit + 1)
    else:
        try:
            with open(source, "rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise CliError(f"open {source}: {(error.strerror or str(error)).lower()}") from None
    contexts.save(context_archive.unpack(data)._replace(name=name))
    print(name)
    sys.stderr.write(f'Successfully imported context "{name}"\n')
    return 0


IMPORT = Command(
    "CONTEXT FILE|-",
    "Import a context from a tar or zip file",
    import_,
    min_args=2,
    max_args=2,
    description="Reads an archive of 'context export', also docker's.",
    examples=(("Import from a file", "jaula context import far far.tar"),),
    see_also=("context export",),
)


_IN_MEMORY = "<IN MEMORY>"


def inspect(options: Options) -> int:
    """Print the documents of contexts, by default of the current one."""
    return inspect_output.show(
        options.arguments or [engine_address.current_context()], options.text("format"), _document
    )


def _document(name: str) -> dict[str, Any]:
    try:
        context = contexts.load(name)
    except CliError as error:
        missing = EngineError(inspect_output.NOT_FOUND, "")
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


INSPECT = Command(
    "[OPTIONS] [CONTEXT...]",
    "Display detailed information on one or more contexts",
    inspect,
    flags=(inspect_output.FORMAT,),
    description="Prints Docker's document of each context as JSON, or the output of a template.",
    examples=(("Print its address", "jaula context inspect -f '{{.Endpoints.docker.Host}}' far"),),
    see_also=("context ls",),
    completes="context",
)


def ls(options: Options) -> int:
    """List contexts by name, including the default one."""
    current = engine_address.current_context()
    names = sorted({*contexts.names(), DEFAULT, current})
    if options.on("quiet"):
        print("\n".join(names))
        return 0
    items = [_item(name, current) for name in names]
    output_format = options.text("format")
    columns = COLUMNS | MARKED if output_format in ("", "table") else COLUMNS
    list_output.show(items, columns, TABLE, output_format)
    if (
        variable := engine_address.host_variable()
    ) and not engine_address.ConnectionOptions.context:
        sys.stderr.write(
            f"Warning: {variable} environment variable overrides the active context. To use a "
            f"context, either set the global --context flag, or unset {variable} environment "
            "variable.\n"
        )
    return 0


def _item(name: str, current: str) -> dict[str, object]:
    error = ""
    try:
        context = contexts.load(name)
    except CliError as exception:
        context, error = Context(name), exception.message
    return {
        "name": name,
        "description": context.description,
        "host": context.host,
        "current": name == current,
        "error": error,
    }


TABLE = "{{.Name}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}"
COLUMNS: dict[str, list_output.Column] = {
    "Name": ("NAME", lambda item: item["name"]),
    "Description": ("DESCRIPTION", lambda item: item["description"]),
    "DockerEndpoint": ("DOCKER ENDPOINT", lambda item: item["host"]),
    "Current": ("CURRENT", lambda item: item["current"]),
    "Error": ("ERROR", lambda item: item["error"]),
    "ContextType": ("TYPE", lambda item: "moby"),
}
MARKED: dict[str, list_output.Column] = {
    "Name": ("NAME", lambda item: item["name"] + (" *" if item["current"] else "")),
}

LS = Command(
    "[OPTIONS]",
    "List contexts",
    ls,
    flags=(
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("quiet", "q", "bool", "Only show context names"),
    ),
    max_args=0,
    description="An asterisk marks the current context.",
    examples=(
        ("Names and endpoints", "jaula context ls --format '{{.Name}} {{.DockerEndpoint}}'"),
    ),
    see_also=("context use", "context create"),
)


def rm(options: Options) -> int:
    """Remove the contexts; 1 if one of them could not be removed."""
    force, current = options.on("force"), engine_address.current_context()
    status = 0
    for name in options.arguments:
        problem = _problem(name, current, force=force)
        if problem:
            sys.stdout.flush()
            sys.stderr.write(problem + "\n")
            status = 1
            continue
        if contexts.configured_name() == name:
            contexts.use(DEFAULT)
        contexts.remove(name)
        print(name)
    return status


def _problem(name: str, current: str, *, force: bool) -> str:
    if name == DEFAULT:
        return 'default: context "default" cannot be removed'
    if not contexts.exists(name):
        return "" if force else f'context "{name}" does not exist'
    if name == current and not force:
        return f'context "{name}" is in use, set -f flag to force remove'
    return ""


RM = Command(
    "[OPTIONS] CONTEXT [CONTEXT...]",
    "Remove one or more contexts",
    rm,
    flags=(Flag("force", "f", "bool", "Force the removal of a context in use"),),
    min_args=1,
    description="The certificates and the key of a context are removed with it.",
    examples=(("Remove a context", "jaula context rm far"),),
    see_also=("context ls",),
    completes="context",
)


def show(options: Options) -> int:
    """Print the name of the current context."""
    print(engine_address.current_context())
    return 0


SHOW = Command(
    "",
    "Print the name of the current context",
    show,
    max_args=0,
    description=(
        "The context that results from the options, the environment and the configuration file."
    ),
    examples=(("Show it in the shell prompt", "PS1='[$(jaula context show)] $ '"),),
    see_also=("context use", "context ls"),
)


def update(options: Options) -> int:
    """Update a context and print its name."""
    (name,) = options.arguments
    contexts.check_name(name)
    context = contexts.load(name)
    if options.is_set("docker"):
        new_endpoint = contexts.parse_endpoint(options.text("docker"))
        context = new_endpoint._replace(name=name, description=context.description, raw=context.raw)
    if options.is_set("description"):
        context = context._replace(description=options.text("description"))
    contexts.save(context)
    print(name)
    sys.stderr.write(f'Successfully updated context "{name}"\n')
    return 0


UPDATE = Command(
    "[OPTIONS] CONTEXT",
    "Update a context",
    update,
    flags=(DESCRIPTION, ENDPOINT),
    min_args=1,
    max_args=1,
    description="--docker replaces the whole endpoint, including its certificates.",
    examples=(("Change the description", "jaula context update far --description 'the lab'"),),
    see_also=("context create",),
    completes="context",
)


def use(options: Options) -> int:
    """Make a context the current one."""
    (name,) = options.arguments
    if name != DEFAULT:
        contexts.load(name)
    contexts.use(name)
    print(name)
    sys.stderr.write(f'Current context is now "{name}"\n')
    if (variable := engine_address.host_variable()) and name != DEFAULT:
        sys.stderr.write(
            f"Warning: {variable} environment variable overrides the active context. To use "
            f'"{name}", either set the global --context flag, or unset {variable} environment '
            "variable.\n"
        )
    return 0


USE = Command(
    "CONTEXT",
    "Set the current context",
    use,
    min_args=1,
    max_args=1,
    description=(
        "The current context selects the engine for jaula and docker. --host, --context and "
        "the variables JAULA_HOST, DOCKER_HOST and DOCKER_CONTEXT override it."
    ),
    examples=(("Use the engine of this host again", "jaula context use default"),),
    see_also=("context ls", "context show"),
    completes="context",
)
