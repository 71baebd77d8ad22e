"""Messages of the engine to systemd: a start that goes on is extended, a blocked one is not."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.service_manager import ServiceManager
from jaula.daemon import sd_notify

EXTENDED = "EXTEND_TIMEOUT_USEC=300000000"


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceManager]:
    with ServiceManager(tmp_path / "notify") as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", str(manager.path))
        monkeypatch.setattr(sd_notify, "_INTERVAL", 0.05)
        yield manager


def test_a_start_is_extended_until_the_engine_is_ready(manager: ServiceManager) -> None:
    async def start() -> None:
        heartbeat = sd_notify.Heartbeat(asyncio.get_running_loop())
        heartbeat.start()
        await asyncio.sleep(0.3)
        heartbeat.ready()
        await asyncio.sleep(0.2)

    asyncio.run(start())
    manager.read(0.1)
    assert manager.messages[-1] == "READY=1"
    assert manager.messages[:-1] == [EXTENDED] * len(manager.messages[:-1])
    assert len(manager.messages) > 3


def test_a_blocked_start_is_extended_once(manager: ServiceManager) -> None:
    async def start() -> None:
        heartbeat = sd_notify.Heartbeat(asyncio.get_running_loop())
        heartbeat.start()
        time.sleep(0.3)  # noqa: ASYNC251
        heartbeat.stop()

    asyncio.run(start())
    manager.read(0.1)
    assert manager.messages == [EXTENDED, "STOPPING=1"]


def test_the_watchdog_is_fed_from_ready_to_stop(
    manager: ServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))

    async def serve() -> None:
        heartbeat = sd_notify.Heartbeat(asyncio.get_running_loop())
        heartbeat.start()
        heartbeat.ready()
        await asyncio.sleep(0.3)
        heartbeat.stop()
        await asyncio.sleep(0.2)

    asyncio.run(serve())
    manager.read(0.1)
    first, ready, *fed, stopping = manager.messages
    assert (first, ready, stopping) == (EXTENDED, "READY=1", "STOPPING=1")
    assert len(fed) > 3
    assert set(fed) == {"WATCHDOG=1"}


def test_a_message_that_fails_is_followed_by_others(
    manager: ServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    failures = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
        heartbeat = sd_notify.Heartbeat(loop)
        heartbeat.ready()
        monkeypatch.setenv("NOTIFY_SOCKET", f"{manager.path}.absent")
        await asyncio.sleep(0.15)
        manager.read(0.01)
        before = len(manager.messages)
        monkeypatch.setenv("NOTIFY_SOCKET", str(manager.path))
        await asyncio.sleep(0.3)
        heartbeat.stop()
        manager.read(0.1)
        assert "WATCHDOG=1" in manager.messages[before:]

    asyncio.run(serve())
    assert {type(failure) for failure in failures} == {FileNotFoundError}


def test_the_watchdog_of_another_process_is_not_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert sd_notify.watchdog_period() == 0


def test_an_engine_without_a_service_manager_sends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    sd_notify.extend_timeout()
