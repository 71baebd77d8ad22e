"""Events for subscribers (``GET /events``).

The newest 256 events are kept in memory, as with Docker. A subscriber gets the kept events that
match, then new ones. A subscriber that does not read loses its oldest events, so it cannot exhaust
the engine's memory.

Source: Docker Engine API 1.45, ``SystemEvents``; filters are those of ``docker events``.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from jaula import metrics
from jaula.engine.model.label_filters import has_label

_HISTORY = 256  # events
_BACKLOG = 1024  # events that one subscriber has not read


class Event(msgspec.Struct, frozen=True):
    """One event; ``time`` in nanoseconds of Unix time."""

    type: str  # container image network volume daemon
    action: str
    actor: str
    attributes: dict[str, str]
    time: int

    def document(self) -> dict[str, Any]:
        """Return Docker's event message, with the members of old clients."""
        document: dict[str, Any] = {}
        if self.type in ("container", "image"):
            document["status"] = self.action
            document["id"] = self.actor
        if self.type == "container":
            document["from"] = self.attributes.get("image", "")
        document |= {
            "Type": self.type,
            "Action": self.action,
            "Actor": {"ID": self.actor, "Attributes": self.attributes},
            "scope": "local",
            "time": self.time // 1_000_000_000,
            "timeNano": self.time,
        }
        return document


def matches(event: Event, filters: Mapping[str, list[str]]) -> bool:
    """Return whether every filter has a value that matches; an unknown filter matches nothing."""
    return all(any(_fits(event, key, value) for value in values) for key, values in filters.items())


def _fits(event: Event, key: str, value: str) -> bool:
    match key:
        case "type":
            return event.type == value
        case "event":
            return event.action == value or event.action.startswith(value + ":")
        case "scope":
            return value == "local"
        case "label":
            return has_label(event.attributes, value)
        case "container":
            return event.type == "container" and _named(event, value)
        case "image":
            return (event.type == "image" and _named(event, value)) or event.attributes.get(
                "image", ""
            ).partition(":")[0] == value.partition(":")[0]
        case "network" | "volume" | "daemon":
            return event.type == key and _named(event, value)
    return False


def _named(event: Event, value: str) -> bool:
    return (
        event.actor == value
        or event.actor.startswith(value)
        or event.attributes.get("name", "") == value.removeprefix("/")
    )


class EventBus:
    """The recent events and the subscribers."""

    def __init__(self) -> None:
        self._recent: deque[Event] = deque(maxlen=_HISTORY)
        self._subscribers: set[asyncio.Queue[Event]] = set()

    @property
    def listeners(self) -> int:
        """Return the number of subscribers."""
        return len(self._subscribers)

    def emit(
        self, kind: str, action: str, actor: str, attributes: Mapping[str, str] | None = None
    ) -> None:
        """Record an event and send it to every subscriber."""
        own = dict(sorted((attributes or {}).items()))  # as Go encodes a map
        event = Event(kind, action, actor, own, time.time_ns())
        self._recent.append(event)
        metrics.EVENTS.add()
        for queue in self._subscribers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    async def stream(
        self,
        since: float | None = None,
        until: float | None = None,
        filters: Mapping[str, list[str]] | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield events from ``since`` to ``until`` (default: forever), in seconds of Unix time.

        Without ``since`` the events begin now, or with the oldest one if there is an end.
        """
        selectors = filters or {}
        queue: asyncio.Queue[Event] = asyncio.Queue(_BACKLOG)
        self._subscribers.add(queue)
        try:
            if since is not None or until is not None:
                for event in tuple(self._recent):
                    late = until is not None and event.time / 1e9 > until
                    early = since is not None and event.time / 1e9 < since
                    if not early and not late and matches(event, selectors):
                        yield event.document()
            while True:
                timeout = None if until is None else until - time.time()
                if timeout is not None and timeout <= 0:
                    return
                try:
                    event = await asyncio.wait_for(queue.get(), timeout)
                except TimeoutError:
                    return
                if matches(event, selectors):
                    yield event.document()
        finally:
            self._subscribers.discard(queue)
