"""The errors of HTTP itself, with the statuses of RFC 9110."""

from __future__ import annotations

from jaula import feature
from jaula.errors import InvalidRequest, JaulaError, NotFound


class PageNotFound(NotFound):
    """No route matches the method and path; the text is Docker's.

    It names the features that are not installed: the route may be one of theirs.
    """

    def __init__(self) -> None:
        missing = feature.missing()
        note = f" (features that are not installed: {', '.join(missing)})" if missing else ""
        super().__init__(f"page not found{note}")


class BadHeader(InvalidRequest):
    """The head of the request is not HTTP, or too large; the parser determines ``status``."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class TooLarge(InvalidRequest):
    """A body is larger than its limit."""

    status = 413


class Busy(JaulaError):
    """The client, or all clients together, use too much of the server."""

    status = 503


class TooSlow(InvalidRequest):
    """The client stopped in the middle of a request."""

    status = 408


class Disconnected(JaulaError):
    """The client left in the middle of a request; no process reads the answer."""

    status = 400

    def __init__(self) -> None:
        super().__init__("the client went away before its request was complete")
