"""``jaula system audit-log``: the requests to the engine, and the integrity of their log.

The command reads the log files and does not query the engine: the log is evidence about the engine.
"""

from __future__ import annotations

from jaula.cli.cli_errors import CliError, UsageError
from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output import times
from jaula.spec import units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from jaula.state.audit_log import Head, Verification

FORMATS = ("table", "json")
_HEADINGS = ("TIME", "USER", "PROCESS", "ACTION", "OBJECT", "STATUS", "RELAXED")


def run(options: Options) -> int:
    """Print log entries, or verify the log; 1 if the log is not intact."""
    output_format = options.choice("format", FORMATS)
    since, until = (times.timestamp(options.text(name)) for name in ("since", "until"))
    from jaula.cli import site_packages

    site_packages.enable()
    directory = _directory(options)
    try:
        if options.on("verify"):
            return _verify(directory, options.texts("head"))
        _print(directory, output_format, float(since or 0), float(until or "inf"))
    except PermissionError:
        raise CliError(f"the audit log {directory} is readable by root only", status=1) from None
    except FileNotFoundError:
        raise CliError(f"no audit log in {directory}", status=1) from None
    return 0


def _directory(options: Options) -> Path:
    """Return the directory of the log: of ``--root``, of the running engine, or the default."""
    from jaula.config import Paths

    return Paths(_root(options)).audit_log


def _root(options: Options) -> Path:
    from pathlib import Path

    if options.is_set("root"):
        return Path(options.text("root"))
    address = Client(Settings.host).address.text
    try:
        return Path(
            str(Client(address).get("/info")["DockerRootDir"])
        )  # an explicit address starts no engine
    except CliError:
        from jaula.rootless import xdg_paths

        return Path(xdg_paths.root())


def _verify(directory: Path, copies: Sequence[str]) -> int:
    from jaula.state import audit_log
    from jaula.state.audit_trail import REFUSED

    heads = [_head(text) for text in copies]
    refused = directory / REFUSED
    done = audit_log.verify(directory, [head for of_refused, head in heads if not of_refused])
    intact = _report("", done)
    if refused.is_dir():  # an older engine wrote none
        copied = [head for of_refused, head in heads if of_refused]
        intact &= _report("refused requests: ", audit_log.verify(refused, copied))
    return 0 if intact else 1


def _head(text: str) -> tuple[bool, Head]:
    """Return whether a copy is of the log of refused requests, and the head."""
    from jaula.state.audit_log import Head

    log, colon, rest = text.rpartition("refused:")
    number, _, digest = (rest if colon else text).partition(":")
    valid = number.isascii() and number.isdigit() and len(digest) == 64
    if log or not valid or set(digest) - set("0123456789abcdef"):
        raise UsageError(f'invalid argument "{text}" for "--head": must be [refused:]LINE:SHA256')
    return bool(colon), Head(int(number), digest)


def _report(prefix: str, verification: Verification) -> bool:
    """Print the result for one log. Return whether it is intact."""
    first, last, errors = verification
    for error in errors:
        print(prefix + error.text)
    if errors:
        print(f"{prefix}the log is NOT intact")
    elif not last.n:
        print(f"{prefix}the log is empty and intact")
    else:
        print(f"{prefix}lines {first} to {last.n} are intact; the head is {last.hash}")
    return not errors


def _print(directory: Path, output_format: str, since: float, until: float) -> None:
    entries = _entries(directory, since, until)
    if output_format == "json":
        for raw, _ in entries:
            print(raw.decode())
        return
    from jaula.cli.output.text_table import aligned

    rows = ["\t".join(_HEADINGS), *("\t".join(_cells(entry)) for _, entry in entries)]
    print(aligned(rows), end="")


def _entries(directory: Path, since: float, until: float) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield the entries of a time span in the order of their times, raw and parsed.

    Damaged lines are skipped: --verify reports them.
    """
    import heapq

    from jaula.state.audit_trail import REFUSED

    logs = [each for each in (directory, directory / REFUSED) if each.is_dir()]
    if not logs:
        raise FileNotFoundError(directory)
    merged = heapq.merge(*map(_log_entries, logs), key=lambda each: each[0])
    for when, raw, entry in merged:
        if since <= when <= until:
            yield raw, entry


def _log_entries(directory: Path) -> Iterator[tuple[float, bytes, dict[str, Any]]]:
    """Yield the entries of one log with their times."""
    import json

    from jaula.state import audit_log

    for path in audit_log.files(directory):
        for raw in audit_log.lines(path):
            try:
                entry = json.loads(raw)
                when = units.unix_time(entry["time"])
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            yield when, raw, entry


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    """Return the table cells of one entry. Control characters in the clients' text are escaped."""
    client = str(entry.get("uid", entry.get("certificate", "unknown")))
    if entry.get("container"):
        client = f"container {str(entry['container'])[:12]}"
    login = entry.get("login_uid")
    if login is not None and str(login) != client:
        client += f" (login {login})"
    object_name = entry.get("name") or str(entry.get("object", ""))[:12] or entry.get("error", "")
    action = entry.get("action", "")
    if entry.get("argv"):
        action += ": " + " ".join(entry["argv"])
    if entry.get("count"):
        action = f"{entry['count']} x {action}"
    process = f"{entry.get('command', '')} {entry.get('pid', '')}".strip()
    process = process or str(entry.get("address", ""))
    cells = (
        str(entry.get("time", ""))[:19],
        client,
        process,
        action[:60],
        str(object_name),
        str(entry.get("status", "")),
        ", ".join(entry.get("asks", ())),
    )
    return tuple(_escaped(cell) for cell in cells)


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


COMMAND = Command(
    "[OPTIONS]",
    "Show the requests to the engine and their clients, or verify the log",
    run,
    flags=(
        Flag("format", "", "string", "table or json", completes=FORMATS),
        Flag("head", "", "list", "With --verify: a head that was stored elsewhere"
             " ([refused:]LINE:SHA256)"),
        Flag("root", "", "string", "Data directory of the engine (default: the running engine's)",
             completes="file"),
        Flag("since", "", "string", "Show entries since timestamp (or relative, e.g. 42m)"),
        Flag("until", "", "string", "Show entries before a timestamp"),
        Flag("verify", "", "bool", "Verify the hash chain and report damage"),
    ),
    max_args=0,
    description=(
        "Prints one line for each request that changed something or tried to: user, login, "
        "process, action, object, resulting status, and the privileges requested beyond the "
        "defaults. Arguments of exec'd programs are shown, environments never. With --verify "
        "each line is compared with the hash in the next line, and the last line with the head "
        "that is stored separately. This detects lines that were changed, removed, inserted, "
        "appended or truncated. Refused requests have files of their own; those that repeat "
        "are one line with their number."
    ),
    examples=(
        ("Requests refused today", "jaula system audit-log --since 24h | grep ' 403 '"),
        ("Verify the log", "jaula system audit-log --verify"),
        ("Compare it with a head in the journal (journalctl -t jaula-audit)",
         "jaula system audit-log --verify --head 42:3f2a..."),
    ),
    exit_status=(("0", "printed, or intact"), ("1", "not intact, or absent")),
    see_also=("system events", "verify"),
)  # fmt: skip
