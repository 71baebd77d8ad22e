"""Cache directories that steps share or wait for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jaula.config import Paths
from jaula.features.build.builder.mounts.cache_dirs import CacheDirs
from jaula.images.dockerfile.ast import Sharing
from unit.event_loop import idle


def _run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


def test_shared_caches_use_one_directory_and_private_ones_several(tmp_path: Path) -> None:
    async def test() -> None:
        caches = CacheDirs(Paths(tmp_path, tmp_path))
        with ExitStack() as held:
            taken = [await caches.acquire("a", Sharing.SHARED, held) for _ in range(2)]
            assert len(set(taken)) == 1
            private = [await caches.acquire("p", Sharing.PRIVATE, held) for _ in range(2)]
            assert len(set(private)) == 2
        with ExitStack() as held:
            assert await caches.acquire("p", Sharing.PRIVATE, held) == private[0]

    _run(test())


def test_a_locked_cache_waits_until_it_is_released(tmp_path: Path) -> None:
    async def test() -> None:
        caches = CacheDirs(Paths(tmp_path, tmp_path))
        first = ExitStack()
        await caches.acquire("a", Sharing.LOCKED, first)
        with ExitStack() as second:
            waiting = asyncio.ensure_future(caches.acquire("a", Sharing.LOCKED, second))
            await idle()
            assert not waiting.done()
            first.close()
            await waiting

    _run(test())


def test_a_cancelled_waiter_holds_no_cache(tmp_path: Path) -> None:
    async def test() -> None:
        caches = CacheDirs(Paths(tmp_path, tmp_path))
        first, second = ExitStack(), ExitStack()
        await caches.acquire("a", Sharing.LOCKED, first)
        waiting = asyncio.ensure_future(caches.acquire("a", Sharing.LOCKED, second))
        await idle()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        second.close()
        first.close()
        with ExitStack() as third:
            await caches.acquire("a", Sharing.LOCKED, third)

    _run(test())


def test_a_cache_in_use_is_not_removed_and_unfinished_ones_are_swept(tmp_path: Path) -> None:
    async def test() -> None:
        caches = CacheDirs(Paths(tmp_path, tmp_path))
        with ExitStack() as held:
            path = await caches.acquire("a", Sharing.SHARED, held)
            owner = (os.geteuid(), os.getegid())
            caches.create(path, mode=0o700, owner=owner, client="5", fill=None)
            (Path(path) / "file").write_bytes(b"12345")
            caches.write_id(path, "/var/cache")
            ((name, id, size, _, used, client, identity),) = caches.list()
            assert (id, size, used, client) == ("/var/cache", 5, True, "5")
            assert not caches.remove(name, identity)
        assert caches.remove(name, identity)
        (tmp_path / "build" / "caches" / "new-1234").mkdir()
        caches.sweep()
        assert not any((tmp_path / "build" / "caches").iterdir())

    _run(test())
