"""The observer's end in the engine: one child for all viewers, started for the first one.

:mod:`jaula.features.verify.observer` is the other end and describes the documents. The engine does
not import it. Without viewers the observer samples slowly, and ends after :data:`LINGER` seconds.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.engine.system.jaula_process import command, environment
from jaula.errors import Conflict, RuntimeFailure, Unavailable
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from jaula.engine.model.event_log import EventBus

log = logging.getLogger("jaula.observer")

MODULE = "jaula.features.verify.observer"
LINGER = 300.0  # seconds that the observer keeps the history without a viewer
MAX_LINE = 32 << 20  # bytes of one document
BACKLOG = 512  # documents that one viewer has not read
MAX_VIEWERS = 64
TIMEOUT = 30.0  # seconds for an answer

_EVENTS = ("start", "restart", "die", "destroy", "update", "rename", "unpause", "pause", "connect",
           "disconnect", "isolation-changed")  # fmt: skip

Document = dict[str, Any]


class ObserverEnded(Unavailable):
    """The child has ended, or been killed."""

    def __init__(self) -> None:
        super().__init__("the observer has ended: try again")


class Viewer:
    """The documents that one viewer has not read; the oldest ones are dropped."""

    def __init__(self) -> None:
        self.documents: deque[Document] = deque(maxlen=BACKLOG)
        self.ready = asyncio.Event()
        self.ended = False

    def put(self, document: Document) -> None:
        """Add a document."""
        self.documents.append(document)
        self.ready.set()

    def end(self) -> None:
        """Let the viewer end after what it has not read."""
        self.ended = True
        self.ready.set()


class Observer:
    """The child, its viewers, and the requests that it has not answered."""

    def __init__(self, socket: str, events: EventBus) -> None:
        self._socket = socket
        self._events = events
        self._child: asyncio.subprocess.Process | None = None
        self._viewers: set[Viewer] = set()
        self._waiting: dict[int, asyncio.Future[Document]] = {}
        self._number = 0
        self._tasks = BackgroundTasks(log, "observer")
        self._starting = asyncio.Lock()
        self._end: asyncio.TimerHandle | None = None
        self._following: asyncio.Task[None] | None = None

    async def stream(self) -> AsyncIterator[Document]:
        """Yield what is known of each container, then each new document.

        :raises Unavailable: when there are too many viewers, or the observer does not answer.
        """
        if len(self._viewers) >= MAX_VIEWERS:
            raise Unavailable(f"{MAX_VIEWERS} viewers observe this engine: close one of them")
        viewer = Viewer()
        self._viewers.add(viewer)
        try:
            current = await self.ask("current")
            self._tell_viewers()
            for document in current["Documents"]:
                yield document
            while True:
                while viewer.documents:
                    yield viewer.documents.popleft()
                if viewer.ended:
                    return
                viewer.ready.clear()
                await viewer.ready.wait()
        finally:
            self._viewers.discard(viewer)
            self._tell_viewers()
            self._linger()

    async def ask(self, method: str, **arguments: object) -> Document:
        """Return the observer's answer to one request.

        An observer that has ended is started again, once.

        :raises Conflict: when it cannot answer, with its reason.
        :raises Unavailable: when it does not answer in time, or ends again.
        """
        try:
            return await self._ask(method, arguments)
        except ObserverEnded:
            if self._child is not None:
                await self._child.wait()
            return await self._ask(method, arguments)

    async def _ask(self, method: str, arguments: dict[str, object]) -> Document:
        await self._start()
        self._number += 1
        number = self._number
        future: asyncio.Future[Document] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._send({"Request": number, "Method": method, **arguments})
            async with asyncio.timeout(TIMEOUT):
                return await future
        except TimeoutError:
            raise Unavailable("the observer does not answer: try again") from None
        finally:
            del self._waiting[number]
            self._linger()

    async def close(self) -> None:
        """End the child."""
        if self._end is not None:
            self._end.cancel()
        child = self._child
        if child is not None and child.returncode is None:
            assert child.stdin is not None, "it is a pipe"
            child.stdin.close()
            try:
                async with asyncio.timeout(2):
                    await child.wait()
            except TimeoutError:
                child.kill()
                await child.wait()
        self._tasks.cancel()

    # -- the child -------------------------------------------------------------------------------

    async def _start(self) -> None:
        async with self._starting:
            if self._child is not None and self._child.returncode is None:
                return
            try:
                self._child = await asyncio.create_subprocess_exec(
                    *command(MODULE, f"unix://{self._socket}"),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    env=environment(),
                    cwd="/",
                    limit=MAX_LINE,
                    process_group=0,
                )
            except OSError as error:
                raise RuntimeFailure(f"cannot start the observer: {error.strerror}") from error
            self._tasks.spawn(self._read(self._child))
            self._following = self._tasks.spawn(self._follow_events())

    def _send(self, document: Document) -> None:
        child = self._child
        if child is None or child.stdin is None or child.stdin.is_closing():
            raise ObserverEnded
        child.stdin.write(msgspec.json.encode(document) + b"\n")

    async def _follow_events(self) -> None:
        """Tell the child which containers the engine's events concern."""
        filters = {"type": ["container", "network"], "event": list(_EVENTS)}
        async for event in self._events.stream(filters=filters):
            actor = event["Actor"]
            try:
                self._send({"Event": actor["Attributes"].get("container") or actor["ID"]})
            except Unavailable:
                return

    async def _read(self, child: asyncio.subprocess.Process) -> None:
        assert child.stdout is not None, "it is a pipe"
        try:
            async for line in child.stdout:
                self._take(msgspec.json.decode(line))
        finally:
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    child.send_signal(signal.SIGKILL)
            await child.wait()
            if self._following is not None:
                self._following.cancel()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(ObserverEnded())
            for viewer in self._viewers:
                viewer.end()

    def _take(self, document: Document) -> None:
        number = document.get("Reply")
        if number is None:
            for viewer in self._viewers:
                viewer.put(document)
            return
        future = self._waiting.get(number)
        if future is None or future.done():
            return  # the client has left
        if "Error" in document:
            future.set_exception(Conflict(document["Error"]))
        else:
            future.set_result(document["Document"])

    def _tell_viewers(self) -> None:
        with suppress(Unavailable):
            self._send({"Viewers": len(self._viewers)})

    def _linger(self) -> None:
        """End the child later, unless another viewer comes."""
        if self._end is not None:
            self._end.cancel()
        self._end = asyncio.get_running_loop().call_later(LINGER, self._end_unwatched)

    def _end_unwatched(self) -> None:
        if not self._viewers and not self._waiting and self._child is not None:
            assert self._child.stdin is not None, "it is a pipe"
            self._child.stdin.close()
