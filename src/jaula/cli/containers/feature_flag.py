"""Flags of ``run`` and ``create`` that a feature serves."""

from __future__ import annotations

from jaula import feature
from jaula.cli.cli_errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Recorder(Protocol):
        """A recorder of one container, which the module of the flag ``record`` has started."""

        @property
        def pid(self) -> int: ...
        def print_started(self) -> None: ...
        def discard(self) -> None: ...


def module(flag: str) -> Any:
    """Import and return the module of the feature that serves a flag.

    :raises CliError: when the feature is not installed.
    """
    for each in feature.features():
        if flag in each.run_flags:
            name = each.module(each.run_flags[flag])
            return __import__(name, fromlist=("",))
    raise CliError(f"jaula: --{flag} needs a feature that is not installed", status=125)
