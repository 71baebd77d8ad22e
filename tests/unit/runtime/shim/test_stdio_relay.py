"""A process's output and input between pipes, a log and clients."""

import os
import socket
import struct
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.kernel.poll import readable
from jaula.runtime.shim import stdio_relay
from jaula.runtime.shim.event_loop import EventLoop
from jaula.runtime.shim.stdio_relay import CLIENT_BUFFER, DetachScanner, Drain, StdioRelay
from jaula.runtime.shim_protocol import AttachStream


class Log:
    """A log writer that records its calls."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, bytes]] = []

    def write(self, stream: str, data: bytes) -> None:
        self.lines.append((stream, data))

    def flush(self) -> None:
        """Nothing is buffered."""

    def poll(self) -> float | None:
        """There is no periodic work."""

    def close(self) -> None:
        """Nothing is open."""


class Process:
    """The pipes of a process, both ends."""

    def __init__(self, *, stdin_once: bool = True) -> None:
        self.poller = EventLoop()
        stdin_r, stdin_w = os.pipe()
        stdout_r, self.stdout = os.pipe()
        stderr_r, self.stderr = os.pipe()
        self.stdin = stdin_r
        for fd in (stdin_w, stdout_r, stderr_r):
            os.set_blocking(fd, False)
        self.log = Log()
        self.streams = StdioRelay(
            self.poller,
            master=-1,
            stdin=stdin_w,
            stdout=stdout_r,
            stderr=stderr_r,
            log=self.log,
            stdin_once=stdin_once,
            on_detach=lambda: None,
        )

    def attach(self, wants: AttachStream) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.streams.attach(theirs, wants)
        ours.settimeout(2)
        return ours

    def turn(self, times: int = 5) -> None:
        for _ in range(times):
            self.poller.run_once(0.02)


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    yield process
    process.streams.close()
    for fd in (process.stdin, process.stdout, process.stderr):
        os.close(fd)


def test_output_goes_to_the_log_and_framed_to_clients(process: Process) -> None:
    client = process.attach(AttachStream())
    os.write(process.stdout, b"out\n")
    process.turn()
    os.write(process.stderr, b"err\n")
    process.turn()
    assert process.log.lines == [("stdout", b"out\n"), ("stderr", b"err\n")]
    assert client.recv(100) == (
        struct.pack(">BxxxL", 1, 4) + b"out\n" + struct.pack(">BxxxL", 2, 4) + b"err\n"
    )


def test_a_client_gets_only_the_streams_that_it_requested(process: Process) -> None:
    client = process.attach(AttachStream(stdout=False, framed=False))
    os.write(process.stdout, b"out")
    os.write(process.stderr, b"err")
    process.turn()
    assert client.recv(100) == b"err"


def test_input_early_bytes_first_and_half_close_ends_it(process: Process) -> None:
    client = process.attach(AttachStream(stdin=True, early=b"early "))
    client.sendall(b"late")
    client.shutdown(socket.SHUT_WR)
    process.turn()
    assert os.read(process.stdin, 100) == b"early late"
    assert os.read(process.stdin, 100) == b""
    os.write(process.stdout, b"still heard")
    process.turn()
    assert client.recv(100).endswith(b"still heard")


def test_stdin_stays_open_for_the_next_client_without_stdin_once() -> None:
    process = Process(stdin_once=False)
    first = process.attach(AttachStream(stdin=True))
    first.close()
    process.turn()
    second = process.attach(AttachStream(stdin=True))
    second.sendall(b"again")
    process.turn()
    assert os.read(process.stdin, 100) == b"again"
    process.streams.close()
    for fd in (process.stdin, process.stdout, process.stderr):
        os.close(fd)


def test_a_slow_client_stops_the_source_and_nothing_is_lost(process: Process) -> None:
    client = process.attach(AttachStream(framed=False))
    os.set_blocking(process.stdout, False)
    chunk = bytes(range(256)) * 256
    sent = 0
    for _ in range(400):
        try:
            sent += os.write(process.stdout, chunk)
        except BlockingIOError:
            pass
        process.poller.run_once(0)
    kept = sum(c.unsent for c in process.streams.clients.values())
    assert process.streams.reads_paused
    assert kept <= CLIENT_BUFFER + (1 << 17)
    got = 0
    while got < sent:
        if readable(0, client.fileno()):
            got += len(client.recv(1 << 16))
        process.poller.run_once(0)
    assert got == sent


def test_a_lost_client_does_not_affect_the_others(process: Process) -> None:
    gone, stays = process.attach(AttachStream()), process.attach(AttachStream(framed=False))
    gone.close()
    process.turn()
    os.write(process.stdout, b"x")
    process.turn()
    assert len(process.streams.clients) == 1
    assert stays.recv(10) == b"x"


def test_drain_ends_while_another_process_keeps_writing(process: Process) -> None:
    endless = os.open("/dev/zero", os.O_RDONLY)
    process.streams.sources[endless] = "stdout"
    process.streams.drain()
    assert sum(len(data) for _, data in process.log.lines) <= 256 << 16


def test_drain_reads_the_output_of_an_exited_process(process: Process) -> None:
    os.write(process.stdout, b"last words")
    process.streams.drain()
    assert process.log.lines == [("stdout", b"last words")]


KEYS = b"\x10\x11"


@pytest.mark.parametrize(
    ("pieces", "passed", "detached"),
    [
        ([b"abc"], b"abc", False),
        ([b"\x10\x11"], b"", True),
        ([b"a\x10", b"\x11b"], b"a", True),
        ([b"\x10x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x11\x10"], b"\x11", False),
    ],
)
def test_detach_keys_match_across_chunks(
    pieces: list[bytes], passed: bytes, detached: bool
) -> None:
    scanner = DetachScanner(KEYS)
    got, result = b"", False
    for piece in pieces:
        out, result = scanner.feed(piece)
        got += out
    assert (got, result) == (passed, detached)


@given(st.lists(st.binary(max_size=20)))
def test_without_detach_keys_all_input_passes(pieces: list[bytes]) -> None:
    scanner = DetachScanner(None)
    assert b"".join(scanner.feed(p)[0] for p in pieces) == b"".join(pieces)


@given(st.lists(st.binary(max_size=5), max_size=8))
def test_input_without_detach_keys_passes_except_for_an_open_prefix(
    pieces: list[bytes],
) -> None:
    whole = b"".join(pieces)
    scanner = DetachScanner(KEYS)
    got = b""
    for piece in pieces:
        out, result = scanner.feed(piece)
        got += out
        if result:
            assert KEYS in whole
            assert whole.startswith(got)
            return
    assert KEYS not in whole
    assert whole == got + KEYS[: scanner.matched]


class Ended:
    """The relay of an exited process with a number of clients."""

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


def test_without_clients_a_relay_is_closed_at_once() -> None:
    leaving = Drain()
    assert add(leaving, 0).closed
    assert not leaving
    assert leaving.timeout() is None


def test_a_relay_is_closed_when_its_last_client_has_read_everything() -> None:
    leaving = Drain()
    streams = add(leaving, 1)
    leaving.close_finished()
    assert (streams.closed, bool(leaving)) == (False, True)
    assert 0 < (leaving.timeout() or 0) <= stdio_relay.DRAIN_TIMEOUT
    streams.clients.clear()
    leaving.close_finished()
    assert (streams.closed, bool(leaving)) == (True, False)


def test_a_client_that_does_not_read_times_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stdio_relay, "DRAIN_TIMEOUT", 0.0)
    leaving = Drain()
    streams = add(leaving, 1)
    assert leaving.timeout() == 0
    leaving.close_finished()
    assert streams.closed
    assert not leaving
