"""``jaula clone``."""

from __future__ import annotations

from contextlib import suppress

from jaula.cli.cli_errors import EngineError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers import publish_option
from jaula.cli.containers.create_body import pairs
from jaula.cli.main import Settings
from jaula.cli.output.progress_line import Progress
from jaula.features.checkpoint.cli import checkpoint_request


def run(options: Options) -> int:
    """Create the clone, start it from the checkpoint, and print its id."""
    container, name = options.arguments
    body = {
        "Name": options.text("name"),
        "NetworkMode": options.text("network"),
        "PortBindings": publish_option.documents(options.texts("publish"), [])[1],
        "Labels": pairs(options.texts("label"), "label"),
        "AutoRemove": options.on("rm"),
    }
    client = Client(Settings.host)
    path = f"/jaula/containers/{quote(container)}/clone/{quote(name)}"
    with Progress("clone"):
        created = client.document("POST", path, checkpoint_request.query(options), body)
    identifier = str(created["Id"])
    if not options.on("no-start"):
        query = (("checkpoint", name),)
        try:
            client.request("POST", f"/containers/{identifier}/start", query)
        except EngineError:
            _remove(client, identifier)
            raise
    print(identifier)
    return 0


def _remove(client: Client, clone: str) -> None:
    """Remove a clone that could not be started, and the volumes that were created for it."""
    volumes = _volumes(client, clone)
    client.request("DELETE", f"/containers/{clone}", (("force", "1"), ("v", "1")))
    for name in volumes:
        # An anonymous one is gone already, and another client may have its name now.
        with suppress(EngineError):
            client.request("DELETE", f"/volumes/{quote(name)}", (("transaction", clone),))


def _volumes(client: Client, container: str) -> set[str]:
    mounts = client.get(f"/containers/{quote(container)}/json")["Mounts"]
    return {str(mount["Name"]) for mount in mounts if mount["Type"] == "volume"}


COMMAND = Command(
    "[OPTIONS] CONTAINER CHECKPOINT",
    "Create and start another container from a snapshot",
    run,
    flags=(
        checkpoint_request.DIRECTORY,
        Flag("label", "l", "list", "Set meta data on the clone (key=value)"),
        Flag("name", "", "string", "Assign a name to the clone"),
        Flag(
            "network",
            "",
            "string",
            "Connect the clone to another network",
            metavar="network",
            completes="network",
        ),
        Flag("no-start", "", "bool", "Create the clone only"),
        Flag("publish", "p", "list", "Publish a clone's port(s) to the host"),
        Flag("rm", "", "bool", "Automatically remove the clone when it exits"),
    ),
    min_args=2,
    max_args=2,
    description=(
        "The clone goes on where the processes were: a program that has warmed up need not do so "
        "again. It has the same request, but another name, host name and addresses, copies of the "
        "volumes, and no published ports unless -p names some. A snapshot can be cloned any number "
        "of times. A program that listens on its former address, and not on all, cannot be cloned."
    ),
    examples=(
        ("Save a service that has warmed up", "jaula snapshot web warm"),
        ("Start two more", "jaula clone --name web2 web warm; jaula clone --name web3 web warm"),
    ),
    see_also=("snapshot", "rollback", "start"),
    completes="container",
)
