"""The order of progress messages, and the limit of unread ones."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from jaula.features.build.builder import build_progress
from jaula.features.build.builder.build_progress import ProgressChannel, ProgressStream
from unit.event_loop import idle


def _run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


async def _texts(source: ProgressStream) -> list[str]:
    return [m["stream"].strip() async for m in source.read() if "stream" in m]


@pytest.mark.parametrize(
    ("steps", "order"), [(False, ["a1", "a2", "b1", "b2"]), (True, ["b1", "b2", "a1", "a2"])]
)
def test_messages_of_a_later_stage_wait_unless_the_client_asked_for_steps(
    steps: bool, order: list[str]
) -> None:
    async def test() -> None:
        source = ProgressStream(steps=steps)
        first, second = source.add_channel(0, "a"), source.add_channel(1, "b")
        source.complete()

        async def speak() -> None:
            await _say(second, "b1", "b2")
            await idle()  # what is read before the first stage says anything is read now
            await _say(first, "a1", "a2")

        speaking = asyncio.ensure_future(speak())
        assert await _texts(source) == order
        await speaking

    _run(test())


async def _say(channel: ProgressChannel, *texts: str) -> None:
    for text in texts:
        await channel.write(text)
    channel.close()


def test_a_writer_waits_for_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_progress, "_MAX_UNREAD", 4)

    async def test() -> None:
        source = ProgressStream(steps=False)
        first, second = source.add_channel(0, ""), source.add_channel(1, "")
        source.complete()
        speaking = asyncio.ensure_future(_say(second, *(str(n) for n in range(100))))
        await idle()
        assert len(second.unread) == 4
        first.close()
        assert len(await _texts(source)) == 100
        await speaking

    _run(test())


def test_steps_have_their_stage_number_and_state() -> None:
    async def test() -> None:
        source = ProgressStream(steps=True)
        channel = source.add_channel(3, "name")
        source.complete()
        await channel.begin_step(5, 9, "RUN x", word="RUN", position=(2, 4))
        await channel.put_state("done")
        channel.close()
        found = [m["jaula"] async for m in source.read()]
        assert all((about["stage"], about["step"]) == (3, 5) for about in found)
        assert [about.get("state") for about in found] == [None, "started", "done"]

    _run(test())
