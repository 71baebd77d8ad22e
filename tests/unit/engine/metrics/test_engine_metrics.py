"""The cache of pages: one collection at a time, its age, and slow machines."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jaula.features.metrics import engine_metrics
from jaula.features.metrics.engine_metrics import Metrics
from jaula.features.metrics.engine_table import EngineFacts
from jaula.features.metrics.exposition import OPENMETRICS, TEXT


class Clock:
    """Time that only tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(engine_metrics, "time", made)
    return made


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[str]:
    """Return the steps of collections; each writes a page that has its number."""
    steps: list[str] = []

    def collect(self: Metrics, running: object, facts: object) -> Any:
        steps.append("collect")
        return (len(steps),)

    def write(collection: Any, format: str, compressed: bool) -> bytes:
        steps.append(f"write {format}")
        return b"%d" % collection[0]

    monkeypatch.setattr(engine_metrics, "targets", lambda services, labels: [])
    monkeypatch.setattr(Metrics, "_facts", lambda self, running: EngineFacts())
    monkeypatch.setattr(Metrics, "_collect", collect)
    monkeypatch.setattr(Metrics, "_measure_lag", lambda self: None)
    monkeypatch.setattr(engine_metrics, "_write", write)
    return steps


def metrics() -> Metrics:
    services = SimpleNamespace(
        config=SimpleNamespace(metrics_labels=(), paths=SimpleNamespace(root="/"))
    )
    return Metrics(cast("Any", services), lambda: 0)


def test_clients_that_ask_together_share_a_collection(measured: list[str]) -> None:
    async def run() -> list[bytes]:
        made = metrics()
        asked = [made.page(TEXT, compressed=False) for _ in range(5)]
        return await asyncio.gather(*asked, made.page(OPENMETRICS, compressed=False))

    assert set(asyncio.run(run())) == {b"1"}
    assert measured == ["collect", "write text", "write openmetrics"]


def test_a_page_is_kept_for_a_second(measured: list[str], clock: Clock) -> None:
    async def run() -> None:
        made = metrics()
        for moved in (0.0, 0.9, 0.2, 0.5):
            clock.now += moved
            await made.page(TEXT, compressed=False)

    asyncio.run(run())
    assert measured == ["collect", "write text"] * 2


def test_a_page_that_is_written_late_is_still_an_answer(
    measured: list[str], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(collection: Any, format: str, compressed: bool) -> bytes:
        clock.now += 5
        return b"late"

    monkeypatch.setattr(engine_metrics, "_write", slow)

    async def run() -> bytes:
        return await asyncio.wait_for(metrics().page(TEXT, compressed=False), 10)

    assert asyncio.run(run()) == b"late"
    assert measured == ["collect"]


def test_a_failed_collection_fails_its_clients_and_no_later_one(
    measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError("no disk")]

    def collect(self: Metrics, running: object, facts: object) -> Any:
        if failures:
            raise failures.pop()
        return (7,)

    monkeypatch.setattr(Metrics, "_collect", collect)

    async def run() -> None:
        made = metrics()
        with pytest.raises(OSError, match="no disk"):
            await made.page(TEXT, compressed=False)
        assert await made.page(TEXT, compressed=False) == b"7"

    asyncio.run(run())


def test_a_client_that_leaves_does_not_end_the_collection(measured: list[str]) -> None:
    async def run() -> bytes:
        made = metrics()
        first = asyncio.ensure_future(made.page(TEXT, compressed=False))
        await asyncio.sleep(0)
        first.cancel()
        return await made.page(TEXT, compressed=False)

    assert asyncio.run(run()) == b"1"
    assert measured == ["collect", "write text"]
