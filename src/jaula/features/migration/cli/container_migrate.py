"""``jaula container migrate``."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError, UsageError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output.ansi import redraws
from jaula.cli.output.visible_stream import write_control
from jaula.features.migration.cli import migrate
from jaula.spec.units import bytes_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STAGES = {
    "image": "Sending image",
    "create": "Creating container at the target",
    "files": "Sending files",
    "pre-copy": "Copying memory while it runs",
    "dump": "Stopped, sending memory",
    "restore": "Restoring at the target",
    "continue": "Given to the target",
}

_OUTCOMES = {
    "running": "It runs at the target, and has exited here.",
    "never-ran": "It did not run at the target, and runs on here.",
}


def run(options: Options) -> int:
    """Move the container, and print the stages to stderr and the id at the target to stdout."""
    project, pod = options.text("project"), options.text("pod")
    if sum(map(bool, (options.arguments, project, pod))) != 1:
        raise UsageError("containers, --project or --pod is required, and one of them", status=1)
    if options.on("keep-address") and options.on("new-address"):
        raise UsageError("--keep-address and --new-address exclude each other", status=1)
    resume = options.on("resume")
    if bool(options.text("to")) == resume:
        raise UsageError("exactly one of --to and --resume is required", status=1)
    address = "keep" if options.on("keep-address") else "new" if options.on("new-address") else ""
    body = {
        "To": options.text("to"),
        "Address": address,
        "Volumes": options.text("volumes") or "copy",
        "DryRun": options.on("dry-run"),
        "EndExecs": options.on("end-execs"),
        "PreCopy": options.number("pre-copy"),
        "Remove": options.on("rm"),
        "Resume": resume,
    }
    client = Client(Settings.host)
    if project or pod or len(options.arguments) > 1:
        if resume:
            raise UsageError("--resume takes one container", status=1)
        del body["Resume"]
        body |= {"Containers": options.arguments, "Project": project, "Pod": pod}
        return migrate.run(client, body, quiet=options.on("quiet"))
    name = options.arguments[0]
    path = f"/jaula/containers/{quote(name)}/migrate"
    printer = _Printer(quiet=options.on("quiet"), table=options.on("dry-run"))
    for document in client.lines("POST", path, body=body):
        printer.add(document)
    return printer.status


class _Printer:
    """Prints the steps of one migration; ``status`` is the exit status of the command."""

    def __init__(self, *, quiet: bool, table: bool) -> None:
        self._quiet = quiet
        self._table = table
        self._stage = ""
        self._live = redraws(2)
        self.status = 0

    def add(self, document: dict[str, Any]) -> None:
        """Print one document of the answer.

        :raises CliError: when it is the engine's error.
        """
        if "error" in document:
            self._end_line()
            raise CliError(document["error"])
        stage = document["Stage"]
        if stage == "check":
            self._check(document["Rows"])
        elif stage == "resumed":
            print(_OUTCOMES[document["Outcome"]])
        elif stage == "done":
            self._end_line()
            self._done(document)
        elif not self._quiet:
            self._step(stage, document)

    def _check(self, rows: list[dict[str, Any]]) -> None:
        if self._table:
            self.status = 0 if migrate.print_checks(rows) else 1

    def _step(self, stage: str, document: dict[str, Any]) -> None:
        text = _STAGES.get(stage, stage)
        if detail := document.get("Detail"):
            text += f" ({detail})"
        if sent := document.get("Sent"):
            text += f": {bytes_size(sent)}"
        is_same = stage == self._stage and stage != "pre-copy"  # each round has its line
        if self._live and is_same:
            write_control(sys.stderr, "\r")
        elif is_same:
            return
        else:
            self._end_line()
        sys.stderr.write(text if self._live else f"{text}\n")
        if self._live:
            write_control(sys.stderr, "\x1b[K")
        sys.stderr.flush()
        self._stage = stage

    def _end_line(self) -> None:
        if self._stage and self._live:
            sys.stderr.write("\n")
        self._stage = ""

    def _done(self, document: dict[str, Any]) -> None:
        if not self._quiet:
            address = "its address" if document["KeepsAddress"] else "a new address"
            print(
                f"Runs at {document['Target']} with {address};"
                f" stood still for {document['PauseMilliseconds']} ms,"
                f" {bytes_size(document['Sent'])} sent"
                f" in {document['TotalMilliseconds'] / 1000:.1f} s",
                file=sys.stderr,
            )
        print(document["Container"])


COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...] --to tcp://HOST:2376",
    "Move running containers to another engine",
    run,
    flags=(
        Flag("dry-run", "", "bool", "Check both engines, print a table, and move nothing"),
        Flag("end-execs", "", "bool", "End exec'd processes, which cannot be moved"),
        Flag("keep-address", "", "bool", "Keep the addresses, and established TCP connections"),
        Flag("new-address", "", "bool", "Take new addresses, and close TCP connections"),
        Flag("pod", "", "string", "Move a pod with its containers, by its name or id"),
        Flag("pre-copy", "", "int", "Copy memory in up to so many rounds before it stops"),
        Flag("project", "", "string", "Move the running containers of a compose project, as one"),
        Flag("quiet", "q", "bool", "Print the id at the target only"),
        Flag("resume", "", "bool", "Ask how an interrupted migration ended, and finish it"),
        Flag("rm", "", "bool", "Remove the container here when it runs at the target"),
        Flag("to", "", "string", "The other engine: tcp://HOST[:PORT]"),
        Flag(
            "volumes",
            "",
            "string",
            'Copy the files of volumes ("copy"), or the target has the same storage ("shared")',
            completes=("copy", "shared"),
        ),
    ),
    min_args=0,
    description=(
        "Sends image, files and memory of a running container to another engine by mutual TLS. "
        "The container stands still until it runs there; if a step fails, it runs on here. "
        "It never runs twice. Several containers move as one: all are stopped and given to the "
        "target at the same moment, or run on here, and their networks are made there. "
        "Containers that share a network namespace move together. "
        "^C cancels until the container was given to the target."
    ),
    examples=(
        ("See whether it would work", "jaula container migrate web --to tcp://b:2376 --dry-run"),
        ("Move a container", "jaula container migrate web --to tcp://b:2376"),
        ("Move a compose project", "jaula container migrate --project shop --to tcp://b:2376"),
        ("Move a pod of Kubernetes", "jaula container migrate --pod web --to tcp://b:2376"),
        ("Finish after a broken connection", "jaula container migrate web --resume"),
    ),
    see_also=("checkpoint create", "start"),
    completes="container",
)
