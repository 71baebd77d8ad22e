"""The requests of execs that are kept: whose share they take, and until when."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from jaula.engine.containers import container_exec
from jaula.engine.containers.container_exec import LEAST_SIZE, Execs
from jaula.errors import NotFound
from jaula.spec.api_documents import ExecCreate
from jaula.state.container_records import Status

LONG = ExecCreate(cmd=("echo", "x" * 5000))


def make() -> tuple[Execs, Any]:
    """Return the execs of an engine with one running container."""
    record = SimpleNamespace(status=Status.RUNNING, started_at=1, event_attributes={})
    container = SimpleNamespace(id="c", name="web", live=True, record=record, execs=set())
    services: Any = SimpleNamespace(
        container_store=SimpleNamespace(find=lambda ref: container),
        events=SimpleNamespace(emit=lambda *_: None),
    )
    users: Any = None
    return Execs(services, users), container


def test_an_exec_takes_the_bytes_of_its_request_until_it_is_forgotten() -> None:
    async def run() -> None:
        execs, _ = make()
        small = await execs.create("c", ExecCreate(cmd=("true",)), owner="5")
        large = await execs.create("c", LONG, owner="5")
        await execs.create("c", LONG)  # a probe of the engine
        assert execs.sizes.size("5") == LEAST_SIZE + len(msgspec.json.encode(LONG))
        execs.forget(small)
        execs.forget(large)
        assert (execs.sizes.size("5"), execs.sizes.size("")) == (0, 0)

    asyncio.run(run())


def test_an_exec_that_ended_takes_them_while_it_can_be_inspected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(container_exec, "_RETENTION", 0.01)

    async def run() -> None:
        execs, _ = make()
        id = await execs.create("c", LONG, owner="5")
        execs.find(id).started = True
        execs.ended(id, 0)
        assert execs.sizes.count("5") == 1
        assert execs.inspect(id)["ExitCode"] == 0
        await asyncio.sleep(0.1)
        assert execs.sizes.count("5") == 0
        with pytest.raises(NotFound):
            execs.find(id)

    asyncio.run(run())


def test_the_exit_of_a_container_drops_the_execs_that_were_not_started() -> None:
    async def run() -> None:
        execs, container = make()
        waiting = await execs.create("c", LONG, owner="5")
        running = await execs.create("c", LONG, owner="6")
        execs.find(running).started = True
        execs.container_exited(container)
        assert (execs.sizes.count("5"), execs.sizes.count("6")) == (0, 1)
        assert execs.inspect(running)["ExitCode"] == 137
        assert waiting not in execs._execs
        assert container.execs == set()

    asyncio.run(run())
