"""Clients may read the last output, but not for ever."""

from __future__ import annotations

from typing import Any, cast

import pytest

from jaula.runtime.shim import drain
from jaula.runtime.shim.drain import Drain
from jaula.runtime.shim.stdio_relay import StdioRelay


class Ended:
    """Streams of a process that has ended, with so many clients that read."""

    def __init__(self, clients: int) -> None:
        self.clients: list[Any] = [None] * clients
        self.closed = False

    def finish(self) -> bool:
        return not self.clients

    def close(self) -> None:
        self.closed = True


def add(leaving: Drain, clients: int) -> Ended:
    streams = Ended(clients)
    leaving.add(cast(StdioRelay, streams))
    return streams


def test_nobody_reads_so_nothing_waits() -> None:
    leaving = Drain()
    assert add(leaving, 0).closed
    assert not leaving
    assert leaving.pause() is None


def test_it_is_closed_when_the_last_client_has_read_everything() -> None:
    leaving = Drain()
    streams = add(leaving, 1)
    leaving.close_due()
    assert (streams.closed, bool(leaving)) == (False, True)
    assert 0 < (leaving.pause() or 0) <= drain.LINGER
    streams.clients.clear()
    leaving.close_due()
    assert (streams.closed, bool(leaving)) == (True, False)


def test_a_client_that_does_not_read_keeps_it_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drain, "LINGER", 0.0)
    leaving = Drain()
    streams = add(leaving, 1)
    assert leaving.pause() == 0
    leaving.close_due()
    assert streams.closed
    assert not leaving
