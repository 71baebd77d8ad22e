"""The target of a migration, between two messages of the source."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.engine.migration.target import Incoming
from jaula.errors import Unavailable
from jaula.spec.migration import Cancel


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
