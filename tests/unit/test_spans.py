"""Spans: nothing without a backend; parents in generators and threads with one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

from jaula import spans

if TYPE_CHECKING:
    from jaula.spans import Attribute, OpenSpan


class Recorded:
    def __init__(self, name: str, parent: OpenSpan | None) -> None:
        self.name = name
        self.parent = parent
        self.attributes: dict[str, Attribute] = {}
        self.error: BaseException | None = None
        self.ended = 0

    def set(self, name: str, value: Attribute) -> None:
        self.attributes[name] = value

    def end(self, error: BaseException | None) -> None:
        self.error = error
        self.ended += 1


class Recorder:
    def __init__(self) -> None:
        self.all: list[Recorded] = []

    def start(
        self, name: str, parent: OpenSpan | None, attributes: Mapping[str, Attribute]
    ) -> Recorded:
        self.all.append(Recorded(name, parent))
        self.all[-1].attributes |= attributes
        return self.all[-1]

    def start_request(
        self, name: str, headers: Mapping[bytes, bytes], attributes: Mapping[str, Attribute]
    ) -> Recorded:
        return self.start(name, None, attributes)

    def parents(self) -> dict[str, str | None]:
        return {s.name: s.parent.name if isinstance(s.parent, Recorded) else None for s in self.all}


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    spans.set_backend(made)
    yield made
    spans.set_backend(None)


def test_without_a_backend_every_span_is_the_same_object_that_does_nothing() -> None:
    assert not spans.enabled()
    assert spans.span("a") is spans.span("b") is spans.NO_SPAN

    def work() -> None:
        return None

    assert spans.in_context(work) is work
    with spans.span("a") as span:
        span.set("key", 1)


def test_a_span_is_below_the_block_around_it(recorder: Recorder) -> None:
    with spans.span("outer", {"number": 1}):
        with spans.span("inner"):
            pass
        with spans.span("second"):
            pass
    with spans.span("apart"):
        pass
    assert recorder.parents() == {"outer": None, "inner": "outer", "second": "outer", "apart": None}
    assert recorder.all[0].attributes == {"number": 1}
    assert [span.ended for span in recorder.all] == [1, 1, 1, 1]


def test_an_error_ends_the_span_and_goes_on(recorder: Recorder) -> None:
    error = ValueError("no")
    with pytest.raises(ValueError, match="no"), spans.span("outer"), spans.span("inner"):
        raise error
    assert [span.error for span in recorder.all] == [error, error]
    with spans.span("next"):
        pass
    assert recorder.parents()["next"] is None


def test_tasks_have_the_span_of_their_creation(recorder: Recorder) -> None:
    async def work(name: str) -> None:
        await asyncio.sleep(0)
        with spans.span(name):
            await asyncio.sleep(0)

    async def run() -> None:
        with spans.span("one"):
            first = asyncio.ensure_future(work("of one"))
        with spans.span("two"):
            await work("of two")
        await first

    asyncio.run(run())
    assert recorder.parents()["of one"] == "one"
    assert recorder.parents()["of two"] == "two"


def test_a_generator_that_another_context_closes_ends_its_span(recorder: Recorder) -> None:
    async def generator() -> AsyncIterator[int]:
        with spans.span("generator"):
            yield 1
            yield 2

    async def run() -> None:
        items = generator()
        assert await anext(items) == 1
        await asyncio.create_task(items.aclose())  # type: ignore[attr-defined]

    asyncio.run(run())
    assert recorder.all[0].ended == 1


def test_a_thread_has_the_span_of_the_work_that_it_got(recorder: Recorder) -> None:
    def work() -> None:
        with spans.span("thread"):
            pass

    with spans.span("pull"):
        thread = threading.Thread(target=spans.in_context(work))
        thread.start()
        thread.join()
    assert recorder.parents() == {"pull": None, "thread": "pull"}
