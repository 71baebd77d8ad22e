"""A process's output and input between pipes, a log and clients."""

import os
import select
import socket
import struct
from collections.abc import Iterator

import pytest

from jaula.runtime.protocol import AttachStream
from jaula.runtime.shim.event_loop import EventLoop
from jaula.runtime.shim.stdio_relay import CLIENT_BUFFER, StdioRelay


class Log:
    """A log writer that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, bytes]] = []

    def write(self, stream: str, data: bytes) -> None:
        self.lines.append((stream, data))

    def flush(self) -> None:
        """Nothing is kept back."""

    def poll(self) -> float | None:
        """Nothing goes on beside."""

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
            self.poller.turn(0.02)


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


def test_a_client_hears_only_what_it_asked_for(process: Process) -> None:
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
        process.poller.turn(0)
    kept = sum(c.behind for c in process.streams.clients.values())
    assert process.streams.paused
    assert kept <= CLIENT_BUFFER + (1 << 17)
    got = 0
    while got < sent:
        if select.select([client], [], [], 0)[0]:
            got += len(client.recv(1 << 16))
        process.poller.turn(0)
    assert got == sent


def test_a_client_that_vanishes_is_dropped_and_others_go_on(process: Process) -> None:
    gone, stays = process.attach(AttachStream()), process.attach(AttachStream(framed=False))
    gone.close()
    process.turn()
    os.write(process.stdout, b"x")
    process.turn()
    assert len(process.streams.clients) == 1
    assert stays.recv(10) == b"x"


def test_drain_ends_although_another_process_writes_on(process: Process) -> None:
    endless = os.open("/dev/zero", os.O_RDONLY)
    process.streams.sources[endless] = "stdout"
    process.streams.drain()
    assert sum(len(data) for _, data in process.log.lines) <= 256 << 16


def test_drain_reads_what_a_dead_process_left(process: Process) -> None:
    os.write(process.stdout, b"last words")
    process.streams.drain()
    assert process.log.lines == [("stdout", b"last words")]
