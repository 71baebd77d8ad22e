"""The commands of secrets and configs, which differ in one word."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError, UsageError
from jaula.cli.client.api_client import Client, filters, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers.create_body import pairs
from jaula.cli.for_each import each
from jaula.cli.main import Settings
from jaula.cli.output import inspect_output, list_output, times
from jaula.spec import units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIMIT = 1 << 20  # bytes read, more than the engine accepts

ABOUT = {
    "secret": "Containers mount it with --secret, as a file on a tmpfs of their own.",
    "config": "Containers mount it with --config, as a read-only file.",
}


def create(noun: str) -> Command:
    """Return the command ``create NAME FILE|-``."""

    def run(options: Options) -> int:
        from base64 import b64encode

        name, source = options.arguments
        body = {
            "Name": name,
            "Labels": pairs(options.texts("label"), "label"),
            "Data": b64encode(_content(source)).decode(),
        }
        print(Client(Settings.host).document("POST", f"/{noun}s/create", (), body)["ID"])
        return 0

    return Command(
        f"[OPTIONS] {noun.upper()} file|-",
        f"Create a {noun} from a file or STDIN as content",
        run,
        flags=(Flag("label", "l", "list", "Set metadata (key=value)"),),
        min_args=2,
        max_args=2,
        description=ABOUT[noun] + " It is stored encrypted.",
        examples=(
            ("Read it from standard input", f"printf %s hunter2 | jaula {noun} create db -"),
        ),
        see_also=(f"{noun} ls", f"{noun} rm", "run"),
    )


def _content(source: str) -> bytes:
    if source == "-":
        return sys.stdin.buffer.read(LIMIT)
    try:
        with open(source, "rb") as file:
            return file.read(LIMIT)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CliError(f"error reading from {source}: open {source}: {reason}") from None


def ls(noun: str) -> Command:
    """Return the command ``ls``."""
    columns: dict[str, list_output.Column] = {
        "ID": ("ID", lambda item: item["ID"]),
        "Name": ("NAME", lambda item: item["Spec"]["Name"]),
        "Driver": ("DRIVER", lambda item: ""),
        "CreatedAt": ("CREATED", lambda item: _ago(item["CreatedAt"])),
        "UpdatedAt": ("UPDATED", lambda item: _ago(item["UpdatedAt"])),
        "Labels": ("LABELS", lambda item: _labels(item["Spec"].get("Labels") or {})),
    }
    driver = "{{.Driver}}\t" if noun == "secret" else ""
    table = "{{.ID}}\t{{.Name}}\t" + driver + "{{.CreatedAt}}\t{{.UpdatedAt}}"

    def run(options: Options) -> int:
        query = (("filters", filters(options.texts("filter"))),)
        items = Client(Settings.host).get(f"/{noun}s", query) or []
        output_format = options.text("format")
        if options.on("quiet") and output_format in ("", "table"):
            output_format = "{{.ID}}"
        list_output.show(items, columns, table, output_format)
        return 0

    return Command(
        "[OPTIONS]",
        f"List {noun}s",
        run,
        flags=(
            Flag(
                "filter",
                "f",
                "list",
                "Filter output based on conditions provided (name=a, label=a=b, id=x)",
            ),
            Flag(
                "format",
                "",
                "string",
                "Format output using a custom template (table, json, or a Go template)",
            ),
            Flag("quiet", "q", "bool", "Only display IDs"),
        ),
        max_args=0,
        description="Prints names and times, not the content.",
        examples=((f"Names of all {noun}s", f"jaula {noun} ls --format '{{{{.Name}}}}'"),),
        see_also=(f"{noun} create", f"{noun} rm"),
    )


def inspect(noun: str) -> Command:
    """Return the command ``inspect NAME...``."""

    def run(options: Options) -> int:
        client = Client(Settings.host)
        if not options.on("pretty"):
            return inspect_output.show(
                options.arguments,
                options.text("format"),
                lambda name: client.get(f"/{noun}s/{quote(name)}"),
            )
        if options.is_set("format"):
            raise UsageError("--format is incompatible with human friendly format", status=1)
        return each(
            options.arguments,
            lambda name: print(_pretty(client.get(f"/{noun}s/{quote(name)}"))),
        )

    return Command(
        f"[OPTIONS] {noun.upper()} [{noun.upper()}...]",
        f"Display detailed information on one or more {noun}s",
        run,
        flags=(
            inspect_output.FORMAT,
            Flag("pretty", "", "bool", "Print the information in a human friendly format"),
        ),
        min_args=1,
        description=(
            "Prints Docker's document of each as JSON, or the output of a template."
            + (" The document does not contain the content." if noun == "secret" else "")
        ),
        examples=(("Print the labels", f"jaula {noun} inspect -f '{{{{.Spec.Labels}}}}' db"),),
        see_also=(f"{noun} ls",),
        completes=noun,
    )


def _pretty(document: dict[str, Any]) -> str:
    """Return Docker's lines for one secret or config, with the content of a config."""
    spec = document["Spec"]
    lines = [f"ID:\t\t\t{document['ID']}", f"Name:\t\t\t{spec['Name']}"]
    if spec.get("Labels"):
        lines.append("Labels:")
        lines += [f" - {k}={v}" if v else f" - {k}" for k, v in sorted(spec["Labels"].items())]
    lines.append(f"Created at:            \t{document['CreatedAt']}")
    lines.append(f"Updated at:            \t{document['UpdatedAt']}")
    if spec.get("Data"):
        from base64 import b64decode

        lines += ["Data:", b64decode(spec["Data"]).decode(errors="replace")]
    return "\n".join(lines)


def rm(noun: str) -> Command:
    """Return the command ``rm NAME...``."""

    def run(options: Options) -> int:
        client = Client(Settings.host)
        return each(
            options.arguments, lambda name: client.request("DELETE", f"/{noun}s/{quote(name)}")
        )

    return Command(
        f"{noun.upper()} [{noun.upper()}...]",
        f"Remove one or more {noun}s",
        run,
        min_args=1,
        description=f"A {noun} that a container uses, running or not, is not removed.",
        examples=((f"Remove a {noun}", f"jaula {noun} rm db"),),
        see_also=(f"{noun} ls", f"{noun} create"),
        completes=noun,
    )


def _ago(stamp: str) -> str:
    return times.ago(units.unix_time(stamp))


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


CONFIG_CREATE = create("config")
CONFIG_INSPECT = inspect("config")
CONFIG_LS = ls("config")
CONFIG_RM = rm("config")
SECRET_CREATE = create("secret")
SECRET_INSPECT = inspect("secret")
SECRET_LS = ls("secret")
SECRET_RM = rm("secret")
