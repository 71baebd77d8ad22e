"""A process's input and output: pipes or a terminal on one side, a log and clients on the other.

Follows the Docker Engine API, "Attach to a container": framed output has an 8-byte header (stream
number, three zeros, length in big-endian), a terminal's is raw.

Nothing is buffered without bound: while a client is :data:`CLIENT_BUFFER` bytes behind, the source
is not read, and the container's writes block as they would on a slow terminal. Input behaves the
same way in the other direction.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Protocol

from jaula.runtime.interfaces import LogWriter
from jaula.runtime.protocol import AttachStream
from jaula.runtime.shim.detach_keys import DetachScanner

READ_SIZE = 1 << 16
DRAIN_READS = 256  # more than a pipe or a terminal holds
CLIENT_BUFFER = 1 << 20  # bytes one client may be behind
STDIN_BUFFER = 1 << 16  # bytes the container may be behind
_NUMBERS = {"stdout": 1, "stderr": 2}


class Poller(Protocol):
    """The shim's event loop, as the streams see it."""

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None: ...
    def forget(self, fd: int) -> None: ...


class Client:
    """One attached connection."""

    def __init__(self, sock: socket.socket, wants: AttachStream) -> None:
        self.sock = sock
        self.wants = wants
        self.fd = sock.fileno()
        self.pending: list[bytes] = []
        self.behind = 0
        self.reading = wants.stdin
        self.closing = False
        self.scanner = DetachScanner(None)

    def queue(self, data: bytes) -> None:
        """Send what fits now and keep the rest."""
        if not self.pending:
            try:
                sent = self.sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        self.pending.append(data)
        self.behind += len(data)

    def flush(self) -> None:
        """Send kept data until the socket is full; raises ``OSError`` when the client is gone."""
        while self.pending:
            data = self.pending[0]
            try:
                sent = self.sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            self.behind -= sent
            if sent == len(data):
                self.pending.pop(0)
            else:
                self.pending[0] = data[sent:]


class StdioRelay:
    """Joins one process to its log and its clients.

    ``on_detach`` is called when a client typed its detach keys.
    """

    def __init__(
        self,
        poller: Poller,
        *,
        master: int,
        stdin: int,
        stdout: int,
        stderr: int,
        log: LogWriter | None,
        stdin_once: bool,
        on_detach: Callable[[], None],
    ) -> None:
        self.poller = poller
        self.terminal = master >= 0
        self.log = log
        self.stdin_once = stdin_once
        self.on_detach = on_detach
        self.clients: dict[int, Client] = {}
        self.sources: dict[int, str] = {}
        self.paused = False
        self.master = master
        self.stdin = master if self.terminal else stdin
        self.stdin_pending = b""
        self.stdin_ending = False
        if self.terminal:
            os.set_blocking(master, False)
            self.sources[master] = "stdout"
        else:
            self.sources[stdout] = "stdout"
            self.sources[stderr] = "stderr"
            if stdin >= 0:
                poller.watch(stdin, 0, self._stdin_event)
        for fd in self.sources:
            poller.watch(fd, select.EPOLLIN, self._source_event(fd))

    # output

    def _source_event(self, fd: int) -> Callable[[int], None]:
        def ready(events: int) -> None:
            if events & select.EPOLLOUT and self.terminal:
                self._write_stdin()
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._read_source(fd)

        return ready

    def _read_source(self, fd: int) -> bool:
        """Read once; false when there is nothing more for now or ever."""
        if fd not in self.sources:
            return False
        try:
            data = os.read(fd, READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:  # EIO: every slave of the terminal is closed
            data = b""
        if not data:
            self._end_source(fd)
            return False
        self._output(self.sources[fd], data)
        return True

    def _output(self, stream: str, data: bytes) -> None:
        if self.log is not None:
            self.log.write(stream, data)
        if not self.clients:
            return
        framed = struct.pack(">BxxxL", _NUMBERS[stream], len(data)) + data
        for client in list(self.clients.values()):
            if client.closing or not (
                client.wants.stdout if stream == "stdout" else client.wants.stderr
            ):
                continue
            try:
                client.queue(framed if client.wants.framed and not self.terminal else data)
            except OSError:
                self._drop(client)
                continue
            if client.behind:
                self._watch(client)
        self._balance()

    def _balance(self) -> None:
        """Stop or resume reading the container as the slowest client allows."""
        full = any(client.behind > CLIENT_BUFFER for client in self.clients.values())
        if full != self.paused:
            self.paused = full
            for fd in self.sources:
                self._watch_source(fd)

    def _watch_source(self, fd: int) -> None:
        events = 0 if self.paused else select.EPOLLIN
        if self.terminal and self.stdin_pending:
            events |= select.EPOLLOUT
        self.poller.watch(fd, events, self._source_event(fd))

    def _end_source(self, fd: int) -> None:
        self.poller.forget(fd)
        del self.sources[fd]
        if fd != self.master:
            os.close(fd)

    def drain(self) -> None:
        """Read what the process left behind; called when it has ended.

        Bounded, since another process may hold the other end and write on and on.
        """
        for fd in list(self.sources):
            for _ in range(DRAIN_READS):
                if not self._read_source(fd):
                    break
        if self.log is not None:
            self.log.flush()

    def poll(self) -> float | None:
        """Let the log go on with what it does beside; seconds until the next call, if any."""
        return None if self.log is None else self.log.poll()

    # clients

    def attach(self, sock: socket.socket, wants: AttachStream) -> None:
        """Add a client; what it sent before is input already."""
        client = Client(sock, wants)
        client.scanner = DetachScanner(wants.detach_keys if self.terminal else None)
        self.clients[client.fd] = client
        self._watch(client)
        if wants.stdin and wants.early:
            self._input(client, wants.early)

    def _watch(self, client: Client) -> None:
        events = select.EPOLLOUT if client.behind else 0
        if client.reading and len(self.stdin_pending) < STDIN_BUFFER:
            events |= select.EPOLLIN
        self.poller.watch(client.fd, events, lambda got: self._client_event(client, got))

    def _client_event(self, client: Client, events: int) -> None:
        if client.fd not in self.clients:
            return
        try:
            if events & select.EPOLLOUT:
                client.flush()
            if events & select.EPOLLIN and client.reading:
                data = client.sock.recv(READ_SIZE, socket.MSG_DONTWAIT)
                if data:
                    self._input(client, data)
                else:
                    self._input_ended(client)
            elif events & (select.EPOLLHUP | select.EPOLLERR):
                if client.reading:
                    self._input_ended(client)
                self._drop(client)
                return
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        if client.closing and not client.behind:
            self._drop(client)
        elif client.fd in self.clients:
            self._watch(client)
        self._balance()

    def _drop(self, client: Client) -> None:
        if self.clients.pop(client.fd, None) is not None:
            self.poller.forget(client.fd)
            client.sock.close()
            self._balance()

    def finish(self) -> bool:
        """No more output will come: end clients as they catch up; true when none is left."""
        for client in list(self.clients.values()):
            client.closing = True
            client.reading = False
            if client.behind:
                self._watch(client)
            else:
                self._drop(client)
        return not self.clients

    def close(self) -> None:
        """Drop everything at once."""
        for client in list(self.clients.values()):
            self._drop(client)
        for fd in list(self.sources):
            self._end_source(fd)
        self._close_stdin()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1
        if self.log is not None:
            self.log.close()
            self.log = None

    # input

    def _input(self, client: Client, data: bytes) -> None:
        data, detached = client.scanner.feed(data)
        if data and self.stdin >= 0:
            self.stdin_pending += data
            self._write_stdin()
        if detached:
            client.reading = False
            self._drop(client)
            self.on_detach()

    def _input_ended(self, client: Client) -> None:
        client.reading = False
        if self.stdin_once and not self.terminal:
            self.stdin_ending = True
            self._write_stdin()

    def _stdin_event(self, events: int) -> None:
        if events & (select.EPOLLERR | select.EPOLLHUP):
            self.stdin_pending = b""
            self._close_stdin()
        elif events & select.EPOLLOUT:
            self._write_stdin()

    def _write_stdin(self) -> None:
        if self.stdin < 0:
            self.stdin_pending = b""
            return
        was_full = len(self.stdin_pending) >= STDIN_BUFFER
        try:
            while self.stdin_pending:
                sent = os.write(self.stdin, self.stdin_pending)
                self.stdin_pending = self.stdin_pending[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self.stdin_pending = b""
            self._close_stdin()
        if self.terminal:
            if self.master in self.sources:
                self._watch_source(self.master)
        elif self.stdin >= 0:
            if self.stdin_pending:
                self.poller.watch(self.stdin, select.EPOLLOUT, self._stdin_event)
            elif self.stdin_ending:
                self._close_stdin()
            else:
                self.poller.watch(self.stdin, 0, self._stdin_event)
        if was_full and len(self.stdin_pending) < STDIN_BUFFER:
            for client in self.clients.values():
                self._watch(client)

    def _close_stdin(self) -> None:
        if self.stdin >= 0 and not self.terminal:
            self.poller.forget(self.stdin)
            os.close(self.stdin)
        self.stdin = -1
