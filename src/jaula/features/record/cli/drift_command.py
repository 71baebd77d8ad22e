"""``jaula record --drift``: a container against its records or its image."""

from __future__ import annotations

import os
import sys
import time

from jaula.cli.cli_errors import CliError, EngineError, UsageError
from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Options
from jaula.cli.signal_events import ENDING, SignalHandler
from jaula.features.record.cli.record_output import open_record, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.features.record.container_drift import Baseline, Drift
    from jaula.features.record.mechanism import Target

ACTIONS = ("event", "stop", "pause", "kill")
FORMATS = ("table", "json")
ERROR = 2  # exit status; 1 is a deviation
_ONLY = ("allow-memory", "baseline", "on-drift", "format")
_ROW = "{:<20}  {:<10}  {:<36}  {:<24}  {}"


def check_flags(options: Options) -> None:
    """Refuse flags that do not fit together.

    :raises UsageError: when there are such.
    """
    if options.on("drift"):
        options.choice("on-drift", ACTIONS)
        options.choice("format", FORMATS)
        if options.is_set("output"):
            raise UsageError("--drift writes no record: it conflicts with --output")
        return
    for name in _ONLY:
        if options.is_set(name):
            raise UsageError(f"--{name} needs --drift")


def run(options: Options, client: Client, document: dict[str, Any], seconds: float | None) -> int:
    """Report deviations until the end; return 1 if there was one.

    :raises CliError: with status 2, when it is not possible.
    """
    from jaula.errors import JaulaError

    if os.geteuid() != 0:
        raise CliError("--drift needs root: run the command with sudo", status=ERROR)
    try:
        return _run(options, client, document, seconds)
    except JaulaError as error:
        raise CliError(f"jaula: {error}", status=ERROR) from None
    except EngineError as error:
        raise CliError(error.message, status=ERROR) from None


def _run(options: Options, client: Client, document: dict[str, Any], seconds: float | None) -> int:
    from contextlib import closing

    from jaula.features.record.container_drift import Reporter
    from jaula.features.record.drift_monitor import DriftMonitor
    from jaula.features.record.image_files import ImageFiles

    container_id, name = document["Id"], document["Name"].lstrip("/")
    baseline = _baseline(options.texts("baseline"), document)
    output_format = options.choice("format", FORMATS)
    action = options.choice("on-drift", ACTIONS)
    reporter = Reporter(
        lambda drift: _print_drift(name, drift, output_format),
        lambda drift: _emit(client, container_id, drift),
    )
    exit_fd, target = _open(client, document)
    try:
        with (
            closing(ImageFiles(_layers(client, document))) as image,
            SignalHandler(ENDING) as signals,
            closing(
                DriftMonitor(
                    target, image, baseline, mechanism_name(options), reporter,
                    _Action(client, container_id, name, action),
                    lambda: bool(client.get(f"/jaula/containers/{container_id}/debug")),
                    options.texts("allow-memory"),
                )
            ) as monitor,
        ):  # fmt: skip

            def started() -> None:
                _print_started(name, baseline, monitor)
                if output_format == "table":
                    print(_ROW.format("TIME", "KIND", "SUBJECT", "PROGRAM", "DETAIL"), flush=True)

            watched = monitor.run(
                exit_fd=exit_fd, stop_fd=signals.fileno(), seconds=seconds, started=started
            )
    finally:
        os.close(exit_fd)
    text = f"jaula: {reporter.count} drifts in {name} ({watched.reason})"
    if reporter.unlisted or reporter.unemitted:
        text += f"; {reporter.unlisted} not listed, {reporter.unemitted} without an event"
    print(text, file=sys.stderr)
    if monitor.debugged:
        print(
            f"jaula: {monitor.debugged} by debug sessions, which the audit log has",
            file=sys.stderr,
        )
    for source, number in watched.lost.items():
        print(f"jaula: lost: {number} {source}", file=sys.stderr)
    return 1 if reporter.count else 0


def mechanism_name(options: Options) -> str:
    """Return the mechanism of ``--mechanism``.

    :raises UsageError: when there is no such one.
    """
    from jaula.features.record.mechanism import NAMES

    return options.choice("mechanism", NAMES)


def _open(client: Client, document: dict[str, Any]) -> tuple[int, Target]:
    """Return a pidfd of the container's first process, and what the mechanisms need.

    :raises Conflict: when the container has exited.
    """
    from jaula.errors import Conflict
    from jaula.features.record import recorded_cgroup
    from jaula.features.record.mechanism import Target
    from jaula.kernel.process_calls import pidfd_open

    container_id, pid = document["Id"], document["State"]["Pid"]
    exited = Conflict(f"container {document['Name'].lstrip('/')} has exited")
    try:
        fd = pidfd_open(pid)
    except OSError:
        raise exited from None
    try:
        found = recorded_cgroup.find(pid, container_id)
        state = client.get(f"/containers/{container_id}/json")["State"]
        if not state["Running"] or state["Pid"] != pid:  # the pid is another process by now
            raise exited
    except BaseException:
        os.close(fd)
        raise
    return fd, Target(pid, found[0], found[1], container_id)


def _layers(client: Client, document: dict[str, Any]) -> list[str]:
    """Return the directories of the image's layers, topmost first."""
    data = (document.get("GraphDriver") or {}).get("Data") or {}
    if lower := data.get("LowerDir"):
        return list(dict.fromkeys(lower.split(":")))
    try:
        image = client.get(f"/images/{document['Image']}/json")
    except EngineError as error:
        raise CliError(
            f"the container's image cannot be read: {error.reason}", status=ERROR
        ) from None
    root = client.get("/info")["DockerRootDir"]
    layers = dict.fromkeys(reversed(image["RootFS"]["Layers"]))
    return [f"{root}/layers/{layer.removeprefix('sha256:')}/fs" for layer in layers]


def _baseline(paths: list[str], document: dict[str, Any]) -> Baseline | None:
    """Return what the records have, None without records.

    :raises CliError: when one is not an intact record.
    """
    if not paths:
        return None
    from jaula.features.record.container_drift import baseline_of
    from jaula.features.record.mechanism import baseline_kinds

    records = []
    for path in paths:
        try:
            record = open_record(path)
        except CliError as error:
            raise CliError(error.message, status=ERROR) from None
        if record.header is None or record.errors:
            for problem in record.errors:
                print(f"jaula: {path}: {problem}", file=sys.stderr)
            raise CliError(f"{path} is not an intact record", status=ERROR)
        if record.header.container.image_id != document["Image"]:
            print(f"jaula: {path} is a record of another image", file=sys.stderr)
        if record.end is not None and record.end.losses:
            print(f"jaula: {path} is incomplete: what it lost is a drift", file=sys.stderr)
        records.append(record)
    return baseline_of(records, baseline_kinds)


def _print_started(name: str, baseline: Baseline | None, monitor: Any) -> None:
    from jaula.features.record.ebpf import NAME as EBPF_NAME
    from jaula.features.record.mechanism import observed_kinds

    reference = "its image" if baseline is None else "its records"
    known = {"program"} if baseline is None else baseline.compared | {"program"}
    missing = observed_kinds(EBPF_NAME) - (known & observed_kinds(monitor.mechanism))
    text = f"jaula: comparing {name} with {reference} by {monitor.mechanism}; ^C ends it"
    if missing:
        needs = " without --baseline FILE" if baseline is None else ""
        text += f"\njaula: not compared{needs}: {', '.join(sorted(missing))}"
    if monitor.unmarked:
        text += "\njaula: files of these mounts are compared by path only: " + ", ".join(
            printable(target) for target in sorted(monitor.unmarked)
        )
    print(text, file=sys.stderr, flush=True)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _print_drift(name: str, drift: Drift, output_format: str) -> None:
    if output_format == "json":
        import msgspec

        fields = {key: value for key, value in drift._asdict().items() if value}
        line = msgspec.json.encode({"time": _now(), "container": name} | fields).decode()
    else:
        detail = drift.detail + (f" (sha256:{drift.digest[:12]})" if drift.digest else "")
        words = (drift.kind, drift.subject, drift.program or "-", detail)
        line = _ROW.format(_now(), *(printable(word) for word in words))
    print(line, flush=True)


def _emit(client: Client, container_id: str, drift: Drift) -> None:
    body = {
        "Kind": drift.kind, "Subject": drift.subject, "Program": drift.program,
        "Detail": drift.detail, "Digest": drift.digest and f"sha256:{drift.digest}",
    }  # fmt: skip
    try:
        client.request("POST", f"/jaula/containers/{container_id}/drift", body=body)
    except CliError as error:
        print(f"jaula: no event was emitted: {error}", file=sys.stderr)


class _Action:
    """Action after a deviation. ``stop`` and ``kill`` are done once."""

    def __init__(self, client: Client, container_id: str, name: str, action: str) -> None:
        self._client = client
        self._id = container_id
        self._name = name
        self._action = action
        self._done = False

    def __call__(self) -> None:
        if self._action == "event" or self._done:
            return
        self._done = self._action != "pause"
        try:
            self._client.request("POST", f"/containers/{self._id}/{self._action}")
        except EngineError as error:
            if error.code in (404, 409):  # it has exited, or is paused
                return
            print(f"jaula: {self._action} {self._name}: {error.reason}", file=sys.stderr)
        except CliError as error:
            print(f"jaula: {self._action} {self._name}: {error}", file=sys.stderr)
        else:
            print(f"jaula: {self._name}: {self._action} after a drift", file=sys.stderr, flush=True)
