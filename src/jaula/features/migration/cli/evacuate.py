"""Evacuate a host: group its containers, move the groups in order, and report each result.

:func:`plan` decides, :class:`Evacuation` asks the engine, and :func:`table` and :func:`document`
report.
"""

from __future__ import annotations

import sys
import threading
import time

from jaula.cli.cli_errors import CliError, EngineError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.main import Settings
from jaula.cli.output.text_table import aligned
from jaula.features.migration.cli import migrate
from jaula.spec.units import bytes_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

PROJECT = "com.docker.compose.project"
MOVED, FITS, STAYS, STOPPED, LEFT = "moved", "can move", "cannot move", "stopped", "not tried"


class Unit:
    """Containers that move as one. ``label`` names the project, or says what they share."""

    def __init__(self, containers: list[dict[str, Any]], label: str = "") -> None:
        self.containers = containers
        self.label = label
        self.running = any(_runs(each) for each in containers)

    @property
    def names(self) -> list[str]:
        """The names of the containers."""
        return [_name(each) for each in self.containers]

    @property
    def title(self) -> str:
        """A short name for people."""
        if len(self.containers) == 1:
            return self.names[0]
        return f"{self.label} ({len(self.containers)} containers)"


class Row:
    """The result of one container."""

    def __init__(self, name: str, unit: Unit, result: str, reason: str = "") -> None:
        self.name = name
        self.group = unit.label
        self.running = unit.running
        self.result = result
        self.reason = reason
        self.pause = 0  # milliseconds
        self.sent = 0  # bytes
        self.there = ""  # id at the target


def plan(containers: Iterable[dict[str, Any]]) -> list[Unit]:
    """Return what moves together: groups, then single containers, then those that do not run. Pure.

    ``containers`` are documents of ``GET /containers/json``. Running containers of one project or
    pod, or with a common volume or network namespace, are a group. The cluster removes what does
    not run in a pod.
    """
    running: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for each in sorted(containers, key=_name):
        if _runs(each):
            running.append(each)
        elif "Pod" not in each:
            others.append(each)
    groups: list[tuple[set[tuple[str, str]], list[dict[str, Any]]]] = []
    for each in running:
        keys = _ties(each)
        joined = [group for group in groups if group[0] & keys]
        for group in joined:
            groups.remove(group)
            keys |= group[0]
        members = [member for group in joined for member in group[1]]
        groups.append((keys, [*members, each]))
    units = [Unit(members, _label(members)) for _, members in groups]
    units.sort(key=lambda unit: (len(unit.containers) == 1, unit.names))
    return units + [Unit([each]) for each in others]


def _runs(container: dict[str, Any]) -> bool:
    return container["State"] in ("running", "paused", "restarting")


def _name(container: dict[str, Any]) -> str:
    return str(container["Names"][0].lstrip("/"))


def _ties(container: dict[str, Any]) -> set[tuple[str, str]]:
    ties = {("volume", mount["Name"]) for mount in container["Mounts"] if mount.get("Name")}
    if project := container["Labels"].get(PROJECT):
        ties.add(("project", project))
    if pod := container.get("Pod"):
        ties.add(("container", pod["Sandbox"]))
    kind, _, owner = container["HostConfig"]["NetworkMode"].partition(":")
    if kind == "container":
        ties.add(("container", owner))
    ties.add(("container", container["Id"]))
    return ties


def _label(members: list[dict[str, Any]]) -> str:
    for each in members:
        if project := each["Labels"].get(PROJECT):
            return str(project)
        if pod := each.get("Pod"):
            return f"pod {pod['Name']}"
    if len(members) == 1:
        return ""
    common = set.intersection(*map(_ties, members))
    if volumes := [name for kind, name in common if kind == "volume"]:
        return f"volume {min(volumes)}"
    owners = [_name(each) for each in members if ("container", each["Id"]) in common]
    return f"network of {owners[0]}" if owners else "common volumes"


class Evacuation:
    """Moves units one after another, or ``parallel`` at a time. :meth:`stop` lets none begin."""

    def __init__(
        self, target: str, units: list[Unit], *, end_execs: bool, pre_copy: int, quiet: bool
    ) -> None:
        self._target = target
        self._units = units
        self._options = {"EndExecs": end_execs, "PreCopy": pre_copy}
        self._quiet = quiet
        self._next = 0
        self._lock = threading.Lock()
        self._stopped = False
        self.rows: dict[str, Row] = {}  # by name

    def stop(self) -> None:
        """Begin no other unit."""
        self._stopped = True

    def check(self) -> None:
        """Ask whether each unit can move."""
        for unit in self._units:
            try:
                self._set(unit, FITS, self._refusals(unit))
            except CliError as error:
                self._set(unit, STAYS, dict.fromkeys(unit.names, _reason(error)))

    def _refusals(self, unit: Unit) -> dict[str, str]:
        """Return the reason for each container that cannot move."""
        found = {}
        for document in self._documents(unit, dry_run=True):
            name = document.get("Name", unit.names[0])
            for row in document.get("Rows", ()):
                if not row["Passed"] and name not in found:
                    hint = f" ({row['Hint']})" if row["Hint"] else ""
                    found[name] = f"{row['Check']}: {row['Detail']}{hint}"
        return found

    def run(self, parallel: int) -> None:
        """Move all units."""
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(parallel)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.05)  # a signal is handled here
        for unit in self._units[self._next :]:
            self._set(unit, LEFT, {})

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._stopped or self._next == len(self._units):
                    return
                unit = self._units[self._next]
                self._next += 1
                number = self._next
            self._move(unit, f"[{number}/{len(self._units)}] {unit.title}")

    def _move(self, unit: Unit, title: str) -> None:
        self._say(f"{title}: moving")
        try:
            if refusals := self._refusals(unit):
                self._set(unit, STAYS, refusals)
                self._say(f"{title}: cannot move: {next(iter(refusals.values()))}")
                return
            results = migrate.follow(self._documents(unit), lambda text: None)
        except CliError as error:
            self._set(unit, STAYS, dict.fromkeys(unit.names, _reason(error)))
            self._say(f"{title}: cannot move: {_reason(error)}")
            return
        self._set(unit, MOVED, {})
        for result in results:
            row = self.rows[result.get("Name", unit.names[0])]
            row.pause, row.sent = result["PauseMilliseconds"], result["Sent"]
            row.there = result["Container"]
        pause = max(result["PauseMilliseconds"] for result in results)
        self._say(f"{title}: moved" + (f", stood still for {pause} ms" if unit.running else ""))

    def _documents(self, unit: Unit, *, dry_run: bool = False) -> Iterable[dict[str, Any]]:
        """Yield the answer of the engine.

        :raises CliError: with its reason, when it refuses.
        """
        body = {"To": self._target, "DryRun": dry_run, **self._options}
        client = Client(Settings.host)
        if len(unit.containers) > 1:
            yield from migrate.steps(client, {**body, "Containers": unit.names})
            return
        name = unit.names[0]
        for document in migrate.steps(client, {**body, "CreateNetworks": True}, name):
            yield {"Name": name, **document}

    def _set(self, unit: Unit, result: str, reasons: dict[str, str]) -> None:
        """Record the result of a unit; ``reasons`` say why members of it stay."""
        for name in unit.names:
            if not reasons:
                self.rows[name] = Row(name, unit, result)
                continue
            reason = reasons.get(name) or f"its group stays: {next(iter(reasons))} cannot move"
            self.rows[name] = Row(name, unit, STAYS, reason)

    def _say(self, text: str) -> None:
        if not self._quiet:
            print(text, file=sys.stderr, flush=True)


def _reason(error: CliError) -> str:
    """Return the text of an error without Docker's words before an answer of the engine. Pure."""
    return error.reason if isinstance(error, EngineError) else error.message


def stop_rest(rows: Iterable[Row]) -> None:
    """Stop the running containers that have not moved."""
    client = Client(Settings.host)
    for row in rows:
        if row.running and row.result in (STAYS, LEFT):
            client.request("POST", f"/containers/{quote(row.name)}/stop")
            row.result = STOPPED


def table(rows: Iterable[Row]) -> str:
    """Return the report for people. Pure."""
    lines = ["NAME\tGROUP\tRESULT\tPAUSE\tSENT\tREASON"]
    for row in rows:
        moved = row.result == MOVED
        pause = f"{row.pause} ms" if moved and row.running else "-"
        sent = bytes_size(row.sent) if moved else "-"
        lines.append("\t".join((row.name, row.group or "-", row.result, pause, sent, row.reason)))
    return aligned(lines)


def document(target: str, rows: Iterable[Row]) -> dict[str, Any]:
    """Return the report for programs. Pure."""
    return {
        "Target": target,
        "Containers": [
            {
                "Name": row.name,
                "Group": row.group,
                "Running": row.running,
                "Result": row.result.replace(" ", "-"),
                "Reason": row.reason,
                "PauseMilliseconds": row.pause,
                "Sent": row.sent,
                "Container": row.there,
            }
            for row in rows
        ],
    }
