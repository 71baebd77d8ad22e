"""``jaula logout``."""

from __future__ import annotations

from jaula.cli.cli_errors import CliError
from jaula.cli.command_parser import Command, Options
from jaula.cli.images import registry_auth


def run(options: Options) -> int:
    """Remove the stored credentials of a registry; the engine stores none."""
    from jaula.errors import JaulaError

    key = registry_auth.key(options.arguments[0] if options.arguments else "")
    try:
        removed = registry_auth.credential_file().erase(key)
    except JaulaError as error:
        raise CliError(str(error)) from None
    print(f"Removing login credentials for {key}" if removed else f"Not logged in to {key}")
    return 0


COMMAND = Command(
    "[SERVER]",
    "Log out from a registry",
    run,
    max_args=1,
    description="Removes the credentials of SERVER (default: Docker Hub).",
    examples=(("Log out from a registry", "jaula logout registry.example.com"),),
    see_also=("login",),
)
