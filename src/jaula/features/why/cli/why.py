"""``jaula why``: which layer of a container refused an operation."""

from __future__ import annotations

import os
import sys

from jaula.cli.cli_errors import CliError, UsageError
from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.signal_events import ENDING, SignalHandler
from jaula.features.why.cli import explanations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.features.why.diagnosis import Diagnosis, Report

FORMATS = ("text", "json")
LIVE_INTERVAL = 0.4  # seconds between two looks for new reasons
COMMAND_LENGTH = 60  # characters of the command that the report shows


def run(options: Options) -> int:
    """Explain the refusals of a command in a container, of a running or of an exited container."""
    output_format = options.choice("format", FORMATS)
    seconds = options.seconds("for")
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.errors import JaulaError

    client = Client(Settings.host)
    ref, *words = options.arguments
    if words[:1] == ["--"]:
        words = words[1:]
    document = explanations.inspect(client, ref)
    running = bool(document["State"]["Running"])
    for flag in ("twin", "seccomp-profile"):
        if options.is_set(flag) and not words:
            raise UsageError(f"--{flag} needs a COMMAND", status=1)
    if os.path.lexists(options.text("seccomp-profile")):
        raise UsageError(f"{options.text('seccomp-profile')} exists", status=1)
    if words and not running:
        raise CliError(
            f"container {ref} is not running: start it, or use jaula run --why IMAGE COMMAND"
        )
    try:
        if words:
            report = _command(client, options, document, words)
        elif running:
            live = output_format == "text" and not options.on("all")
            report = _follow(client, document, seconds, live=live)
            if live:
                from jaula.features.why.report import to_summary

                print(to_summary(report))
                return 0
        else:
            report = explanations.exited_report(client, document)
    except JaulaError as error:
        raise CliError(f"jaula: {error}") from None
    _print(report, output_format, options)
    return 0


def _print(report: Report, output_format: str, options: Options) -> None:
    from jaula.features.why.report import to_json, to_text

    if output_format == "json":
        print(to_json(report))
    else:
        print(to_text(report, with_harmless=options.on("all")))


def _command(
    client: Client, options: Options, document: dict[str, Any], words: list[str]
) -> Report:
    """Run a command in the container; its output goes to standard error."""
    confinement = explanations.confinement_of(client, document)
    session = explanations.open_session(client, document["Id"], confinement)
    try:
        session.start(document["State"]["Pid"])
        done = explanations.execute(client, document["Id"], words, options.text("user"))
        trace = session.finish()
    finally:
        session.close()
    from jaula.features.why.diagnosis import not_found
    from jaula.features.why.explain import EXECS
    from jaula.features.why.oom import status_text
    from jaula.features.why.refusal import Refusal

    failure: tuple[Diagnosis, ...] = ()
    if done.reason:
        failure = explanations.start_failure(
            client, document, words, done.reason, confinement, options.text("user")
        )
    elif not any(isinstance(e, Refusal) and e.syscall in EXECS and e.errno for e in trace.events):
        failure = not_found(words, done.status, done.output)
    command = " ".join(words)
    if len(command) > COMMAND_LENGTH:
        command = command[: COMMAND_LENGTH - 1] + "…"
    state = f"{command} ended with status {status_text(done.status)}"
    report = explanations.traced_report(document, confinement, trace, state, failure)
    if options.on("twin"):
        report = explanations.with_twins(
            client, document, confinement, report, words, options.text("user")
        )
    if options.is_set("seccomp-profile"):
        report = explanations.with_profile(confinement, report, options.text("seccomp-profile"))
    return report


def _follow(
    client: Client, document: dict[str, Any], seconds: float | None, *, live: bool
) -> Report:
    """Trace a running container until a signal, its exit or the time; ``live``: print reasons."""
    from time import monotonic

    from jaula.features.why.diagnosis import LiveReasons, diagnoses
    from jaula.features.why.report import to_block
    from jaula.kernel.poll import readable
    from jaula.kernel.process_calls import pidfd_open

    name, pid = document["Name"].lstrip("/"), document["State"]["Pid"]
    confinement = explanations.confinement_of(client, document)
    try:
        exit_fd = pidfd_open(pid)
    except OSError:
        raise CliError(f"container {name} has exited; ask again") from None
    reasons, known = LiveReasons(), -1
    session = explanations.open_session(client, document["Id"], confinement)

    def show(*, final: bool) -> None:
        for each in reasons.new(diagnoses(trace, confinement, join=False), final=final):
            print(to_block(each) + "\n", flush=True)

    try:
        with SignalHandler(ENDING) as signals:
            session.start(pid)
            print(f"jaula: tracing {name}; ^C ends it", file=sys.stderr, flush=True)
            end = monotonic() + seconds if seconds is not None else None
            while end is None or monotonic() < end:
                step = LIVE_INTERVAL if live else None
                if end is not None:
                    step = max(0.0, min(end - monotonic(), step or end))
                if readable(step, exit_fd, signals.fileno()):
                    break
                if live and session.received() != known:
                    known = session.received()
                    trace = session.trace()
                if live and known > 0:
                    show(final=False)
        trace = session.finish()
        if live:
            show(final=True)
    finally:
        session.close()
        os.close(exit_fd)
    state = explanations.state_text(explanations.inspect(client, document["Id"]))
    return explanations.traced_report(document, confinement, trace, state)


COMMAND = Command(
    "[OPTIONS] CONTAINER [-- COMMAND [ARG...]]",
    "Explain which layer of a container refused an operation",
    run,
    flags=(
        Flag("all", "a", "bool", "Show refusals that programs expect, too"),
        Flag("for", "", "string", "End after this time (10m, 1h30m)", metavar="DURATION"),
        Flag("format", "", "string", "Format of the report (text, json)", default="text"),
        Flag("seccomp-profile", "", "string", "New file: the profile with the refused calls",
             metavar="FILE", completes="file"),
        Flag("twin", "", "bool", "Repeat COMMAND in a copy of the container with each flag"),
        Flag("user", "u", "string", "User of COMMAND (format: <name|uid>[:<group|gid>])"),
    ),
    min_args=1,
    interspersed=False,
    description=(
        "For each refused operation it says which layer refused, what proves that, the smallest "
        "flag that allows it, and what that flag gives away.\n\nWith COMMAND it runs the command "
        "in the running container, as exec does; its output goes to standard error. With --twin "
        "the command runs again in a disposable copy of the container for each flag, which proves "
        "the flag; binds and volumes of the copy are read-only. Without a COMMAND it follows a "
        "running container until ^C, --for or its exit, and explains the end of an exited one. "
        "jaula run --why does it for the first process of a new container, from its first "
        "instruction. Tracing needs root, on the engine's host."
    ),
    examples=(
        ("Explain why a command fails", "sudo jaula why web -- ping -c 1 10.0.0.1"),
        ("Follow a container for a minute", "sudo jaula why --for 1m web"),
        ("Explain why a container ended", "jaula why web"),
        ("Prove the flag as well", "sudo jaula why --twin web -- mount -t tmpfs none /mnt"),
        ("Explain a container's start", "sudo jaula run --rm --why debian apt-get update"),
    ),
    exit_status=(
        ("0", "the report is complete"),
        ("1", "the container is unknown, or this host cannot trace"),
    ),
    see_also=("run", "exec", "record", "verify"),
    completes="container",
)  # fmt: skip
