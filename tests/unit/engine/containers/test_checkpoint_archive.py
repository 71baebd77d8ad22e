"""An import that is cancelled while it waits: for its client, the lock, or a thread."""

from __future__ import annotations

import asyncio
import functools
import io
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.features.checkpoint import checkpoint_archive
from jaula.features.checkpoint.checkpoint_archive import ArchiveReader
from jaula.features.checkpoint.checkpoint_export import CheckpointArchives
from jaula.features.checkpoint.checkpoint_store import CheckpointStore, Manifest
from jaula.spec.api_documents import CheckpointClone

ID = "c" * 64
IMAGE = "sha256:0"
FACTS = Manifest(ID, "one", 1, "4.2", "6.18", os.uname().machine, IMAGE)


class Blocked:
    """A function of a thread that waits until the test lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()
        original = getattr(owner, name)

        @functools.wraps(original)
        def replaced(*args: Any, **kwargs: Any) -> Any:
            self.entered.set()
            assert self.go_on.wait(30)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, replaced)


def archive(store: CheckpointStore) -> bytes:
    images = store.begin(ID, "one")
    (images / "files.img").write_bytes(b"files")
    manifest = store.commit(images, FACTS)
    out = io.BytesIO()
    checkpoint_archive.write(store.images(manifest).parent, manifest, out.write)
    store.remove(ID, "one")
    return out.getvalue()


def importing(
    store: CheckpointStore, container: Any, stream: AsyncIterator[bytes]
) -> asyncio.Task[Any]:
    services: Any = SimpleNamespace(service=lambda make: store, container_store={ID: container})
    checkpoints: Any = SimpleNamespace(check_host=lambda manifest: None)
    none: Any = None
    archives = CheckpointArchives(services, checkpoints, none)
    return asyncio.ensure_future(
        archives.import_(
            stream,
            CheckpointClone(),
            owner=("0", 0),
            authorize=none,
            authorize_existing=lambda id: None,
        )
    )


def blocked(monkeypatch: pytest.MonkeyPatch, step: str) -> Blocked | None:
    owners: dict[str, tuple[Any, str]] = {
        "extraction": (ArchiveReader, "extract"),
        "link": (CheckpointStore, "link"),
        "removal of the files": (shutil, "rmtree"),
    }
    return Blocked(monkeypatch, *owners[step]) if step in owners else None


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - a thread changes it
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("cancels", [1, 3])
@pytest.mark.parametrize("step", ["stream", "lock", "extraction", "link", "removal of the files"])
def test_a_cancelled_import_leaves_nothing_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, cancels: int
) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    data = archive(store)

    async def stream() -> AsyncIterator[bytes]:
        yield data[: len(data) // 2]
        if step == "stream":
            await asyncio.Event().wait()
        yield data[len(data) // 2 :]

    async def work() -> None:
        record = SimpleNamespace(image=IMAGE, body=SimpleNamespace(image="x"))
        container = SimpleNamespace(id=ID, name="c", lock=asyncio.Lock(), record=record)
        if step == "lock":
            await container.lock.acquire()
        block = blocked(monkeypatch, step)
        task = importing(store, container, stream())
        if block is not None:
            await until(block.entered.is_set)
        else:
            await until(lambda: any(tmp_path.glob("checkpoints/.incoming-*")))
            await asyncio.sleep(0.2)
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0.02)
        if block is not None:
            block.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    monkeypatch.undo()
    complete = step == "removal of the files"
    assert store.names(ID) == (["one"] if complete else [])
    if complete:
        store.verify(store.read(ID, "one"))
    entries = [path.name for path in tmp_path.rglob("*") if path.is_dir()]
    assert not [name for name in entries if name.startswith(".")]
