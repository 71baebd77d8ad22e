"""The listener: out of descriptors it neither spins nor fills the log, and serves one client."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket

import pytest

from jaula import listener as module
from jaula.listener import DescriptorReserve, Listener


class ShortSocket(socket.socket):
    """A listening socket for which no descriptor is free as long as the reserve is held."""

    reserve: DescriptorReserve
    refused = 0
    short = True

    def accept(self) -> tuple[socket.socket, object]:
        if self.short and self.reserve._held:
            self.refused += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


@pytest.mark.parametrize("fills", [True, False], ids=["reserve is filled", "reserve stays empty"])
def test_a_shortage_is_logged_once_and_the_reserve_serves_clients(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fills: bool
) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    caplog.set_level(logging.INFO, "jaula.engine")

    async def test() -> None:
        loop = asyncio.get_running_loop()
        sock = ShortSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.reserve = reserve = DescriptorReserve(4)
        sock.bind(b"\0jaula-test-%d" % os.getpid())
        address = sock.getsockname()
        served: asyncio.Queue[socket.socket] = asyncio.Queue()
        fill = reserve.fill
        if not fills:
            monkeypatch.setattr(reserve, "fill", lambda: fill() and not sock.short)
        listener = Listener(loop, sock, 16, reserve, served.put_nowait)
        clients = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(3)]
        for client in clients:
            client.connect(address)
        for number in range(1, 4):
            (await asyncio.wait_for(served.get(), 30)).close()
            assert sock.refused == number  # one attempt for each pause
        sock.short = False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last:
            last.connect(address)
            (await asyncio.wait_for(served.get(), 30)).close()
        listener.close()
        reserve.release()
        for client in clients:
            client.close()

    asyncio.run(test())
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert "Too many open files" in caplog.records[0].message


def test_the_reserve_takes_what_is_free() -> None:
    reserve = DescriptorReserve(3)
    held = list(reserve._held)
    assert len(held) == 3
    assert reserve.fill()
    assert reserve.release()
    assert not reserve.release()
    for descriptor in held:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
