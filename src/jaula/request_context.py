"""The request that is being answered, for the engine's log.

A task that a request starts has its context, so a line of later work names the request as well.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple


class RequestContext(NamedTuple):
    """A request: its number in this engine, its caller, and its method and path."""

    id: str
    user: str
    title: str


current: ContextVar[RequestContext | None] = ContextVar("jaula request", default=None)
