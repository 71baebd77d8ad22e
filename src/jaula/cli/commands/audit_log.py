"""``jaula system audit-log``: what was asked of the engine, by whom, and whether the log is whole.

The log is read from its files, not from the engine: it is evidence about what went through that.
"""

from __future__ import annotations

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError, UsageError
from jaula.cli.main import Settings
from jaula.cli.output import times
from jaula.spec import units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

FORMATS = ("table", "json")
_HEADINGS = ("TIME", "USER", "PROCESS", "ACTION", "OBJECT", "STATUS", "RELAXED")


def run(options: Options) -> int:
    """Print lines, or say whether the log is whole; 1 where it is not."""
    form = options.text("format", "table")
    if form not in FORMATS:
        raise UsageError(f'invalid argument "{form}" for "--format": one of {", ".join(FORMATS)}')
    since, until = (times.timestamp(options.text(name)) for name in ("since", "until"))
    from jaula.cli import site_packages

    site_packages.enable()
    directory = _directory(options)
    try:
        if options.on("verify"):
            return _verify(directory)
        _print(directory, form, float(since or 0), float(until or "inf"))
    except PermissionError:
        raise CliError(f"the audit log {directory} is for root alone", status=1) from None
    except FileNotFoundError:
        raise CliError(f"there is no audit log in {directory}", status=1) from None
    return 0


def _directory(options: Options) -> Path:
    """Where the log is: as told, as the engine says if one runs, else where it is by default."""
    from jaula.config import Paths

    return Paths(_root(options)).audit_log


def _root(options: Options) -> Path:
    from pathlib import Path

    if options.given("root"):
        return Path(options.text("root"))
    address = Client(Settings.host).address.text
    try:
        return Path(str(Client(address).get("/info")["DockerRootDir"]))  # named: starts no engine
    except CliError:
        from jaula.rootless import paths

        return Path(paths.root())


def _verify(directory: Path) -> int:
    from jaula.state import audit_log
    from jaula.state.audit_log import ChainCheck

    head = audit_log.read_head(directory)  # first: the log may be written to meanwhile
    check = ChainCheck()
    first = 0
    for path in audit_log.files(directory):
        for place, _ in check.lines(audit_log.lines(path), watch=head.n if head else 0):
            first = first or place.n
    findings = check.end(head)
    for finding in findings:
        print(finding.text)
    if findings:
        print("the log is NOT whole")
        return 1
    if not check.last.n:
        print("the log is empty and whole")
        return 0
    print(f"lines {first} to {check.last.n} are whole; the head is {check.last.hash}")
    return 0


def _print(directory: Path, form: str, since: float, until: float) -> None:
    chosen = _chosen(directory, since, until)
    if form == "json":
        for raw, _ in chosen:
            print(raw.decode())
        return
    from jaula.cli.output.table import aligned

    rows = ["\t".join(_HEADINGS), *("\t".join(_cells(entry)) for _, entry in chosen)]
    print(aligned(rows), end="")


def _chosen(directory: Path, since: float, until: float) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Lines of a span of time, raw and read; a damaged one is told by --verify."""
    import json

    from jaula.state import audit_log as state_audit_log

    for path in state_audit_log.files(directory):
        for raw in state_audit_log.lines(path):
            try:
                entry = json.loads(raw)
                when = units.unix_time(entry["time"])
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            if since <= when <= until:
                yield raw, entry


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    """One line for people. Control characters of what clients said are shown as escapes."""
    who = str(entry.get("uid", entry.get("certificate", "nobody")))
    login = entry.get("login_uid")
    if login is not None and str(login) != who:
        who += f" (login {login})"
    what = entry.get("name") or str(entry.get("object", ""))[:12] or entry.get("error", "")
    action = entry.get("action", "")
    if entry.get("argv"):
        action += ": " + " ".join(entry["argv"])
    process = f"{entry.get('command', '')} {entry.get('pid', '')}".strip()
    process = process or str(entry.get("address", ""))
    cells = (
        str(entry.get("time", ""))[:19],
        who,
        process,
        action[:60],
        str(what),
        str(entry.get("status", "")),
        ", ".join(entry.get("asks", ())),
    )
    return tuple(_shown(cell) for cell in cells)


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


COMMAND = Command(
    "[OPTIONS]",
    "Show what was asked of the engine and by whom, or prove that the log is whole",
    run,
    flags=(
        Flag("format", "", "string", "table or json", completes=FORMATS),
        Flag("root", "", "string", "Directory of the engine (default: the running one's)",
             completes="file"),
        Flag("since", "", "string", "Begin with the requests of this time (or 42m ago)"),
        Flag("until", "", "string", "End at this time"),
        Flag("verify", "", "bool", "Follow the chain of hashes and say what is wrong"),
    ),
    most=0,
    description=(
        "One line for each request that changed something or was to: user, login, process, action, "
        "object, the status it ended with, and what it asked for beyond the defaults. Arguments of "
        "exec'd programs are shown, environments never. With --verify each line is held against "
        "the hash that the next one has of it, and the last one against the head that is kept "
        "apart, so that a line that was changed, removed, inserted or cut off is found."
    ),
    examples=(
        ("What was refused today", "jaula system audit-log --since 24h | grep ' 403 '"),
        ("Is it whole", "jaula system audit-log --verify"),
    ),
    exit_status=(("0", "shown, or whole"), ("1", "not whole, or not there")),
    see_also=("system events", "verify"),
)  # fmt: skip
