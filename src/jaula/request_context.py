"""The request that is being answered, for the engine's log, and for work that ends with its client.

A task that a request starts has its context, so a line of later work names the request as well.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import NamedTuple

from jaula.errors import ClientGone


def _never() -> bool:
    return False


class RequestContext(NamedTuple):
    """A request: its number in this engine, its caller, and its method and path.

    ``is_gone`` returns whether the client does not wait for the answer any more. It may be called
    in any thread.
    """

    id: str
    user: str
    title: str
    is_gone: Callable[[], bool] = _never


current: ContextVar[RequestContext | None] = ContextVar("jaula request", default=None)


def client_check() -> Callable[[], bool]:
    """Return ``is_gone`` of the current request, for work that changes nothing until its end."""
    request = current.get()
    return request.is_gone if request is not None else _never


def check_client() -> None:
    """Check that the client of the current request still waits, in work that is undone otherwise.

    :raises ClientGone: when it does not.
    """
    if client_check()():
        raise ClientGone


def forget_client() -> None:
    """Let the rest of the current task not end with the client, which has got its connection."""
    request = current.get()
    if request is not None:
        current.set(request._replace(is_gone=_never))
