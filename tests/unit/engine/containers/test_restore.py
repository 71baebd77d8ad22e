"""An engine takes over the starts of its predecessor, or undoes those in which nothing ran."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.config import Paths
from jaula.engine.containers import live_restore
from jaula.engine.containers.start import running_fields
from jaula.engine.hooks import Hooks
from jaula.engine.model.container import Container
from jaula.engine.model.event_log import EventBus
from jaula.errors import RuntimeFailure
from jaula.runtime.shim_protocol import ExitRecord
from jaula.spec.api_documents import ContainerCreate
from jaula.state.container_records import ContainerRecord, StartIntent, Status

INTENT = StartIntent(started_at=77, range_start=100_000, range_size=65_536)


class Machine:
    """The services that :mod:`restore` uses, with one container."""

    def __init__(self, base: Path, record: ContainerRecord, end: ExitRecord | None = None) -> None:
        self.container = Container(record)
        self.calls: list[str] = []
        paths = Paths(root=base / "root", run=base / "run")
        self.run_dir = paths.container_run(record.id)
        self.services: Any = SimpleNamespace(
            container_store=[self.container],
            config=SimpleNamespace(paths=paths),
            runtime=SimpleNamespace(exit_record=lambda run_dir: end),
            events=EventBus(),
            hooks=Hooks(),
        )
        self.containers: Any = SimpleNamespace(
            health=SimpleNamespace(started=lambda container: self.calls.append("health")),
            exit_handler=SimpleNamespace(
                save=lambda container: self.calls.append("save"),
                release=lambda container: self.calls.append("release"),
                remove_run_dir=lambda container: self.calls.append("remove_run_dir"),
                clean_up=self._clean_up,
                shim_lost=lambda container: self.calls.append("shim_lost"),
                resume=lambda container: self.calls.append("resume"),
            ),
            watch=lambda container: self.calls.append("watch"),
        )

    async def _clean_up(self, container: Container) -> None:
        self.calls.append("clean_up")

    def finish(self, *, shim: Any = None) -> ContainerRecord:
        starts = live_restore._resume_starts(self.services)
        self.container.shim = shim
        asyncio.run(live_restore._finish_starts(self.services, self.containers, starts))
        return self.container.record

    def adopt_late(self, *, exits: bool) -> ContainerRecord:
        """Finish the starts, then let the shim answer, or exit without an answer."""

        async def hello(timeout: float | None) -> None:
            if exits:
                shim.gone = True
                raise RuntimeFailure("the container's shim is gone")
            shim.pid, shim.shim_pid = 5, 6

        async def scene() -> None:
            late = asyncio.Event()
            late.set()
            await live_restore._finish_starts(self.services, self.containers, starts)
            assert self.calls == []
            await live_restore._adopt(
                self.services, self.containers, self.container, shim, late, starts
            )

        starts = live_restore._resume_starts(self.services)
        shim: Any = SimpleNamespace(
            pid=0, shim_pid=0, gone=False, hello=hello, take_engine_socket=lambda: None
        )
        self.container.shim = shim
        asyncio.run(scene())
        assert starts == {}
        return self.container.record


def record(status: Status = Status.CREATED, intent: StartIntent | None = INTENT) -> ContainerRecord:
    body = ContainerCreate(image="busybox")
    return ContainerRecord("0" * 64, "web", 1, body, "", status=status, start_intent=intent)


def test_a_shim_that_answers_is_recorded(tmp_path: Path) -> None:
    machine = Machine(tmp_path, record())
    after = machine.finish(shim=SimpleNamespace(pid=5, gone=False))
    assert (after.status, after.started_at, after.range_start) == (Status.RUNNING, 77, 100_000)
    assert after.start_intent is None
    assert machine.calls == ["health", "save"]
    assert not machine.container.exited.is_set()


def test_a_program_that_ended_is_left_to_the_exit(tmp_path: Path) -> None:
    machine = Machine(tmp_path, record(), ExitRecord(7, started_at=5.0))
    assert machine.finish().status is Status.RUNNING
    assert machine.calls == []


def test_a_killed_shim_counts_as_one_that_ran(tmp_path: Path) -> None:
    machine = Machine(tmp_path, record())
    machine.run_dir.mkdir(parents=True)
    (machine.run_dir / "shim.sock").touch()
    assert machine.finish().status is Status.RUNNING
    assert machine.calls == []


@pytest.mark.parametrize("status", [Status.CREATED, Status.EXITED, Status.RESTARTING])
def test_a_start_without_a_program_is_undone(tmp_path: Path, status: Status) -> None:
    machine = Machine(tmp_path, record(status))
    after = machine.finish()
    assert (after.status, after.started_at, after.range_start) == (status, 0, 0)
    assert (after.start_intent, after.error) == (None, "")
    assert machine.calls == ["clean_up", "release", "remove_run_dir", "save"]
    assert machine.container.exited.is_set()


def test_a_failure_that_the_shim_wrote_is_recorded(tmp_path: Path) -> None:
    machine = Machine(tmp_path, record(), ExitRecord(127, error="no such file"))
    after = machine.finish()
    assert (after.status, after.exit_code, after.error) == (Status.CREATED, 127, "no such file")


def test_a_shim_that_answers_late_is_recorded_then(tmp_path: Path) -> None:
    machine = Machine(tmp_path, record())
    after = machine.adopt_late(exits=False)
    assert (after.status, after.started_at, after.pid) == (Status.RUNNING, 77, 5)
    assert machine.calls == ["watch", "health", "save"]


@pytest.mark.parametrize("status", [Status.CREATED, Status.RESTARTING])
def test_a_shim_that_exits_late_without_a_program_is_undone(tmp_path: Path, status: Status) -> None:
    machine = Machine(tmp_path, record(status))
    after = machine.adopt_late(exits=True)
    assert (after.status, after.started_at, after.start_intent) == (status, 0, None)
    undo = ["clean_up", "release", "remove_run_dir", "save"]
    assert machine.calls == undo + ["resume"] * (status is Status.RESTARTING)
    assert machine.container.shim is None


def test_a_shim_that_exits_late_after_its_program_is_lost(tmp_path: Path) -> None:
    machine = Machine(tmp_path, record(), ExitRecord(7, started_at=5.0))
    machine.adopt_late(exits=True)
    assert machine.calls == ["shim_lost"]


@pytest.mark.parametrize("status", [Status.RUNNING, Status.PAUSED, Status.EXITED])
def test_other_containers_are_not_touched(tmp_path: Path, status: Status) -> None:
    before = record(status, None)
    machine = Machine(tmp_path, before)
    assert machine.finish() == before
    assert machine.calls == []


def test_the_intent_has_every_member_of_a_running_container() -> None:
    fields = running_fields(INTENT)
    assert set(fields) <= set(ContainerRecord.__struct_fields__)
    assert (fields["started_at"], fields["range_size"]) == (77, 65_536)
    assert (fields["start_intent"], fields["error"], fields["exit_code"]) == (None, "", 0)
