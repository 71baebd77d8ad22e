"""The list of volumes: what is read of the disk is read outside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from jaula import request_context
from jaula.engine.volumes.volumes import Volumes
from jaula.errors import ClientGone, Conflict
from jaula.request_context import RequestContext
from jaula.storage.volume_directories import Volume


class Store:
    def __init__(self, *names: str) -> None:
        self.names = names
        self.threads: set[threading.Thread] = set()

    def read_all(self, check: Callable[[], None]) -> Iterator[Volume]:
        for name in self.names:
            check()
            self.threads.add(threading.current_thread())
            yield Volume(name, f"/{name}", "2026-01-01T00:00:00Z")

    def usage(self, name: str, check: Callable[[], None]) -> int:
        check()
        return 1


def service(store: Store, **references: Any) -> Volumes:
    services: Any = SimpleNamespace(
        volumes=store,
        volume_references=SimpleNamespace(users=lambda: {"used": ["a"]}, **references),
        events=SimpleNamespace(emit=lambda *_: None),
    )
    return Volumes(services)


def test_volumes_are_read_in_a_thread() -> None:
    store = Store("used", "unused")
    document = asyncio.run(service(store).list({"dangling": ["true"]}))
    assert [volume["Name"] for volume in document["Volumes"]] == ["unused"]
    assert threading.main_thread() not in store.threads


def test_a_prune_leaves_used_volumes_and_those_that_its_filter_does_not_select() -> None:
    removed = []

    async def remove(name: str, **_: object) -> None:
        if name == "taken":
            raise Conflict("a container has just taken it")
        removed.append(name)

    made = service(Store("used", "first", "taken", "second"), remove=remove)
    document = asyncio.run(made.prune({"all": ["true"]}))
    assert document == {"VolumesDeleted": ["first", "second"], "SpaceReclaimed": 2}
    assert asyncio.run(made.prune({"all": ["true"], "dangling": ["false"]})) == {
        "VolumesDeleted": [],
        "SpaceReclaimed": 0,
    }
    assert removed == ["first", "second"]


def test_a_list_ends_with_its_client() -> None:
    async def work() -> None:
        request_context.current.set(RequestContext("1", "0", "GET /volumes", lambda: True))
        await service(Store("data")).list({})

    with pytest.raises(ClientGone):
        asyncio.run(work())
