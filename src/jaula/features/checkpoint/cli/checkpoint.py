"""The commands of checkpoints: ``jaula checkpoint create``, ``ls``, ``export`` and others."""

from __future__ import annotations

import sys
from base64 import b64encode
from typing import Any

from jaula.cli.cli_errors import CliError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.images import image_archive
from jaula.cli.images.image_archive import chunks
from jaula.cli.main import Settings
from jaula.cli.output import inspect_output
from jaula.cli.output.progress_line import Progress, file_size
from jaula.features.checkpoint.cli import checkpoint_request
from jaula.spec.fast_json import decode_lines
from jaula.spec.units import human_size


def create(options: Options) -> int:
    """Create the checkpoint and print its name."""
    container, name = options.arguments
    members: dict[str, object] = {
        "Exit": not options.on("leave-running"),
        "Files": options.on("with-files"),
    }
    if rounds := options.number("pre-copy"):
        members["PreCopy"] = rounds
    client = Client(Settings.host)
    checkpoint_request.create(client, options, members)
    if rounds:
        path = f"/jaula/containers/{quote(container)}/checkpoints/{quote(name)}"
        _print_rounds(client.get(path, checkpoint_request.query(options)))
    print(name)
    return 0


def _print_rounds(document: dict[str, Any]) -> None:
    """Print what each round of the pre-copy has written, and how long the container stood still."""
    sizes = document.get("PreCopy", [])
    failure = document.get("PreCopyFailure", "")
    if not sizes and not failure:
        print(
            "no pre-copy: this kernel does not track written pages (CONFIG_MEM_SOFT_DIRTY)",
            file=sys.stderr,
        )
    for number, size in enumerate(sizes, 1):
        print(f"round {number}: {human_size(size)} while the container ran", file=sys.stderr)
    if failure:
        print(
            f"warning: round {len(sizes) + 1} failed, so all memory was written while the container"
            f" stood still: {failure}",
            file=sys.stderr,
        )
    pause = document.get("Stopped", 0) / 1e9
    print(f"the container stood still for {pause:.2f} s", file=sys.stderr)


CREATE = Command(
    "[OPTIONS] CONTAINER CHECKPOINT",
    "Create a checkpoint from a running container",
    create,
    flags=(
        Flag("leave-running", "", "bool", "Leave the container running after checkpoint"),
        Flag("pre-copy", "", "int", "Write memory in up to so many rounds before it stops"),
        Flag("with-files", "", "bool", "Save the changed files of the root, and the volumes"),
        *checkpoint_request.FLAGS,
    ),
    min_args=2,
    max_args=2,
    description=(
        "Saves the memory and the open files of all processes with CRIU. The container exits "
        "unless --leave-running is given. jaula start --checkpoint continues it."
    ),
    examples=(
        ("Save a service before a reboot", "jaula checkpoint create web before-reboot"),
        ("Continue it afterwards", "jaula start --checkpoint before-reboot web"),
        ("Save its files as well", "jaula checkpoint create --with-files web before-upgrade"),
    ),
    see_also=("checkpoint ls", "checkpoint inspect", "checkpoint rm", "start"),
    completes="container",
)


def export(options: Options) -> int:
    """Write the archive, signed if a key is given."""
    container, name = options.arguments
    client = Client(Settings.host)
    base = f"/jaula/containers/{quote(container)}"
    query = checkpoint_request.query(options)
    if options.text("key"):
        from jaula import feature

        feature.require("trust", "checkpoint export --key")
        from jaula.features.trust.cli import trust_keys

        trust_keys.enable()
        key = trust_keys.private_key(options.text("key"))
        manifest = client.open("GET", f"{base}/checkpoint-manifest/{quote(name)}", query)
        signature = key.sign(b"".join(manifest.chunks()))
        query += (("signature", b64encode(signature).decode()),)
    response = client.open("GET", f"{base}/checkpoint-archive/{quote(name)}", query)
    image_archive.write(response.chunks(), options.text("output"), "export")
    return 0


EXPORT = Command(
    "[OPTIONS] CONTAINER CHECKPOINT",
    "Export a checkpoint as a tar archive (streamed to STDOUT by default)",
    export,
    flags=(
        checkpoint_request.DIRECTORY,
        Flag("key", "k", "string", "Sign with this private key file", completes="file"),
        Flag("output", "o", "string", "Write to a file, instead of STDOUT", completes="file"),
    ),
    min_args=2,
    max_args=2,
    description=(
        "The archive has the memory of the container, so its secrets too. The engine that wrote it "
        "accepts it. Another engine accepts it if it is signed (--key) by a key that its policy "
        "names in the table [checkpoints]. The client signs; the key is not sent. The layout is "
        "podman's, with a manifest in addition."
    ),
    examples=(
        ("Keep a snapshot elsewhere", "jaula checkpoint export -o web-warm.tar web warm"),
        ("Sign it for another host", "jaula checkpoint export -k team.key -o web.tar web warm"),
    ),
    see_also=("checkpoint import", "snapshot", "trust generate-key"),
    completes="container",
)


def import_(options: Options) -> int:
    """Send an archive to the engine and print the container that it is for."""
    path = options.text("input")
    if not path and sys.stdin.isatty():
        raise CliError("requested import from stdin, but stdin is empty")
    query = tuple((name, options.text(name)) for name in ("name", "network") if options.text(name))
    client = Client(Settings.host)
    with open(path or 0, "rb", buffering=0, closefd=bool(path)) as archive:
        total = file_size(archive.fileno())
        with Progress("import", total=total) as progress:
            response = client.upload("/jaula/checkpoints", query, progress.counted(chunks(archive)))
    for document in decode_lines(response.chunks()):
        for warning in document["Warnings"]:
            sys.stderr.write(f"WARNING: {warning}\n")
        verb = "Created" if document["Created"] else "Found"
        print(f"{verb} container {document['Id']}")
        print(f"Imported checkpoint {document['Checkpoint']}")
    return 0


IMPORT = Command(
    "[OPTIONS]",
    "Import a checkpoint from a tar archive or STDIN",
    import_,
    flags=(
        Flag(
            "input", "i", "string", "Read from tar archive file, instead of STDIN", completes="file"
        ),
        Flag("name", "", "string", "Create another container with this name, as clone does"),
        Flag(
            "network",
            "",
            "string",
            "Create another container, on this network",
            metavar="network",
            completes="network",
        ),
    ),
    max_args=0,
    description=(
        "If the container of the checkpoint does not exist on this engine, it is created from the "
        "archive, which must have its files then. Its image must be here. The archive must be "
        "written by this engine, or signed by a key that the policy names in [checkpoints]. "
        "Everything else is refused before it is read."
    ),
    examples=(
        (
            "Move a container to another host",
            "jaula checkpoint export -k team.key web warm | ssh host jaula checkpoint import",
        ),
        ("Continue it there", "jaula start --checkpoint warm web"),
    ),
    see_also=("checkpoint export", "clone", "trust policy"),
)


def inspect(options: Options) -> int:
    """Print the facts about the checkpoints of one container."""
    container, *names = options.arguments
    client = Client(Settings.host)
    return inspect_output.show(
        names,
        options.text("format"),
        lambda name: client.get(
            f"/jaula/containers/{quote(container)}/checkpoints/{quote(name)}",
            checkpoint_request.query(options),
        ),
    )


INSPECT = Command(
    "[OPTIONS] CONTAINER CHECKPOINT [CHECKPOINT...]",
    "Display detailed information on one or more checkpoints",
    inspect,
    flags=(checkpoint_request.DIRECTORY, inspect_output.FORMAT),
    min_args=2,
    description=(
        "Prints size, addresses and options of a checkpoint, and whether the container can be "
        "started from it: its files must be those that this engine has written."
    ),
    examples=(
        (
            "Check that a checkpoint is unchanged",
            "jaula checkpoint inspect -f '{{.Usable}} {{.Problem}}' web before-reboot",
        ),
    ),
    see_also=("checkpoint create", "checkpoint ls"),
    completes="container",
)


def ls(options: Options) -> int:
    """Print the names of the checkpoints."""
    path = f"/containers/{quote(options.arguments[0])}/checkpoints"
    print("CHECKPOINT NAME")
    for item in Client(Settings.host).get(path, checkpoint_request.query(options)) or []:
        print(item["Name"])
    return 0


LS = Command(
    "[OPTIONS] CONTAINER",
    "List checkpoints for a container",
    ls,
    flags=(checkpoint_request.DIRECTORY,),
    min_args=1,
    max_args=1,
    description="Prints the names of the checkpoints of one container.",
    examples=(("List those of a container", "jaula checkpoint ls web"),),
    see_also=("checkpoint create", "checkpoint inspect", "checkpoint rm"),
    completes="container",
)


def rm(options: Options) -> int:
    """Remove the checkpoint."""
    container, name = options.arguments
    path = f"/containers/{quote(container)}/checkpoints/{quote(name)}"
    Client(Settings.host).request("DELETE", path, checkpoint_request.query(options))
    return 0


RM = Command(
    "[OPTIONS] CONTAINER CHECKPOINT",
    "Remove a checkpoint",
    rm,
    flags=(checkpoint_request.DIRECTORY,),
    min_args=2,
    max_args=2,
    description="Removes one checkpoint. The removal of a container removes all of its own.",
    examples=(("Remove one", "jaula checkpoint rm web before-reboot"),),
    see_also=("checkpoint create", "checkpoint ls"),
    completes="container",
)
