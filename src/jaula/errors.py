"""The errors that jaula reports to a user or a client.

Each class has the HTTP status that the Docker Engine API uses for it and the exit code of the
command line. Each message says what was requested, what is wrong and, in ``hint``, what to do next.
Messages are lower case and end without a full stop.

Only :mod:`jaula.kernel` raises ``OSError``. A layer above translates it into one of these errors
where it knows what the failure means to the caller.
"""

from __future__ import annotations


class JaulaError(Exception):
    """Base of all errors that are reported as a single line."""

    status = 500
    exit_code = 125

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidRequest(JaulaError):
    """The request is malformed or out of range; nothing was changed."""

    status = 400


class NotAuthorized(JaulaError):
    """The caller is not allowed to do this."""

    status = 403


class NotFound(JaulaError):
    """No object has that name or id."""

    status = 404


class Conflict(JaulaError):
    """The state of the object, or a name in use, forbids the operation."""

    status = 409


class NotModified(JaulaError):
    """The object is already in the requested state (Docker answers 304 without a body)."""

    status = 304


class Unsupported(JaulaError):
    """This kernel, host or build of jaula cannot do it; the message names what is missing."""

    status = 501


class TooManyRequests(JaulaError):
    """The caller has used up its share; the same request is possible later."""

    status = 429


class Unavailable(JaulaError):
    """A required service does not respond."""

    status = 503


class RuntimeFailure(JaulaError):
    """The kernel refused a step of creating a container; ``exit_code`` is Docker's.

    It is 127 if the program was not found, 126 if it cannot be executed, and 125 otherwise. Docker
    answers 400 for the first two and 500 for the others.
    """

    def __init__(self, message: str, *, exit_code: int = 125, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.status = 400 if exit_code in (126, 127) else 500


class StepFailed(JaulaError):
    """A program of a build exited with the status ``exit_code``, which is not 0."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


class CorruptState(JaulaError):
    """The engine's own files are damaged; nothing is overwritten."""
