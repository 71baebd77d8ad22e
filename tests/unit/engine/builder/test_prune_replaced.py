"""A prune removes the directories that it has listed, and none that has got the name of one."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.config import Paths
from jaula.features.build.build_options import PruneOptions
from jaula.features.build.builder import prune_cache
from jaula.features.build.builder.local_directories import LocalDirectoryStore
from jaula.features.build.builder.mounts.cache_dirs import CacheDirs
from jaula.images.dockerfile.ast import Sharing


def _prune(paths: Paths, caches: CacheDirs, monkeypatch: pytest.MonkeyPatch, replace: Any) -> Any:
    """Prune the caches of an engine; call ``replace`` when they are listed."""
    cache: Any = SimpleNamespace(all=list)
    images: Any = SimpleNamespace(named_layers=frozenset, collect=lambda: ())
    in_thread = prune_cache.in_thread

    async def listed_first(work: Any, *args: Any) -> Any:
        result = await in_thread(work, *args)
        if isinstance(result, list):
            await asyncio.to_thread(replace)  # the engine serves other requests meanwhile
        return result

    monkeypatch.setattr(prune_cache, "in_thread", listed_first)
    options = PruneOptions()
    local = LocalDirectoryStore(paths)
    return asyncio.run(prune_cache.prune(cache, caches, local, images, options, 0))


def _make_cache(caches: CacheDirs, content: bytes) -> Path:
    async def path() -> str:
        with ExitStack() as held:
            return await caches.acquire("a", Sharing.SHARED, held)

    made = asyncio.run(path())
    owner = (os.geteuid(), os.getegid())
    caches.create(made, mode=0o700, owner=owner, client="5", fill=None)
    (Path(made) / "file").write_bytes(content)
    return Path(made)


@pytest.mark.parametrize("replaced", [True, False])
def test_a_prune_removes_no_cache_directory_that_was_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    paths = Paths(tmp_path, tmp_path)
    caches = CacheDirs(paths)
    path = _make_cache(caches, b"former")

    def replace() -> None:
        if replaced:
            shutil.rmtree(path.parent)
            _make_cache(caches, b"new")

    answer = _prune(paths, caches, monkeypatch, replace)
    assert bool(answer["CachesDeleted"]) is not replaced
    assert path.exists() is replaced
    if replaced:
        assert (path / "file").read_bytes() == b"new"
        assert answer["SpaceReclaimed"] == 0


@pytest.mark.parametrize("replaced", [True, False])
def test_a_prune_removes_no_context_that_a_build_has_received_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    paths = Paths(tmp_path, tmp_path)
    local = LocalDirectoryStore(paths)

    def receive(content: bytes) -> None:
        received = tmp_path / "received"
        received.mkdir()
        (received / "file").write_bytes(content)
        local.keep("5", "key", "context", str(received))

    def replace() -> None:
        if replaced:
            receive(b"new")

    receive(b"former")
    answer = _prune(paths, CacheDirs(paths), monkeypatch, replace)
    kept = Path(local.previous("5", "key", "context"))
    assert bool(answer["CachesDeleted"]) is not replaced
    assert kept.exists() is replaced
    if replaced:
        assert (kept / "file").read_bytes() == b"new"
