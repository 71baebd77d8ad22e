"""``jaula host evacuate``."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import sys

from jaula.cli.cli_errors import UsageError
from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.signal_events import SIGINT
from jaula.features.migration.cli import evacuate
from jaula.spec import fast_json

FORMATS = ("table", "json")


def run(options: Options) -> int:
    """Move everything, and report what became of each container."""
    target = options.text("to")
    if not target:
        raise UsageError("--to is required", status=1)
    output_format = options.text("format") or "table"
    if output_format not in FORMATS:
        raise UsageError(f"unknown format {output_format!r}: must be table or json", status=1)
    parallel = options.number("parallel", 1)
    if not 1 <= parallel <= 16:
        raise UsageError("--parallel must be from 1 to 16", status=1)
    client = Client(Settings.host)
    units = evacuate.plan(client.get("/containers/json", (("all", True), ("pods", True))) or [])
    evacuation = evacuate.Evacuation(
        target,
        units,
        end_execs=options.on("end-execs"),
        pre_copy=options.number("pre-copy"),
        quiet=options.on("quiet"),
    )
    dry_run = options.on("dry-run")
    if dry_run:
        evacuation.check()
    else:
        _run(evacuation, parallel)
    rows = [evacuation.rows[name] for unit in units for name in unit.names]
    if options.on("stop-rest") and not dry_run:
        evacuate.stop_rest(rows)
    if output_format == "json":
        print(fast_json.encode(evacuate.document(target, rows)))
    elif rows:
        print(evacuate.table(rows), end="")
    if dry_run:
        return int(any(row.result == evacuate.STAYS for row in rows))
    moved = all(row.result == evacuate.MOVED for row in rows)
    return int(not moved and bool(client.get("/containers/json", (("pods", True),))))


def _run(evacuation: evacuate.Evacuation, parallel: int) -> None:
    """Move all units. The first ^C lets the current ones end, the second one cancels them."""

    def on_interrupt(*_: object) -> None:
        print("ending after the current move; ^C again cancels it", file=sys.stderr, flush=True)
        evacuation.stop()
        _signal.signal(SIGINT, _signal.default_int_handler)

    before = _signal.signal(SIGINT, on_interrupt)
    try:
        evacuation.run(parallel)
    finally:
        _signal.signal(SIGINT, before)


COMMAND = Command(
    "[OPTIONS] --to tcp://HOST:2376",
    "Move all containers of this host to another engine",
    run,
    flags=(
        Flag("dry-run", "", "bool", "Print what can move and what cannot, and move nothing"),
        Flag("end-execs", "", "bool", "End exec'd processes, which cannot be moved"),
        Flag("format", "", "string", "Format of the report (table or json)", completes=FORMATS),
        Flag("parallel", "", "int", "Groups and single containers that move at a time (default 1)"),
        Flag("pre-copy", "", "int", "Copy memory in up to so many rounds before the stop"),
        Flag("quiet", "q", "bool", "Print the report only"),
        Flag("stop-rest", "", "bool", "Stop the running containers that cannot move"),
        Flag("to", "", "string", "The other engine: tcp://HOST[:PORT]"),
    ),
    max_args=0,
    description=(
        "Moves the running containers with their memory, and the files of those that do not run. "
        "The containers of a compose project or of a pod move as one, and so do those with a "
        "common volume or network namespace. Their networks are made at the target. The status is "
        "0 if everything has moved, or nothing runs here any more. ^C lets the current move end, "
        "and reports what remains."
    ),
    examples=(
        ("See what would move", "jaula host evacuate --to tcp://b:2376 --dry-run"),
        ("Empty this host", "jaula host evacuate --to tcp://b:2376 --stop-rest"),
    ),
    see_also=("container migrate",),
)
