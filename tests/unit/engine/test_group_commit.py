"""Group commit: no answer before its records are on the disk, one fsync for many answers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaula.engine.group_commit import GroupCommit
from jaula.errors import Unavailable
from jaula.state.container_records import EngineIdentity
from jaula.state.database import Database
from unit.event_loop import idle


class Disk(Database):
    """A database whose sync ends when the test says so; ``synced`` has the changes of each."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.begun = threading.Semaphore(0)
        self.release = threading.Semaphore(0)
        self.synced: list[int] = []
        self.error: Exception | None = None

    def change(self) -> None:
        self.put("settings", "a", EngineIdentity("x"))

    def sync(self) -> None:
        changes = self.changes
        self.begun.release()
        self.release.acquire()
        if self.error is not None:
            raise self.error
        self.synced.append(changes)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with contextlib.closing(Disk(tmp_path / "jaula.db")) as opened:
        yield opened


def test_a_change_during_a_sync_waits_for_the_next_one(disk: Disk) -> None:
    async def test() -> None:
        commit = GroupCommit(disk, durable=True)
        disk.change()
        first = asyncio.create_task(commit.wait())
        await asyncio.to_thread(disk.begun.acquire)
        disk.change()
        second = asyncio.create_task(commit.wait())
        await idle()
        disk.release.release()
        await first
        await asyncio.to_thread(disk.begun.acquire)
        assert not second.done()
        disk.release.release()
        await second
        assert disk.synced == [1, 2]

    asyncio.run(test())


def test_many_clients_share_one_sync(disk: Disk) -> None:
    async def test() -> None:
        commit = GroupCommit(disk, durable=True)
        for _ in range(50):
            disk.change()
        disk.release.release()
        await asyncio.gather(*(commit.wait() for _ in range(50)))
        assert disk.synced == [50]
        await commit.wait()  # nothing is new
        assert disk.synced == [50]

    asyncio.run(test())


def test_a_client_that_leaves_does_not_end_the_sync_of_others(disk: Disk) -> None:
    async def test() -> None:
        commit = GroupCommit(disk, durable=True)
        disk.change()
        leaving, staying = (asyncio.create_task(commit.wait()) for _ in range(2))
        await asyncio.to_thread(disk.begun.acquire)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        disk.release.release()
        await staying
        assert disk.synced == [1]

    asyncio.run(test())


def test_a_disk_that_fails_is_told_to_every_client(disk: Disk) -> None:
    async def test() -> None:
        commit = GroupCommit(disk, durable=True)
        disk.change()
        disk.error = Unavailable("cannot write")
        disk.release.release()
        outcomes = await asyncio.gather(commit.wait(), commit.wait(), return_exceptions=True)
        assert outcomes == [disk.error] * 2
        disk.error = None
        disk.release.release()
        await commit.wait()
        assert disk.synced == [1]

    asyncio.run(test())


def test_relaxed_durability_never_waits(disk: Disk) -> None:
    disk.change()
    asyncio.run(GroupCommit(disk, durable=False).wait())
    assert disk.synced == []


def test_every_sync_runs_in_the_same_thread(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    monkeypatch.setattr(disk, "sync", lambda: threads.append(threading.get_ident()))

    async def test() -> None:
        commit = GroupCommit(disk, durable=True)
        for _ in range(3):
            disk.change()
            await commit.wait()

    asyncio.run(test())
    assert len(threads) == 3
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()
