"""Receive buffers, and the end of a session."""

from __future__ import annotations

import asyncio

import pytest

from jaula.features.kubernetes.cri.streaming import streaming_transport
from jaula.features.kubernetes.cri.streaming.streaming_transport import (
    BufferPool,
    ReceiveBuffer,
    run_session,
)
from unit.event_loop import idle


def test_a_buffer_returns_all_that_waits() -> None:
    async def main() -> None:
        buffer = ReceiveBuffer(BufferPool())
        buffer.feed(b"one ")
        buffer.feed(b"two")
        buffer.end()
        buffer.feed(b"late")
        assert await buffer.read() == b"one two"
        assert await buffer.read() == b""

    asyncio.run(main())


def test_a_reader_waits_for_input() -> None:
    async def main() -> None:
        buffer = ReceiveBuffer(BufferPool())
        reading = asyncio.ensure_future(buffer.read())
        await idle()
        assert not reading.done()
        buffer.feed(b"x")
        assert await reading == b"x"

    asyncio.run(main())


def test_discarded_input_needs_no_room() -> None:
    async def main() -> None:
        pool = BufferPool(stream=1000, total=2000)
        buffer = ReceiveBuffer(pool)
        buffer.feed(b"x" * 5000)
        waiting = asyncio.ensure_future(pool.room())
        await idle()
        assert not waiting.done()
        buffer.discard()
        buffer.feed(b"x" * 5000)
        await waiting
        assert pool.used == 0
        assert await buffer.read() == b""

    asyncio.run(main())


def test_many_buffers_are_limited_together() -> None:
    async def main() -> None:
        pool = BufferPool(stream=1000, total=2000)
        buffers = [ReceiveBuffer(pool) for _ in range(3)]
        for buffer in buffers:
            buffer.feed(b"x" * 800)
        waiting = asyncio.ensure_future(pool.room())
        await idle()
        assert not waiting.done()
        await buffers[0].read()
        await waiting

    asyncio.run(main())


class Client:
    """A transport that has unsent output until it is flushed, and its connection."""

    closed_by_client = False

    def __init__(self) -> None:
        self.flushed = asyncio.Event()
        self.gone = asyncio.Event()
        self.finished = self.closed = False
        self.last_activity = asyncio.get_running_loop().time()

    async def flush(self) -> None:
        await self.flushed.wait()

    def close(self) -> None:
        self.closed = True

    async def run(self) -> None:
        await self.gone.wait()

    def finish(self) -> None:
        self.finished = True


async def ended() -> None:
    pass


def session(client: Client, work: object, idle_timeout: float = 60) -> asyncio.Future[None]:
    return asyncio.ensure_future(run_session(client, client, work, idle_timeout))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_transport, "CLOSE_SECONDS", 0.02)
    monkeypatch.setattr(streaming_transport, "DRAIN_SECONDS", 0.02)
    monkeypatch.setattr(streaming_transport, "WATCH_SECONDS", 0.02)


def test_a_session_is_not_closed_before_its_output_is_sent() -> None:
    async def main() -> None:
        client = Client()
        running = session(client, ended())
        await asyncio.sleep(0.1)
        assert client.finished
        assert not client.closed
        client.flushed.set()
        await running
        assert client.closed

    asyncio.run(main())


def test_work_without_a_client_is_cancelled_after_a_moment() -> None:
    async def main() -> None:
        client, work = Client(), asyncio.Event()
        running = session(client, work.wait())
        await idle()
        client.gone.set()
        await running
        assert client.closed
        assert not client.finished

    asyncio.run(main())


def test_a_session_ends_when_the_client_has_closed() -> None:
    async def main() -> None:
        client, work = Client(), asyncio.Event()
        client.closed_by_client = True
        await session(client, work.wait())
        assert client.closed

    asyncio.run(main())


def test_a_session_ends_when_nothing_moves() -> None:
    async def main() -> None:
        client, work = Client(), asyncio.Event()
        await session(client, work.wait(), idle_timeout=0.05)
        assert client.closed

    asyncio.run(main())


def test_a_failure_of_the_work_is_raised() -> None:
    async def fail() -> None:
        raise RuntimeError("broken")

    async def main() -> None:
        client = Client()
        client.flushed.set()
        with pytest.raises(RuntimeError, match="broken"):
            await session(client, fail())
        assert client.closed

    asyncio.run(main())
