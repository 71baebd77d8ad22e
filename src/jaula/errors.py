"""The one tree of errors that jaula shows to a person or a client.

Each class states the HTTP status that the Docker Engine API uses for it and the exit code of
the command line. Each instance says what was asked, what was found and, in ``hint``, what to
do next. Messages are lower case and end without a full stop.

``OSError`` is raised by :mod:`jaula.kernel` only; a layer above turns it into one of these where
it knows what the failure means to the caller.
"""

from __future__ import annotations


class JaulaError(Exception):
    """Base of everything that is reported as one clear line."""

    status = 500
    exit_code = 125

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidRequest(JaulaError):
    """What was asked is malformed or out of range; nothing was changed."""

    status = 400


class NotAuthorized(JaulaError):
    """The caller may not do this."""

    status = 403


class NotFound(JaulaError):
    """No object of that name or id."""

    status = 404


class Conflict(JaulaError):
    """The object is in a state, or a name is in use, that forbids the operation."""

    status = 409


class NotModified(JaulaError):
    """The object is already in the wanted state (Docker answers 304 without a body)."""

    status = 304


class Unsupported(JaulaError):
    """This kernel, host or build of jaula cannot do it; the message names what is missing."""

    status = 501


class Unavailable(JaulaError):
    """A service that is needed does not answer."""

    status = 503


class RuntimeFailure(JaulaError):
    """The kernel refused a step of making a container; ``exit_code`` follows Docker.

    127 where the program was not found, 126 where it cannot be executed, 125 for the rest.
    Docker answers 400 for the first two and 500 for the others.
    """

    def __init__(self, message: str, *, exit_code: int = 125, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.status = 400 if exit_code in (126, 127) else 500


class StepFailed(JaulaError):
    """A program of a build ended with another status than 0; ``exit_code`` is it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


class CorruptState(JaulaError):
    """The engine's own files are damaged; nothing is overwritten."""
