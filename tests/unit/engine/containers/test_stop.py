"""Pauses: the record, the freezer, and a disk that is full."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest

from jaula.engine.containers.resolved_request import resolve
from jaula.engine.containers.stop import ProcessControl
from jaula.engine.model.container import Container
from jaula.engine.model.services import Services
from jaula.errors import Unavailable, Unsupported
from jaula.spec.api_documents import ContainerCreate
from jaula.state.container_records import ContainerRecord, Status


class Freezer:
    """A cgroup that is also its driver."""

    def __init__(self) -> None:
        self.is_frozen = False
        self.failure: Exception | None = None

    def open(self, path: str) -> Freezer:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def freeze(self) -> None:
        if self.failure is not None:
            raise self.failure
        self.is_frozen = True

    def thaw(self) -> None:
        self.is_frozen = False

    def frozen(self) -> bool:
        return self.is_frozen


class Host:
    """One running container, its freezer and its store."""

    def __init__(self, run: Path) -> None:
        body = ContainerCreate(image="busybox")
        record = ContainerRecord(
            id="1" * 64,
            name="web",
            created=1,
            body=body,
            image="sha256:1",
            status=Status.RUNNING,
            resolved_request=resolve(body),
        )
        self.container = Container(record)
        self.container.shim = cast("Any", SimpleNamespace(gone=False))
        self.freezer = Freezer()
        self.saved: list[ContainerRecord] = []
        self.full = False
        self.events: list[str] = []
        paths = SimpleNamespace(container_run=lambda container_id: run)
        services = SimpleNamespace(
            config=SimpleNamespace(paths=paths, cgroup_parent="jaula", systemd_cgroups=False),
            cgroups=self.freezer,
            container_store=SimpleNamespace(save=self.save),
        )
        self.control = ProcessControl(
            cast("Services", services), self.emit, lambda container: not self.full
        )

    def save(self, container: Container) -> None:
        if self.full:
            raise Unavailable("the disk is full")
        self.saved.append(container.record)

    def emit(self, container: Container, action: str, more: dict[str, str] | None = None) -> None:
        self.events.append(action)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr("jaula.engine.userns.join.init_exits", lambda container: False)
    return Host(tmp_path)


def perform(work: Callable[[], Awaitable[None]]) -> None:
    async def scenario() -> None:
        await work()

    asyncio.run(scenario())


def test_a_pause_that_cannot_be_recorded_leaves_the_container_running(host: Host) -> None:
    host.full = True
    with pytest.raises(Unavailable):
        perform(lambda: host.control.freeze(host.container))
    assert not host.freezer.is_frozen
    assert host.container.record.status is Status.RUNNING
    assert host.events == []


def test_the_record_says_that_a_commit_freezes_before_the_kernel_does(host: Host) -> None:
    seen: list[bool] = []

    async def commit() -> None:
        async with host.control.frozen_for_commit(host.container):
            seen.append(host.freezer.is_frozen)
            assert host.saved[-1].frozen_by_commit
            assert host.saved[-1].status is Status.RUNNING
            assert host.container.record.status is Status.PAUSED
            raise Unavailable("the disk is full")

    with pytest.raises(Unavailable):
        perform(commit)
    assert seen == [True]
    assert not host.freezer.is_frozen
    assert host.container.record.status is Status.RUNNING
    assert not host.container.record.frozen_by_commit
    assert host.events == ["pause", "unpause"]


def test_a_commit_that_cannot_be_recorded_freezes_nothing(host: Host) -> None:
    host.full = True

    async def commit() -> None:
        async with host.control.frozen_for_commit(host.container):
            raise AssertionError("the record could not be written")

    with pytest.raises(Unavailable):
        perform(commit)
    assert not host.freezer.is_frozen
    assert host.events == []


def test_a_commit_without_a_freezer_says_how_to_commit(host: Host) -> None:
    host.freezer.failure = Unsupported("cannot pause: the container has no cgroup")

    async def commit() -> None:
        async with host.control.frozen_for_commit(host.container):
            raise AssertionError("it is not frozen")

    with pytest.raises(Unsupported, match="--pause=false"):
        perform(commit)
    assert not host.container.record.frozen_by_commit


def test_a_commit_of_a_container_that_another_program_froze_leaves_it_frozen(host: Host) -> None:
    host.freezer.is_frozen = True

    async def commit() -> None:
        async with host.control.frozen_for_commit(host.container):
            pass

    perform(commit)
    assert host.freezer.is_frozen


@pytest.mark.parametrize("by_commit", [True, False])
def test_the_next_engine_thaws_what_a_commit_froze(host: Host, by_commit: bool) -> None:
    host.freezer.is_frozen = True
    host.container.change(frozen_by_commit=by_commit)
    perform(lambda: host.control.restore(host.container))
    assert host.freezer.is_frozen is not by_commit
    status = Status.RUNNING if by_commit else Status.PAUSED
    assert host.container.record.status is status
    assert not host.container.record.frozen_by_commit


def test_the_status_is_what_the_freezer_says(host: Host) -> None:
    host.freezer.is_frozen = True
    host.control.refresh(host.container)
    assert host.container.record.status is Status.PAUSED
    host.freezer.is_frozen = False
    host.control.refresh(host.container)
    assert host.container.record.status is Status.RUNNING
