"""Move containers to another engine: the requests, and the steps of a group on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from jaula.cli.cli_errors import CliError
from jaula.cli.client.api_client import Client, quote
from jaula.spec.units import bytes_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STAGES = {
    "image": "sending image",
    "create": "creating at the target",
    "files": "sending files",
    "pre-copy": "copying memory while it runs",
    "dump": "stopped, sending memory",
    "restore": "restoring at the target",
    "continue": "given to the target",
}


def steps(client: Client, body: dict[str, object], container: str = "") -> Iterable[dict[str, Any]]:
    """Ask the engine to move one container, or the group that the body names; yield its answer.

    :raises CliError: with the engine's reason, when it fails.
    """
    path = f"/jaula/containers/{quote(container)}/migrate" if container else "/jaula/migrate"
    for document in client.lines("POST", path, body=body):
        if "error" in document:
            raise CliError(document["error"])
        yield document


def print_checks(rows: Iterable[dict[str, Any]], indent: str = "") -> bool:
    """Print the checks of both engines, each with its way out; return whether all have passed."""
    passed = True
    for row in rows:
        mark = "ok" if row["Passed"] else "NO"
        print(f"{indent}{mark:4}{row['Check']:14}{row['Detail']}")
        if row["Hint"]:
            print(f"{indent}{'':18}{row['Hint']}")
        passed = passed and row["Passed"]
    return passed


def run(client: Client, body: dict[str, object], *, quiet: bool) -> int:
    """Move a group: the stages to stderr, and the ids at the target to stdout.

    With ``DryRun`` in the body print the checks. Return the exit status.
    """
    if body["DryRun"]:
        return _print_checks(steps(client, body))
    say = (lambda text: None) if quiet else _say
    results = follow(steps(client, body), say)
    if not quiet:
        longest = max(each["PauseMilliseconds"] for each in results)
        sent = sum(each["Sent"] for each in results)
        what = f"{len(results)} containers run"
        if body.get("Pod"):  # one result is that of its sandbox
            count = len(results) - 1
            what = f"The pod runs with {count} container{'s' if count != 1 else ''}"
        print(
            f"{what} at {results[0]['Target']};"
            f" stood still for {longest} ms, {bytes_size(sent)} sent",
            file=sys.stderr,
        )
    for each in results:
        print(each["Container"])
    return 0


def follow(documents: Iterable[dict[str, Any]], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Report each stage of each container once; return the results."""
    results = []
    seen = set()
    for document in documents:
        stage, name = document["Stage"], document["Name"]
        if stage == "done":
            results.append(document)
        elif stage == "network":
            say(f"{name}: {document['Detail']}")
        elif stage in _STAGES and (name, stage) not in seen:
            seen.add((name, stage))
            say(f"{name}: {_STAGES[stage]}")
    return results


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print_checks(documents: Iterable[dict[str, Any]]) -> int:
    status = 0
    for document in documents:
        print(document["Name"])
        if not print_checks(document.get("Rows", ()), "  "):
            status = 1
    return status
