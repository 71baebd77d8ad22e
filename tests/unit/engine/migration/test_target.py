"""The target of a migration, between two messages of the source."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.errors import Unavailable
from jaula.features.checkpoint.checkpoint_store import CheckpointStore, Manifest
from jaula.features.migration.target_engine import CHECKPOINT, Incoming, finish
from jaula.spec.migration import Cancel
from jaula.state.container_records import MigrationPhase, MigrationRecord


class Channel:
    """A channel on which a source sends one message, or none."""

    def __init__(self, *messages: Cancel) -> None:
        self._messages = list(messages)

    async def receive(self) -> Cancel:
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop()


def incoming(channel: Channel, files: asyncio.Future[None]) -> Any:
    made: Any = Incoming.__new__(Incoming)
    made._channel = channel
    made.files = SimpleNamespace(finished=files)
    return made


@pytest.mark.parametrize("before", [True, False])
def test_files_that_have_failed_end_the_wait_for_a_message(before: bool) -> None:
    """Also if they failed while the message before was handled: the source waits for the reason."""

    async def work() -> None:
        files = asyncio.get_running_loop().create_future()
        error = Unavailable("no space left")
        if before:
            files.set_exception(error)
        else:
            asyncio.get_running_loop().call_later(0.05, files.set_exception, error)
        with pytest.raises(Unavailable, match="no space left"):
            await asyncio.wait_for(incoming(Channel(), files)._next(), 5)

    asyncio.run(work())


@pytest.mark.parametrize("arrived", [True, False])
def test_a_message_is_returned_before_and_after_the_files_have_arrived(arrived: bool) -> None:
    async def work() -> None:
        files = asyncio.get_running_loop().create_future()
        if arrived:
            files.set_result(None)
        message = Cancel("enough")
        assert await asyncio.wait_for(incoming(Channel(message), files)._next(), 5) == message

    asyncio.run(work())


@pytest.mark.parametrize("replaced", [False, True])
def test_only_the_checkpoint_of_the_migration_is_removed_when_the_container_runs(
    tmp_path: Path, replaced: bool
) -> None:
    """Each start of the engine does that. A client may have made one of the same name since."""
    store, word = CheckpointStore(tmp_path), "word of the client" if replaced else "word"
    images = store.begin("c" * 64, CHECKPOINT)
    manifest = Manifest(
        "c" * 64, CHECKPOINT, 1, "4.2", "6.18", "x86_64", "sha256:0", transaction=word
    )
    store.commit(images, manifest)
    record = MigrationRecord("m", MigrationPhase.RECEIVED, "peer", transaction="word")
    services: Any = SimpleNamespace(service=lambda make: store)
    container: Any = SimpleNamespace(id="c" * 64, record=SimpleNamespace(migration=record))
    asyncio.run(finish(services, container))
    assert store.names("c" * 64) == ([CHECKPOINT] if replaced else [])
