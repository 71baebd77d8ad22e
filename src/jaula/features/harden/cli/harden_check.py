"""``jaula harden check``: would a container still work under a profile?"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

from jaula.cli.cli_errors import CliError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers import copy_target
from jaula.cli.main import Settings
from jaula.cli.output.progress_line import Progress
from jaula.features.harden.cli.harden_apply import EngineApi, load
from jaula.features.record.cli.record_process import RecordProcess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jaula.features.harden.check_profile import CommandResult, Tools
    from jaula.features.record.record_reader import Record
    from jaula.spec.confinement_profile import Profile

TIME = 10.0  # seconds
_CHUNK = 1 << 18  # bytes


def run(options: Options) -> int:
    """Print the answer; 0 if the container works under the profile, otherwise 1."""
    file, ref = options.arguments
    time = options.seconds("time") or TIME
    return check_profile(ref, *load(file), time, options.texts("command"))


def check_profile(
    ref: str,
    text: str,
    profile: Profile,
    time: float = TIME,
    commands: Sequence[str] = (),
    *,
    recorded: bool = False,
) -> int:
    """Check a profile, with the text that is sent, with twins of a container.

    Print the answer, and return the exit status. ``recorded``: a record made the profile, and no
    person has read it.

    :raises CliError: when the twins cannot run or be recorded.
    """
    if os.geteuid() != 0:
        raise CliError("jaula: a check records twins of the container, which needs root")
    from jaula.errors import JaulaError
    from jaula.features.harden.check_profile import check

    client = Client(Settings.host)
    try:
        verdict = check(
            EngineApi(client),
            quote(ref),
            text,
            profile,
            _tools(client),
            seconds=time,
            commands=commands,
            recorded=recorded,
            report=lambda line: print(f"jaula: {line}", file=sys.stderr, flush=True),
        )
    except JaulaError as error:
        raise CliError(f"jaula: {error}") from None
    if verdict.works:
        print(f"{ref} works under the profile {profile.name}: nothing more was refused")
        return 0
    for line in verdict.broken:
        print(f"{ref} does not work under the profile {profile.name}: {line}")
    if not verdict.broken:
        print(f"{ref} runs under the profile {profile.name}, with new refusals:")
    for lack in verdict.lacks:
        print(f"  {lack}")
    return 1


def _tools(client: Client) -> Tools:
    from jaula.features.harden.check_profile import Tools

    return Tools(
        record=lambda identity: _recorded(client, identity),
        copy=lambda source, path, target: _copy(client, source, path, target),
        execute=lambda identity, command: _execute(client, identity, command),
    )


@contextmanager
def _recorded(client: Client, identity: str) -> Iterator[Callable[[], Record]]:
    """Record a created container until it ends; the file is temporary."""
    import tempfile

    from jaula.features.record import record_reader

    records: list[Record] = [record_reader.parse(())]  # of a twin that did not start
    with tempfile.TemporaryDirectory(prefix="jaula-check-") as directory:
        process = RecordProcess(client, identity, f"{directory}/twin.record", "")
        started = False
        try:
            yield lambda: records[-1]
            started = _was_started(client, identity)
        finally:
            if not started:
                process.discard()
            else:
                os.waitpid(process.pid, 0)
        if started:
            records.append(record_reader.read(process.path))


def _was_started(client: Client, identity: str) -> bool:
    """Return whether a container runs or has run."""
    return bool(client.get(f"/containers/{identity}/json")["State"]["Status"] != "created")


def _copy(client: Client, source: str, path: str, target: str) -> None:
    """Copy the content of a directory, with owners, from one container into another."""
    answer = copy_target.fetch(client, source, f"{path}/.", follow=False)
    upload = copy_target.Upload(
        client, target, path, archive=True, progress=Progress("copy", quiet=True)
    )
    for chunk in answer.chunks():
        if chunk:
            upload.write(chunk)
    upload.end()


def _execute(client: Client, identity: str, command: str) -> CommandResult:
    """Run a command with the container's shell, and return its status and output."""
    from jaula.features.harden.apply_profile import unframed
    from jaula.features.harden.check_profile import CommandResult

    body = {"AttachStdout": True, "AttachStderr": True, "Cmd": ["sh", "-c", command]}
    try:
        made = client.document("POST", f"/containers/{identity}/exec", (), body)["Id"]
        output = client.request("POST", f"/exec/{made}/start", (), {})
        status = client.get(f"/exec/{made}/json")["ExitCode"]
    except CliError as error:
        return CommandResult(command, 126, str(error))
    return CommandResult(command, int(status or 0), unframed(output))


COMMAND = Command(
    "[OPTIONS] FILE CONTAINER",
    "Check whether a container would work under a profile",
    run,
    flags=(
        Flag("time", "", "string", "Time for which each twin runs (default 10s)",
             metavar="DURATION"),
        Flag("command", "", "list", "Shell command to run in the twins at the end of the time"),
    ),
    min_args=2,
    max_args=2,
    description=(
        "Runs two twins of the container, one without and one with the profile, and records both. "
        "A twin has the container's image, options and networks, copies of its volumes, and "
        "directories of the host read-only. It publishes no ports. The answer lists refusals that "
        "only the profile causes, each with the item that would allow it. Needs root, on the "
        "engine's host.\n\nPrograms of a twin reach the container's networks as the container "
        "does."
    ),
    examples=(
        ("Check a profile, with a request to the server",
         "jaula harden check --command 'wget -qO- localhost' web.toml web"),
    ),
    exit_status=(
        ("0", "it works: nothing more was refused"),
        ("1", "something was refused or does not work, or the check failed"),
    ),
    see_also=("harden apply", "record", "run"),
    completes="container",
)  # fmt: skip
