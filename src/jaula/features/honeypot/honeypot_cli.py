"""Runs of honeypots on the terminal: ``jaula record show`` of a directory or a container's name.

Everything that the container or an intruder chose is printed with escapes.
"""

from __future__ import annotations

import os
import time

from jaula.cli.cli_errors import CliError
from jaula.cli.client.api_client import Client
from jaula.cli.main import Settings
from jaula.cli.output import text_table
from jaula.features.record.cli.record_output import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from jaula.features.honeypot.run_directory import Index

MAX_LINES = 200  # connections that are printed; the file has all of them
MAX_LIST = 80 << 20  # bytes; more than the sink writes
_DATA = 60  # characters of a connection's data
_HEADINGS = ("TIME", "PROTOCOL", "FROM", "TO", "NAME", "SERVICE", "IN", "OUT", "DATA")


def show_run(name: str, *, as_json: bool) -> bool:
    """Print the run of a honeypot that ``name`` means; return whether there is one."""
    run = find(name)
    if run:
        show(run, as_json=as_json)
    return bool(run)


def find(argument: str) -> str | None:
    """Return the directory of a run: the argument, or the newest run of that container.

    None: the argument is a file, or no container has such runs.
    """
    if os.path.isdir(argument):
        return argument
    if os.path.exists(argument) or "/" in argument:
        return None
    try:
        root = Client(Settings.host).get("/info")["DockerRootDir"]
        entries = os.listdir(os.path.join(root, "honeypots"))
    except (CliError, OSError, KeyError):
        return None
    runs = sorted(entry for entry in entries if _name(entry) == argument)
    return os.path.join(root, "honeypots", runs[-1]) if runs else None


def _name(entry: str) -> str:
    """Return the container's name in the name of a run, NAME-TIME or NAME-TIME-NUMBER."""
    head, _, tail = entry.rpartition("-")
    if tail.isdigit():
        head, _, tail = head.rpartition("-")
    return head if len(tail) == 16 and tail.endswith("Z") else ""


def show(directory: str, *, as_json: bool) -> None:
    """Print a run.

    :raises CliError: when the directory is not that of a run.
    """
    from jaula.cli import site_packages

    site_packages.enable()
    import msgspec

    from jaula.features.honeypot import run_directory

    try:
        with open(os.path.join(directory, run_directory.INDEX), "rb") as file:
            data = file.read(MAX_LIST)
        index = msgspec.json.decode(data, type=run_directory.Index)
    except OSError as error:
        raise CliError(
            f"jaula: {directory} is not the record of a honeypot: {error.strerror}"
        ) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CliError(f"jaula: {directory}/{run_directory.INDEX}: {error}") from None
    if as_json:
        print(msgspec.json.encode(index).decode())
        return
    connections = sorted(_connections(directory), key=lambda line: float(line.get("time", 0)))
    _print(index, directory, connections)


def _connections(directory: str) -> Iterator[dict[str, Any]]:
    from jaula.features.honeypot import run_directory
    from jaula.spec import fast_json

    try:
        with open(os.path.join(directory, run_directory.CONNECTIONS), "rb") as file:
            for line in file.read(MAX_LIST).splitlines():
                yield fast_json.decode(line)
    except (OSError, ValueError):
        return  # no connection, or the last line is not complete


def _print(index: Index, directory: str, connections: list[dict[str, Any]]) -> None:
    container, numbers = index.container, index.connections
    rows = {
        "Honeypot": f"{container.name} ({container.id[:12]})",
        "Image": f"{container.image} ({container.image_id})",
        "Started": index.started,
        "Ended": f"{index.ended}: {index.reason}" if index.ended else "still running",
        "Directory": directory,
    }
    if index.record:
        rows["System calls"] = f"{index.record}, head {index.record_head or index.record_error}"
    if index.ended:
        rows["Connections"] = (
            f"{numbers.outgoing} outgoing, {numbers.datagrams} datagrams, {numbers.incoming} "
            f"incoming, {numbers.refused} refused, {numbers.unrecorded} not listed"
        )
    for reason, count in index.dropped.items():
        rows[f"Dropped: {reason}"] = str(count)
    for title, value in rows.items():
        print(f"{title}: {printable(value)}")
    if connections:
        lines = ["\t".join(_HEADINGS)]
        lines += ["\t".join(map(printable, _cells(each))) for each in connections[:MAX_LINES]]
        print("\n" + text_table.aligned(lines), end="")
        if len(connections) > MAX_LINES:
            print(f"({len(connections) - MAX_LINES} more in connections.jsonl)")
    if index.samples:
        lines = ["\t".join(("SHA256", "SIZE", "MODE", "WRITES", "PATHS"))]
        lines += [
            "\t".join(
                (
                    each.sha256[:16],
                    str(each.size),
                    each.mode,
                    str(each.writes),
                    printable(" ".join(each.paths)),
                )
            )
            for each in index.samples
        ]
        print("\n" + text_table.aligned(lines), end="")
    sessions = [name for name in index.sessions if _has_events(f"{directory}/sessions/{name}")]
    if sessions:
        print("\nSESSIONS")
        for name in sessions:
            print(f"{directory}/sessions/{printable(name)}")


def _has_events(path: str) -> bool:
    """Return whether a session has more than its header."""
    try:
        with open(path, "rb") as file:
            file.readline(1 << 16)
            return bool(file.read(1))
    except OSError:
        return False


def _cells(line: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of a connection. Pure."""
    moment = time.strftime("%H:%M:%S", time.gmtime(float(line.get("time", 0))))
    if line.get("direction") == "error":
        return moment, "error", "", "", "", "", "", "", str(line.get("error", ""))
    shown = line.get("decrypted") or line.get("data") or {}
    text = str(line.get("query") or shown.get("text", ""))
    words = (line.get("service", ""), line.get("session", ""))
    return (
        moment,
        str(line.get("protocol", "")),
        str(line.get("source", "")),
        str(line.get("destination", "")),
        str(line.get("name") or line.get("server_name", "")),
        " ".join(str(word) for word in words if word),
        str(line.get("received", "")),
        str(line.get("sent", "")),
        text if len(text) <= _DATA else text[:_DATA] + "…",
    )
