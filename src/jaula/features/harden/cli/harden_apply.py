"""``jaula harden apply``: create a container again under a profile."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError, EngineError, UsageError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.spec import fast_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.features.harden.apply_recovery import Query
    from jaula.spec.confinement_profile import Profile

LOSSY = 3  # status
NOT_ACCEPTED = (
    "jaula: the profile {} is not applied: --accept-losses applies it without these restrictions"
)
TIMEOUT = 60.0  # seconds


def run(options: Options) -> int:
    """Apply the profile and print the id of the new container."""
    timeout = options.seconds("timeout") or TIMEOUT
    if options.on("recover"):
        if len(options.arguments) != 1:
            raise UsageError('"jaula harden apply --recover" requires a container.', status=1)
        recover(options.arguments[0])
        return 0
    if len(options.arguments) != 2:
        raise UsageError('"jaula harden apply" requires a profile and a container.', status=1)
    file, ref = options.arguments
    text, profile = load(file)
    from jaula.features.harden.derive import losses

    lines = [] if options.on("accept-losses") else losses(profile)
    for line in lines:
        print(f"jaula: {line}", file=sys.stderr)
    if lines:
        print(NOT_ACCEPTED.format(profile.name), file=sys.stderr)
        return LOSSY
    apply_profile(ref, text, profile, timeout)
    return 0


def recover(ref: str) -> None:
    """Finish or undo interrupted replacements of a container.

    :raises CliError: when the old container cannot be restored.
    """
    from jaula.errors import JaulaError
    from jaula.features.harden.apply_recovery import recover

    try:
        if not recover(EngineApi(Client(Settings.host)), ref, _report):
            print(f"jaula: no apply to {ref} was interrupted", file=sys.stderr)
    except JaulaError as error:
        raise CliError(f"jaula: {error}") from None


def _report(line: str) -> None:
    print(f"jaula: {line}", file=sys.stderr, flush=True)


def apply_profile(
    ref: str, text: str, profile: Profile, timeout: float = TIMEOUT, *, recorded: bool = False
) -> None:
    """Apply a profile, with the text that is sent, to a container, and print the new id.

    ``recorded``: a record made it, and no person has read it.

    :raises CliError: when it cannot be applied; the container is as before.
    """
    from jaula.errors import JaulaError
    from jaula.features.harden.apply_profile import apply
    from jaula.features.harden.apply_recovery import recover

    api = EngineApi(Client(Settings.host))
    try:
        recover(api, ref, _report)
        done = apply(
            api, quote(ref), text, profile, timeout=timeout, recorded=recorded, report=_report
        )
    except JaulaError as error:
        raise CliError(f"jaula: {error}") from None
    for warning in done.warnings:
        print(f"WARNING: {warning}", file=sys.stderr)
    if done.kept:
        print(
            f"jaula: the writable layer of the old container has changed files, so it is kept as"
            f" {done.kept}; jaula rm {done.kept} removes it",
            file=sys.stderr,
        )
    print(done.id)


class EngineApi:
    """The client with the errors of :mod:`jaula.errors`: an :class:`~.apply.Api`."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def request(self, method: str, path: str, query: Query = (), body: object = None) -> bytes:
        """Send a request and return the body.

        :raises JaulaError: when the engine refuses or does not answer.
        """
        from jaula.errors import JaulaError

        try:
            return self.client.request(method, path, query, body)
        except EngineError as error:
            raise JaulaError(error.reason) from None
        except CliError as error:
            raise JaulaError(str(error)) from None

    def document(self, method: str, path: str, query: Query = (), body: object = None) -> Any:
        """Send a request and return the JSON document, None without a body.

        :raises JaulaError: when the engine refuses or does not answer.
        """
        content = self.request(method, path, query, body)
        return fast_json.decode(content) if content.strip() else None


def load(file: str) -> tuple[str, Profile]:
    """Return the text and the document of a profile: a file, or the name of a packaged one.

    :raises CliError: when there is none, or it is not valid.
    """
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.cli.containers.create_body import profile_text
    from jaula.errors import JaulaError
    from jaula.spec import confinement_profile

    text = profile_text(file)
    try:
        if not confinement_profile.is_document(text):
            text = confinement_profile.packaged(text)
        return text, confinement_profile.load(text.encode(), file)
    except JaulaError as error:
        raise CliError(f"jaula: {error}") from None


COMMAND = Command(
    "[OPTIONS] FILE CONTAINER | --recover CONTAINER",
    "Create a container again under a profile",
    run,
    flags=(
        Flag("timeout", "", "string", "Time for the health check of the new container (default 1m)",
             metavar="DURATION"),
        Flag("accept-losses", "", "bool",
             "Apply a profile although its records lost something or a list was too long"),
        Flag("recover", "", "bool", "End an interrupted apply to the container, and apply nothing"),
    ),
    min_args=1,
    max_args=2,
    description=(
        "Creates the container again with the same options, volumes and networks, and with the "
        "profile. The new container is created before the old one is stopped, so a request that "
        "the engine refuses changes nothing. If the new container exits, restarts, is unhealthy, "
        "or is not healthy in time, it is removed and the old one runs again. Without a health "
        "check it must run for 5 seconds.\n\nThe old container is removed after that, without its "
        "volumes. If files in its writable layer were changed, it is kept, stopped, and its name "
        "is printed: its layer is not part of the new container.\n\nA command that was killed is "
        "ended by the next one, or by --recover: if the new container runs, the old one is removed "
        "as above, otherwise the old one has its name back and runs as before."
    ),
    examples=(
        ("Apply a profile", "jaula harden apply web.toml web"),
        ("End an apply that was killed", "jaula harden apply --recover web"),
    ),
    exit_status=(
        ("0", "the container runs under the profile"),
        ("1", "the container is as before"),
        ("3", "the same: the records of the profile lost something, and --accept-losses is absent"),
    ),
    see_also=("harden check", "run"),
    completes="container",
)  # fmt: skip
