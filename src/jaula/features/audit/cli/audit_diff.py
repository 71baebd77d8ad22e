"""``jaula audit diff``: the controls and subjects that changed between two reports."""

from __future__ import annotations

import os

from jaula.cli.cli_errors import CliError, UsageError
from jaula.cli.command_parser import Command, Flag, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.features.audit.benchmark.history import Entry

FORMATS = ("table", "json")


def run(options: Options) -> int:
    """Print the changes; 1 if a control or subject fails that did not."""
    output_format = options.choice("format", FORMATS)
    if len(options.arguments) == 1:
        raise UsageError('"jaula audit diff" requires two reports, or none.', status=1)
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.errors import JaulaError
    from jaula.features.audit.benchmark import history

    try:
        if options.arguments:
            before, after = (history.load(path) for path in options.arguments)
        else:
            before, after = _last_two()
    except JaulaError as error:
        raise CliError(f"jaula: {error}") from None
    changes = history.diff(before, after)
    if output_format == "json":
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(changes)).decode())
    else:
        from jaula.features.verify.model.result import table

        rows = [(c.id, c.before or "absent", c.after or "absent", c.subject) for c in changes]
        print(table(("ID", "BEFORE", "AFTER", "SUBJECT"), rows))
        print(
            f"{before.time} {before.holding}/{before.applicable} -> "
            f"{after.time} {after.holding}/{after.applicable}"
        )
    return 1 if any(change.after in ("fail", "unknown") for change in changes) else 0


def _last_two() -> tuple[Entry, Entry]:
    """Return the last two entries of the engine's history.

    :raises CliError: when there are fewer.
    """
    from pathlib import Path

    from jaula.features.audit.benchmark import history

    top = history.directory(os.environ, str(Path.home()))
    entries = history.comparable(history.History(top, _engine()).read())
    if len(entries) < 2:
        raise CliError(
            f"jaula: {top} has fewer than two reports of this engine with the same scopes: "
            "run jaula audit, or name two files of jaula audit --format json"
        )
    return entries[-2], entries[-1]


def _engine() -> str:
    """Return the id of the engine, or the host's name if none answers."""
    from jaula.cli.client.api_client import Client
    from jaula.cli.main import Settings

    client = Client(Settings.host)
    try:
        return str(Client(client.address.text).get("/info")["ID"])
    except CliError:
        return os.uname().nodename


COMMAND = Command(
    "[OPTIONS] [BEFORE AFTER]",
    "Show what changed between two reports of jaula audit",
    run,
    flags=(
        Flag("format", "", "string", "Format of the changes (table or json)", completes=FORMATS),
    ),
    max_args=2,
    completes="file",
    description=(
        "Compares two files of jaula audit --format json, or without arguments the last two "
        "reports on the engine that have the same scopes."
    ),
    examples=(
        ("Compare with the report before", "jaula audit diff"),
        ("Compare two files", "jaula audit diff monday.json tuesday.json"),
    ),
    exit_status=(("0", "nothing fails that did not"), ("1", "a control or subject fails anew")),
    see_also=("audit",),
)
