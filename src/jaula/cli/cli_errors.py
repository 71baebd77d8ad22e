"""Errors of the client, with the exit status that each one sets.

These are not :mod:`jaula.errors`: the client prints what the engine answered and does not import
the engine's modules, which would cost start-up time.
"""

from __future__ import annotations


class CliError(Exception):
    """An error message of one line for the user."""

    def __init__(self, message: str, *, status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class UsageError(CliError):
    """The command line is invalid. Docker exits with 125 for flags and with 1 for arguments."""

    def __init__(self, message: str, *, status: int = 125, usage: bool = False) -> None:
        super().__init__(message, status=status)
        self.usage = usage


class NotATerminal(CliError):
    """Standard input is not a terminal, but one is required.

    The exit status is 1 as in Docker, also for ``run``.
    """


class EngineError(CliError):
    """The engine answered a request with an error status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"Error response from daemon: {message}")
        self.code = code
        self.reason = message


class Unreachable(CliError):
    """The engine does not answer, or the connection broke."""


class ExitStatus(Exception):
    """Exit with this status, after all context managers have restored the terminal."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
