"""What a build tells its client: the stages' messages, in an order that people can read.

Stages run side by side. A client that knows nothing of that (moby ``pkg/jsonmessage``) gets what
the first stage says at once, and what a later one says when all before it have ended. One that
asked for steps gets everything at once, each message with its stage.

What is not read yet is bounded: a stage that says more waits.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from jaula.images.build.dockerfile.ast import LintWarning

Document = dict[str, Any]

_BOUND = 512  # messages of one channel that wait at most


class ProgressChannel:
    """What one stage says. ``stage`` is its number for people who draw it, -1 for the build."""

    def __init__(self, messages: ProgressStream, stage: int, name: str) -> None:
        self._messages = messages
        self.stage = stage
        self.name = name
        self.waiting: deque[Document] = deque()
        self.closed = False
        self._room = asyncio.Event()
        self._room.set()
        self._step = 0
        self._began = 0.0

    async def say(self, text: str) -> None:
        """Text as it is, line breaks included."""
        await self.put({"stream": text})

    async def put(self, document: Document) -> None:
        """One message; waits while too much is unread."""
        await self._room.wait()
        if self._messages.steps:
            about = {"stage": self.stage, "step": self._step}
            document = {**document, "jaula": about | document.get("jaula", {})}
        self.waiting.append(document)
        if len(self.waiting) >= _BOUND:
            self._room.clear()
        self._messages.wake(self)

    async def begin(self, number: int, total: int, text: str) -> None:
        """A step begins."""
        self._step, self._began = number, time.monotonic()
        await self.say(f"Step {number}/{total} : {text}\n")
        await self.state("started", text=text, total=total, name=self.name)

    async def state(self, state: str, **more: object) -> None:
        """A step's state, for those who asked for steps: started, cached, done or failed."""
        if self._messages.steps:
            ms = round((time.monotonic() - self._began) * 1000)
            await self.put({"jaula": {"state": state, "ms": ms} | more})

    async def warnings(self, remarks: Iterable[LintWarning]) -> None:
        """What looks odd in the Dockerfile, for those who asked for steps."""
        if self._messages.steps:
            for remark in remarks:
                await self.put({"remark": msgspec.to_builtins(remark)})

    def taken(self) -> None:
        """The reader took something."""
        if len(self.waiting) < _BOUND:
            self._room.set()

    def close(self) -> None:
        """Nothing more is said."""
        self.closed = True
        self._messages.wake(self)


class ProgressStream:
    """All channels of one build; ``steps`` as in :class:`~jaula.spec.build.BuildOptions`."""

    def __init__(self, *, steps: bool) -> None:
        self.steps = steps
        self._channels: list[ProgressChannel] = []
        self._news = asyncio.Event()
        self._complete = False

    def channel(self, stage: int, name: str) -> ProgressChannel:
        """A further channel; they are read in the order in which they were made."""
        made = ProgressChannel(self, stage, name)
        self._channels.append(made)
        return made

    def wake(self, channel: ProgressChannel) -> None:
        """A channel has news."""
        self._news.set()

    def complete(self) -> None:
        """No further channel will be made."""
        self._complete = True
        self._news.set()

    async def read(self) -> AsyncIterator[Document]:
        """Every message, until all channels are closed."""
        while True:
            self._news.clear()
            for channel in tuple(self._channels):
                while channel.waiting:
                    yield channel.waiting.popleft()
                    channel.taken()
                if not channel.closed:
                    if not self.steps:
                        break
                    continue
            self._channels = [c for c in self._channels if c.waiting or not c.closed]
            if not self._channels and self._complete:
                return
            if not any(self._readable()):
                await self._news.wait()

    def _readable(self) -> list[bool]:
        if self.steps:
            return [bool(c.waiting) or c.closed for c in self._channels]
        return [bool(c.waiting) or c.closed for c in self._channels[:1]]
