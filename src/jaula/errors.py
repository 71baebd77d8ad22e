"""The errors that jaula reports to a user or a client.

Each class has the HTTP status that the Docker Engine API uses for it and the exit code of the
command line. Each message says what was requested, what is wrong and, in ``hint``, what to do next.
Messages are lower case and end without a full stop.

Only :mod:`jaula.kernel` raises ``OSError``. A layer above translates it into one of these errors
where it knows what the failure means to the caller. :func:`resource_error` is the translation for
what the host lacks, wherever the error is raised.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class JaulaError(Exception):
    """Base of all errors that are reported as a single line."""

    status = 500
    exit_code = 125
    errno = 0  # the kernel's number in a RuntimeFailure, if the host lacks a resource

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


def system_error_text(asked: str, error: OSError) -> str:
    """Return what was asked with the kernel's reason, and the file of the error if it has one.

    The text of an error number alone says nothing to a client.
    """
    reason = error.strerror or str(error)
    file = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    return f"{asked}: {file}: {reason}" if file else f"{asked}: {reason}"


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


class ClientGone(JaulaError):
    """The client left before its request was done; what the request had made is removed.

    The status is nginx's for it. No client reads it.
    """

    status = 499

    def __init__(self) -> None:
        super().__init__("the client went away")


class Unavailable(JaulaError):
    """A required service does not respond."""

    status = 503


class RuntimeFailure(JaulaError):
    """The kernel refused a step of creating a container; ``exit_code`` is Docker's.

    It is 127 if the program was not found, 126 if it cannot be executed, and 125 otherwise. Docker
    answers 400 for the first two and 500 for the others. ``errno`` is the kernel's number if the
    host lacks a resource, otherwise 0; the status is 503 then.
    """

    def __init__(
        self, message: str, *, exit_code: int = 125, hint: str | None = None, errno: int = 0
    ) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.errno = errno
        self.status = 503 if errno else 400 if exit_code in (126, 127) else 500


class ImageMountFailed(InvalidRequest):
    """An image, or a part of it, cannot be mounted in a container."""


class StepFailed(JaulaError):
    """A program of a build exited with the status ``exit_code``, which is not 0.

    ``command`` is the program with its arguments, '' if the error is another one.
    """

    def __init__(self, message: str, code: int, command: str = "") -> None:
        super().__init__(message)
        self.exit_code = code
        self.command = command


class CorruptState(JaulaError):
    """The engine's own files are damaged; nothing is overwritten."""


FULL = (errno.ENOSPC, errno.EDQUOT)
FREE_SPACE = "free some space and try again"
_MORE_FILES = "raise the limit of open files and try again"
_REMEDIES = {
    errno.ENOSPC: FREE_SPACE,
    errno.EDQUOT: FREE_SPACE,
    errno.EROFS: "make the file system writable and try again",
    errno.EMFILE: _MORE_FILES,
    errno.ENFILE: _MORE_FILES,
}


def resource_error(error: BaseException, what: str) -> Unavailable | None:
    """Return the error of a client if the host lacks a resource, or None for any other error.

    That is: a file system is full or read-only, a quota is used up, or no descriptor is free.
    ``what`` is the request, as in ``cannot store a blob``.
    """
    if not isinstance(error, OSError) or error.errno not in _REMEDIES:
        return None
    import os  # not for the commands of jaula-runtime that read a state

    reason = error.strerror or os.strerror(error.errno)
    return Unavailable(f"{what}: {reason}", hint=_REMEDIES[error.errno])


def runtime_error(error: OSError, what: str) -> RuntimeFailure:
    """Return the failure of a step of creating a container, as in ``root file system``."""
    if (unavailable := resource_error(error, what)) is not None:
        return RuntimeFailure(unavailable.message, hint=unavailable.hint, errno=error.errno or 0)
    return RuntimeFailure(f"{what}: {error}")


def list_of(messages: Sequence[str]) -> str:
    """Return one message, or several as a list with a line for each, as moby does."""
    return messages[0] if len(messages) == 1 else "\n".join(f"* {text}" for text in messages)
