"""Which containers need a volume, and removals that wait for or refuse each other."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.engine.volumes.volume_references import VolumeReferences
from jaula.errors import Conflict, NotFound


class Store:
    """Volumes of a store whose removal takes until ``gate`` is set."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()

    def remove(self, name: str, *, transaction: str | None = None, id: str | None = None) -> None:
        self.begun.set()
        assert self.gate.wait(30)
        if name not in self.names:
            raise NotFound(f"get {name}: no such volume")
        self.names.remove(name)


def container(container_id: str, *volumes: str) -> Any:
    mounts = tuple(SimpleNamespace(type="volume", name=name) for name in volumes)
    bind = SimpleNamespace(type="bind", name="")
    return SimpleNamespace(id=container_id, record=SimpleNamespace(mounts=(*mounts, bind)))


def references(store: Store, *containers: Any) -> VolumeReferences:
    volumes: Any = store
    records: Any = containers
    return VolumeReferences(volumes, records)


async def begun(store: Store) -> None:
    await asyncio.to_thread(store.begun.wait, 30)


def test_users_are_containers_with_a_record_and_those_being_created() -> None:
    async def work() -> None:
        made = references(Store("data"), container("a", "data", "other", "data"))
        await made.pin("data", "b")
        await made.pin("new", "b")
        assert made.users() == {"data": ["b", "a"], "new": ["b"], "other": ["a"]}
        made.unpin("new", "b")
        made.unpin("data", "b")
        assert made.users() == {"data": ["a"], "other": ["a"]}

    asyncio.run(work())


def test_changed_mounts_and_removed_containers_are_followed() -> None:
    first, second = container("a", "data"), container("b", "data")
    known = {each.id: each for each in (first, second)}
    made = VolumeReferences(Store(), known.values())  # type: ignore[arg-type]
    assert made.users() == {"data": ["a", "b"]}
    first.record.mounts = container("a", "other").record.mounts
    assert made.users() == {"other": ["a"], "data": ["b"]}
    del known["b"]
    assert made.users_of("data") == []
    assert made.users() == {"other": ["a"]}


def test_a_volume_that_a_container_needs_is_not_removed() -> None:
    async def work() -> None:
        store = Store("data", "kept")
        made = references(store, container("a", "data"))
        await made.pin("kept", "b")
        for name, user in (("data", "a"), ("kept", "b")):
            with pytest.raises(Conflict, match=rf"remove {name}: volume is in use - \[{user}\]"):
                await made.remove(name)
        made.unpin("kept", "b")
        await made.remove("kept")
        assert store.names == {"data"}

    asyncio.run(work())


def test_a_container_waits_for_a_removal_that_has_begun() -> None:
    async def work() -> None:
        store = Store("data")
        store.gate.clear()
        made = references(store)
        removal = asyncio.create_task(made.remove("data"))
        await begun(store)
        pinned = asyncio.create_task(made.pin("data", "b"))
        await asyncio.sleep(0)
        assert not pinned.done()
        store.gate.set()
        await pinned
        assert store.names == set()
        await removal
        assert made.users() == {"data": ["b"]}

    asyncio.run(work())


def test_a_cancelled_removal_keeps_containers_waiting_until_its_end() -> None:
    async def work() -> None:
        store = Store("data")
        store.gate.clear()
        made = references(store)
        removal = asyncio.create_task(made.remove("data"))
        await begun(store)
        removal.cancel()
        pinned = asyncio.create_task(made.pin("data", "b"))
        await asyncio.sleep(0)
        assert not pinned.done()
        store.gate.set()
        await pinned
        assert store.names == set()
        with pytest.raises(asyncio.CancelledError):
            await removal

    asyncio.run(work())


def test_of_two_removals_the_second_finds_no_volume() -> None:
    async def work() -> None:
        made = references(Store("data"))
        first, second = await asyncio.gather(
            made.remove("data"), made.remove("data"), return_exceptions=True
        )
        assert first is None
        assert isinstance(second, NotFound)
        with pytest.raises(NotFound):
            await made.remove("data")  # a failed removal leaves no mark

    asyncio.run(work())


class Created:
    """One volume that a transaction has created."""

    def __init__(self, transaction: str) -> None:
        self.transaction = transaction

    def get(self, name: str) -> Created:
        return self

    def adopt(self, name: str) -> None:
        self.transaction = ""


@pytest.mark.parametrize(
    ("opened", "by", "kept"),
    [
        (("made",), "", ""),
        (("made",), "other", ""),
        (("made",), "made", "made"),
        (("other",), "", "made"),
        ((), "", "made"),
    ],
)
def test_another_client_adopts_a_volume_of_an_open_transaction(
    opened: tuple[str, ...], by: str, kept: str
) -> None:
    volume: Any = Created("made")
    made = VolumeReferences(volume, ())  # type: ignore[arg-type]
    for word in opened:
        made.begin(word)
    asyncio.run(made.adopt("data", by))
    assert volume.transaction == kept


def test_a_transaction_is_open_until_each_begin_has_its_end() -> None:
    volume: Any = Created("made")
    made = VolumeReferences(volume, ())  # type: ignore[arg-type]
    with made.transaction("made"):
        made.begin("made")
    asyncio.run(made.adopt("data", "made"))
    assert volume.transaction == "made"
    asyncio.run(made.adopt("data"))
    assert volume.transaction == ""
    made.end("made")
