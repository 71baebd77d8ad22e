"""Events: kept, filtered, bounded. And streams between threads and the loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jaula.engine import threads
from jaula.engine.model.event_log import Event, EventBus, matches

EVENT = Event("container", "die", "abcdef", {"name": "web", "image": "busybox:1", "k": "v"}, 5)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, True),
        ({"type": ["container"]}, True),
        ({"type": ["image", "network"]}, False),
        ({"event": ["die"]}, True),
        ({"event": ["di"]}, False),
        ({"container": ["web"]}, True),
        ({"container": ["abc"]}, True),
        ({"container": ["we"]}, False),
        ({"image": ["busybox"]}, True),
        ({"label": ["k=v"]}, True),
        ({"label": ["k=w"]}, False),
        ({"type": ["container"], "event": ["start"]}, False),
        ({"colour": ["red"]}, False),
    ],
)
def test_a_filter_fits_or_not(filters: dict[str, list[str]], expected: bool) -> None:
    assert matches(EVENT, filters) is expected


def test_an_exec_event_is_matched_by_its_verb() -> None:
    event = Event("container", "exec_start: sh -c true", "a", {}, 0)
    assert matches(event, {"event": ["exec_start"]})


def test_the_document_has_the_fields_of_old_and_new_clients() -> None:
    document = EVENT.document()
    assert document["status"] == document["Action"] == "die"
    assert document["id"] == document["Actor"]["ID"] == "abcdef"
    assert document["from"] == "busybox:1"
    assert document["timeNano"] == 5


def run(scenario: Any) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_subscriber_gets_recent_and_new_events() -> None:
    async def scenario() -> None:
        events = EventBus()
        events.emit("container", "create", "1")
        stream = events.stream(since=0)
        assert (await anext(stream))["Action"] == "create"
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        events.emit("container", "start", "1")
        assert (await waiting)["Action"] == "start"
        assert events.listeners == 1
        await stream.aclose()  # type: ignore[attr-defined]
        assert events.listeners == 0

    run(scenario)


def test_a_bounded_stream_ends() -> None:
    async def scenario() -> None:
        events = EventBus()
        for number in range(300):
            events.emit("container", "create", str(number))
        found = [event async for event in events.stream(since=0, until=time.time())]
        assert len(found) == 256
        assert found[-1]["id"] == "299"

    run(scenario)


def test_a_slow_listener_loses_the_oldest_and_not_the_engines_memory() -> None:
    async def scenario() -> None:
        events = EventBus()
        stream = events.stream()
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        for number in range(5000):
            events.emit("container", "create", str(number))
        await first
        rest = [(await anext(stream))["id"] for _ in range(1000)]
        assert rest[-1] >= "4000"

    run(scenario)


def test_items_of_a_thread_arrive_in_order_and_its_exception_at_the_end() -> None:
    async def scenario() -> None:
        def work(emit: Any) -> None:
            for number in range(100):
                emit(number)
            raise ValueError("broken")

        found = []

        async def collect() -> None:
            async for number in threads.produce(work):
                found.append(number)

        with pytest.raises(ValueError, match="broken"):
            await collect()
        assert found == list(range(100))

    run(scenario)


def test_a_reader_that_stops_ends_the_thread() -> None:
    async def scenario() -> None:
        ended = []

        def work(emit: Any) -> None:
            try:
                while True:
                    emit(b"x" * 1000)
            finally:
                ended.append(True)

        stream = threads.produce(work)
        assert await anext(stream) == b"x" * 1000
        await stream.aclose()  # type: ignore[attr-defined]
        assert ended == [True]

    run(scenario)


def test_a_stream_is_read_as_a_file_even_if_not_to_its_end() -> None:
    async def scenario() -> None:
        async def source() -> AsyncIterator[bytes]:
            for _ in range(200):
                yield b"y" * 65536

        def work(file: Any, emit: Any) -> None:
            emit(len(file.read(100_000)))

        assert [n async for n in threads.consume(source(), work)] == [100_000]

        def everything(file: Any, emit: Any) -> None:
            emit(len(file.read()))

        assert [n async for n in threads.consume(source(), everything)] == [200 * 65536]

    run(scenario)
