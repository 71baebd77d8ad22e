"""The engine's end of a shim's socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from jaula.errors import RuntimeFailure, Unsupported
from jaula.runtime import seqpacket, shim_protocol
from jaula.runtime.runtime_client import Shim


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    second.settimeout(20)
    yield first, second
    first.close()
    second.close()


def number(shim: socket.socket) -> int:
    data, _ = seqpacket.receive(shim)
    return int(shim_protocol.decode_shim_request(data).number)


def answer(shim: socket.socket, number: int, error: str = "") -> None:
    seqpacket.send(shim, shim_protocol.encode(shim_protocol.Answer(number, error=error)))


def test_a_request_that_an_older_shim_does_not_know_has_the_true_advice(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    async def work() -> None:
        shim = Shim(ends[0], lambda _: None, asyncio.get_running_loop())
        first = asyncio.create_task(shim.resize("", 1, 1))
        second = asyncio.create_task(shim.reopen_log())
        numbers = [await asyncio.to_thread(number, ends[1]) for _ in range(2)]
        answer(ends[1], 0, "Invalid value 'resize' - at `$.type`")
        answer(ends[1], numbers[1])
        with pytest.raises(Unsupported, match="does not know this request") as raised:
            await first
        assert "restart the container" in str(raised.value)
        await second
        shim.close()

    asyncio.run(work())


def test_a_checkpoint_in_progress_keeps_its_own_answer(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    async def work() -> None:
        shim = Shim(ends[0], lambda _: None, asyncio.get_running_loop())
        request = shim_protocol.CheckpointRequest(0, "/nowhere")
        commit = socket.socketpair()
        dump = asyncio.create_task(shim.checkpoint(request, commit[0].detach()))
        dumped = await asyncio.to_thread(number, ends[1])
        unknown = asyncio.create_task(shim.reopen_log())
        await asyncio.to_thread(number, ends[1])
        answer(ends[1], 0, "Invalid value")
        with pytest.raises(Unsupported):
            await unknown
        answer(ends[1], dumped, "criu cannot dump")
        with pytest.raises(RuntimeFailure, match="criu cannot dump"):
            await dump
        commit[1].close()
        shim.close()

    asyncio.run(work())
