"""What a command reports when it cannot do its work, with the exit status it leaves.

These are not :mod:`jaula.errors`: the client shows what the engine answered and must not pay for
the engine's modules.
"""

from __future__ import annotations


class CliError(Exception):
    """One line for the person at the terminal."""

    def __init__(self, message: str, *, status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class UsageError(CliError):
    """The command line cannot be understood; Docker leaves 125 for flags, 1 for arguments."""

    def __init__(self, message: str, *, status: int = 125, usage: bool = False) -> None:
        super().__init__(message, status=status)
        self.usage = usage


class NotATerminal(CliError):
    """A terminal was asked for where there is none; 1 as in Docker, also for ``run``."""


class EngineError(CliError):
    """The engine answered a request with an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"Error response from daemon: {message}")
        self.code = code
        self.reason = message


class Unreachable(CliError):
    """No engine answers, or the connection broke."""


class ExitStatus(Exception):
    """End the program with this status after everything has been restored."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
