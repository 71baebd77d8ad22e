"""``jaula record``: what a container does, as evidence from the kernel."""

from __future__ import annotations

import os
import sys

from jaula.cli.cli_errors import CliError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.signal_events import ENDING, SignalHandler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from jaula.features.record.record_document import End


def run(options: Options) -> int:
    """Record until the time is over, the container exits or a signal arrives."""
    seconds = options.seconds("for")
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.errors import JaulaError
    from jaula.features.record.cli import drift_command

    drift_command.check_flags(options)
    client = Client(Settings.host)
    ref = options.arguments[0]
    document = client.get(f"/containers/{quote(ref)}/json")
    if not document["State"]["Running"]:
        status = drift_command.ERROR if options.on("drift") else 1
        raise CliError(f"container {ref} is not running: it does nothing to record", status=status)
    if options.on("drift"):
        return drift_command.run(options, client, document, seconds)
    try:
        end = _record(
            client, document, options.text("output"), seconds, drift_command.mechanism_name(options)
        )
    except JaulaError as error:
        raise CliError(f"jaula: {error}") from None
    from jaula.features.record.cli.record_output import loss_lines

    for line in loss_lines(end):
        print(line, file=sys.stderr)
    return 0


def _record(
    client: Client,
    document: dict[str, Any],
    output: str,
    seconds: float | None,
    mechanism_name: str,
) -> End:
    """Write the record of a container.

    :raises JaulaError: when this host cannot record, or the file cannot be written.
    """
    from time import gmtime, strftime

    from jaula.errors import Conflict, Unsupported
    from jaula.features.record import recorded_cgroup, recorder
    from jaula.features.record.cli.record_output import container_of
    from jaula.features.record.record_writer import RecordWriter
    from jaula.kernel.process_calls import pidfd_open

    container_id, pid = document["Id"], document["State"]["Pid"]
    name = document["Name"].lstrip("/")
    path = output or f"{name}-{strftime('%Y%m%dT%H%M%SZ', gmtime())}.record"
    try:
        exit_fd = pidfd_open(pid)
    except OSError:
        raise Conflict(f"container {name} has exited") from None
    try:
        try:
            found, cgroup_id = recorded_cgroup.find(pid, container_id)
        except Unsupported:
            if os.geteuid() == 0:
                raise
            found, cgroup_id = None, 0  # of a rootless engine without cgroups
        state = client.get(f"/containers/{container_id}/json")["State"]
        if not state["Running"] or state["Pid"] != pid:  # the pid is another process by now
            raise Conflict(f"container {name} has exited")
        writer = RecordWriter(path)
        complete = False
        refusals: list[str] = []
        try:
            with SignalHandler(ENDING) as signals:
                end = recorder.record(
                    container_of(document),
                    found,
                    cgroup_id,
                    writer,
                    exit_fd=exit_fd,
                    stop_fd=signals.fileno(),
                    seconds=seconds,
                    started=lambda: _print_started(name, path, refusals),
                    pid=pid,
                    mechanism_name=mechanism_name,
                    refused=refusals.append,
                )
            complete = True
        finally:
            if not complete and writer.is_empty():
                writer.remove()
            writer.close()
    finally:
        os.close(exit_fd)
    print(f"{path}: {writer.head.n} lines, head {writer.head.hash} ({end.reason})")
    return end


def _print_started(name: str, path: str, refusals: Sequence[str]) -> None:
    print(f"jaula: recording {name} to {path}; ^C ends the record", file=sys.stderr, flush=True)
    for line in refusals:
        if not line.startswith("seccomp:"):  # never of a container that runs
            print(f"jaula: not recorded by {line}", file=sys.stderr, flush=True)


COMMAND = Command(
    "[OPTIONS] CONTAINER",
    "Record what a container does, as evidence from the kernel",
    run,
    flags=(
        Flag("allow-memory", "", "list",
             "With --drift, a program that may have executable memory without a file",
             metavar="PATH"),
        Flag("baseline", "", "list", "With --drift, a record of what is expected", metavar="FILE",
             completes="file"),
        Flag("drift", "", "bool",
             "Write no record, report what deviates from the records or the image"),
        Flag("format", "", "string", 'With --drift, "table" or "json"',
             completes=("table", "json")),
        Flag("mechanism", "", "string",
             '"ebpf", "fanotify" or "proc" (default "auto": the first that this host can use)',
             metavar="NAME", completes=("auto", "ebpf", "fanotify", "proc")),
        Flag("on-drift", "", "string",
             'With --drift, "event", or in addition "stop", "pause" or "kill" the container',
             metavar="ACTION", completes=("event", "stop", "pause", "kill")),
        Flag("for", "", "string", "End after this time (10m, 1h30m)", metavar="DURATION"),
        Flag("output", "o", "string", "New file for the record (default NAME-TIME.record)",
             metavar="FILE", completes="file"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Records system calls with their results, opened files, executed programs, sockets and "
        "addresses, mounts, capabilities and signals of all processes of a container, by program. "
        "eBPF programs count them in the kernel. The record ends at ^C, after --for, or when the "
        "container exits. The file has JSON lines in a hash chain; its last line says what was "
        "lost. Needs root, on the engine's host; without eBPF or root a record has less, and its "
        "header says what.\n\n--drift writes no record: it reports executed files, addresses and "
        "capabilities that the image or the --baseline does not have."
        "\n\nThe commands show, diff, verify and "
        "export read records. To record a container of such a name, write jaula record -- show."
    ),
    examples=(
        ("Record a container for ten minutes", "sudo jaula record --for 10m -o web.record web"),
        ("Show what was recorded", "jaula record show web.record"),
        ("Kill a container that does something new",
         "sudo jaula record --drift --baseline web.record --on-drift kill web"),
    ),
    exit_status=(
        ("0", "the record is complete; with --drift, no drift"),
        ("1", "the container is not running or this host cannot record; with --drift, a drift"),
        ("2", "with --drift, the comparison was not possible"),
    ),
    see_also=("record show", "record diff", "record verify", "record export", "verify"),
    completes="container",
)  # fmt: skip
