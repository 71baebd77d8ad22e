"""Profiles in files, for the commands of ``jaula harden``."""

from __future__ import annotations

from jaula.cli.cli_errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.confinement_profile import Profile


def open_profile(path: str) -> Profile:
    """Return the profile of a file.

    :raises CliError: when it cannot be read, or is not a profile.
    """
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.errors import JaulaError
    from jaula.spec import confinement_profile

    try:
        with open(path, "rb") as file:
            return confinement_profile.load(file.read(confinement_profile.MAX_SIZE + 1), path)
    except OSError as error:
        raise CliError(f"jaula: cannot read {path}: {error.strerror}") from None
    except JaulaError as error:
        raise CliError(f"jaula: {error}") from None
