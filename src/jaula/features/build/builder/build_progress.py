"""The progress messages of a build, in an order that people can read.

Stages run side by side. An ordinary client (moby ``pkg/jsonmessage``) does not know stages: it gets
the messages of the first open stage at once, and those of a later stage when all before it have
ended. A client that asked for steps gets every message at once, marked with its stage.

The queue of unread messages is bounded: a stage that writes more waits for the reader.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from jaula.images.dockerfile.ast import LintWarning

Document = dict[str, Any]

_MAX_UNREAD = 512  # messages of one channel


class ProgressChannel:
    """The messages of one stage. ``stage`` is its number, -1 for the build as a whole.

    ``index`` is its number in the Dockerfile, the same for each platform.
    """

    def __init__(self, stream: ProgressStream, stage: int, name: str, index: int) -> None:
        self._stream = stream
        self.stage = stage
        self.name = name
        self.index = index
        self.unread: deque[Document] = deque()
        self.closed = False
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._step = 0
        self._began = 0.0

    async def write(self, text: str) -> None:
        """Send text; it contains its own line breaks."""
        await self.put({"stream": text})

    async def put(self, document: Document) -> None:
        """Send one message; wait while the queue is full."""
        await self._has_room.wait()
        if self._stream.steps:
            position = {"stage": self.stage, "step": self._step}
            document = {**document, "jaula": position | document.get("jaula", {})}
        self.unread.append(document)
        if len(self.unread) >= _MAX_UNREAD:
            self._has_room.clear()
        self._stream.notify()

    async def begin_step(
        self,
        number: int,
        total: int,
        text: str,
        *,
        word: str,
        position: tuple[int, int],
        image: str = "",
        platform: str = "",
    ) -> None:
        """Send the headline of a step, and start its time.

        ``word`` is its instruction. ``position`` is its place among the counted steps of its stage,
        and their number; zeros if it is not counted. ``image`` is the name of a base image.
        ``platform`` is '' unless the build has several.
        """
        self._step, self._began = number, time.monotonic()
        await self.write(f"Step {number}/{total} : {text}\n")
        base = {"image": image} if image else {}
        await self.put_state(
            "started",
            text=text,
            total=total,
            name=self.name,
            index=self.index,
            word=word,
            position=position,
            platform=platform,
            **base,
        )

    async def put_state(self, state: str, **more: object) -> None:
        """Send the state of a step: started, cached, done or failed. Only for steps clients."""
        if self._stream.steps:
            ms = round((time.monotonic() - self._began) * 1000)
            await self.put({"jaula": {"state": state, "ms": ms} | more})

    async def put_warnings(self, warnings: Iterable[LintWarning]) -> None:
        """Send lint warnings about the Dockerfile. Only for steps clients."""
        if self._stream.steps:
            for warning in warnings:
                await self.put({"remark": msgspec.to_builtins(warning)})

    def resume(self) -> None:
        """Let writers continue once the reader has made room."""
        if len(self.unread) < _MAX_UNREAD:
            self._has_room.set()

    def close(self) -> None:
        """End the channel; no message follows."""
        self.closed = True
        self._stream.notify()


class ProgressStream:
    """All channels of one build; ``steps`` is that of :class:`~.options.BuildOptions`."""

    def __init__(self, *, steps: bool) -> None:
        self.steps = steps
        self._channels: list[ProgressChannel] = []
        self._changed = asyncio.Event()
        self._complete = False

    def add_channel(self, stage: int, name: str, index: int = -1) -> ProgressChannel:
        """Add a channel. Channels are read in the order in which they were added."""
        channel = ProgressChannel(self, stage, name, index)
        self._channels.append(channel)
        return channel

    def notify(self) -> None:
        """Wake the reader after a channel has changed."""
        self._changed.set()

    def complete(self) -> None:
        """Declare that no channel will be added any more."""
        self._complete = True
        self._changed.set()

    async def read(self) -> AsyncIterator[Document]:
        """Yield every message until all channels are closed."""
        while True:
            self._changed.clear()
            for channel in tuple(self._channels):
                while channel.unread:
                    yield channel.unread.popleft()
                    channel.resume()
                if not channel.closed:
                    if not self.steps:
                        break
                    continue
            self._channels = [c for c in self._channels if c.unread or not c.closed]
            if not self._channels and self._complete:
                return
            if not any(self._readable()):
                await self._changed.wait()

    def _readable(self) -> list[bool]:
        channels = self._channels if self.steps else self._channels[:1]
        return [bool(c.unread) or c.closed for c in channels]
