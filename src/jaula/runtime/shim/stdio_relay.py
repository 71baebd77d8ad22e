"""Relay a process's stdio: pipes or a terminal on one side, the log and clients on the other.

Follows the Docker Engine API, "Attach to a container": framed output has an 8-byte header (stream
number, three zeros, length in big-endian), a terminal's output is raw.

Buffers are bounded. While a client is :data:`CLIENT_BUFFER` bytes behind, the source is not read,
and the container's writes block as they would on a slow terminal. Input behaves the same way in the
other direction.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Protocol

from jaula.runtime.interfaces import LogWriter
from jaula.runtime.shim_protocol import AttachStream
from jaula.spec.asciicast import CastWriter

READ_SIZE = 1 << 16  # bytes
DRAIN_READS = 256  # reads of READ_SIZE: more than a pipe or a terminal holds
CLIENT_BUFFER = 1 << 20  # bytes that may be queued for one client
STDIN_BUFFER = 1 << 16  # bytes that may be queued for the container
_STREAM_NUMBERS = {"stdout": 1, "stderr": 2}


class Watcher(Protocol):
    """The part of the shim's event loop that a relay uses."""

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None: ...
    def forget(self, fd: int) -> None: ...


class Client:
    """One attached connection."""

    def __init__(self, sock: socket.socket, stream_options: AttachStream) -> None:
        self.sock = sock
        self.stream_options = stream_options
        self.fd = sock.fileno()
        self.pending: list[bytes] = []
        self.unsent = 0
        self.reading = stream_options.stdin
        self.closing = False
        self.scanner = DetachScanner(None)

    def queue(self, data: bytes) -> None:
        """Send what the socket takes now and queue the rest."""
        if not self.pending:
            try:
                sent = self.sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        self.pending.append(data)
        self.unsent += len(data)

    def flush(self) -> None:
        """Send queued data until the socket is full.

        :raises OSError: when the client is gone.
        """
        while self.pending:
            data = self.pending[0]
            try:
                sent = self.sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            self.unsent -= sent
            if sent == len(data):
                self.pending.pop(0)
            else:
                self.pending[0] = data[sent:]


class StdioRelay:
    """Connect one process to its log and its clients.

    ``on_detach`` is called when a client has typed its detach keys. ``recording`` gets output and
    input, if the sessions of the container are recorded.
    """

    def __init__(
        self,
        event_loop: Watcher,
        *,
        master: int,
        stdin: int,
        stdout: int,
        stderr: int,
        log: LogWriter | None,
        stdin_once: bool,
        on_detach: Callable[[], None],
        recording: CastWriter | None = None,
    ) -> None:
        self.event_loop = event_loop
        self.recording = recording
        self.terminal = master >= 0
        self.log = log
        self.stdin_once = stdin_once
        self.on_detach = on_detach
        self.clients: dict[int, Client] = {}
        self.sources: dict[int, str] = {}
        self.reads_paused = False
        self.master = master
        self.stdin = master if self.terminal else stdin
        self.stdin_pending = b""
        self.stdin_eof = False
        if self.terminal:
            os.set_blocking(master, False)
            self.sources[master] = "stdout"
        else:
            self.sources[stdout] = "stdout"
            self.sources[stderr] = "stderr"
            if stdin >= 0:
                event_loop.watch(stdin, 0, self._stdin_event)
        for fd in self.sources:
            event_loop.watch(fd, select.EPOLLIN, self._source_event(fd))

    # output

    def _source_event(self, fd: int) -> Callable[[int], None]:
        def ready(events: int) -> None:
            if events & select.EPOLLOUT and self.terminal:
                self._write_stdin()
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._read_source(fd)

        return ready

    def _read_source(self, fd: int) -> bool:
        """Read once; return False when there is nothing more for now, or at all."""
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
        """Write one chunk of output to the log and to the clients."""
        if self.log is not None:
            self.log.write(stream, data)
        if self.recording is not None:
            self.recording.output(data)
        if not self.clients:
            return
        framed = struct.pack(">BxxxL", _STREAM_NUMBERS[stream], len(data)) + data
        for client in list(self.clients.values()):
            if client.closing or not (
                client.stream_options.stdout if stream == "stdout" else client.stream_options.stderr
            ):
                continue
            try:
                client.queue(framed if client.stream_options.framed else data)
            except OSError:
                self._disconnect(client)
                continue
            if client.unsent:
                self._watch(client)
        self._update_back_pressure()

    def _update_back_pressure(self) -> None:
        """Pause or resume reading from the container, as the slowest client allows."""
        full = any(client.unsent > CLIENT_BUFFER for client in self.clients.values())
        if full != self.reads_paused:
            self.reads_paused = full
            for fd in self.sources:
                self._watch_source(fd)

    def _watch_source(self, fd: int) -> None:
        events = 0 if self.reads_paused else select.EPOLLIN
        if self.terminal and self.stdin_pending:
            events |= select.EPOLLOUT
        self.event_loop.watch(fd, events, self._source_event(fd))

    def _end_source(self, fd: int) -> None:
        self.event_loop.forget(fd)
        del self.sources[fd]
        if fd != self.master:
            os.close(fd)

    def drain(self) -> None:
        """Read the output that an exited process left in its pipes or terminal.

        The number of reads is bounded: another process may hold the other end and keep writing.
        """
        for fd in list(self.sources):
            for _ in range(DRAIN_READS):
                if not self._read_source(fd):
                    break
        if self.log is not None:
            self.log.flush()

    def poll(self) -> float | None:
        """Run the log's periodic work; return the seconds until the next call, or None."""
        return None if self.log is None else self.log.poll()

    # clients

    def attach(self, sock: socket.socket, stream_options: AttachStream) -> None:
        """Add a client; input that it sent before the hand-over is processed first."""
        client = Client(sock, stream_options)
        client.scanner = DetachScanner(stream_options.detach_keys if self.terminal else None)
        self.clients[client.fd] = client
        self._watch(client)
        if stream_options.stdin and stream_options.early:
            self._on_input(client, stream_options.early)

    def _watch(self, client: Client) -> None:
        events = select.EPOLLOUT if client.unsent else 0
        if client.reading and len(self.stdin_pending) < STDIN_BUFFER:
            events |= select.EPOLLIN
        self.event_loop.watch(client.fd, events, lambda events: self._client_event(client, events))

    def _client_event(self, client: Client, events: int) -> None:
        if client.fd not in self.clients:
            return
        try:
            if events & select.EPOLLOUT:
                client.flush()
            if events & select.EPOLLIN and client.reading:
                data = client.sock.recv(READ_SIZE, socket.MSG_DONTWAIT)
                if data:
                    self._on_input(client, data)
                else:
                    self._on_input_end(client)
            elif events & (select.EPOLLHUP | select.EPOLLERR):
                if client.reading:
                    self._on_input_end(client)
                self._disconnect(client)
                return
        except BlockingIOError:
            pass
        except OSError:
            self._disconnect(client)
            return
        if client.closing and not client.unsent:
            self._disconnect(client)
        elif client.fd in self.clients:
            self._watch(client)
        self._update_back_pressure()

    def _disconnect(self, client: Client) -> None:
        if self.clients.pop(client.fd, None) is not None:
            self.event_loop.forget(client.fd)
            client.sock.close()
            self._update_back_pressure()

    def finish(self) -> bool:
        """Disconnect each client once it has read all output; return True if none is left."""
        for client in list(self.clients.values()):
            client.closing = True
            client.reading = False
            if client.unsent:
                self._watch(client)
            else:
                self._disconnect(client)
        return not self.clients

    def close(self) -> None:
        """Close all clients, descriptors and the log at once."""
        for client in list(self.clients.values()):
            self._disconnect(client)
        for fd in list(self.sources):
            self._end_source(fd)
        self._close_stdin()
        if self.recording is not None:
            self.recording.close()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1
        if self.log is not None:
            self.log.close()
            self.log = None

    # input

    def _on_input(self, client: Client, data: bytes) -> None:
        data, detached = client.scanner.feed(data)
        if data and self.stdin >= 0:
            if self.recording is not None:
                self.recording.input(data)
            self.stdin_pending += data
            self._write_stdin()
        if detached:
            client.reading = False
            self._disconnect(client)
            self.on_detach()

    def _on_input_end(self, client: Client) -> None:
        client.reading = False
        if self.stdin_once and not self.terminal:
            self.stdin_eof = True
            self._write_stdin()

    def _stdin_event(self, events: int) -> None:
        if events & (select.EPOLLERR | select.EPOLLHUP):
            self.stdin_pending = b""
            self._close_stdin()
        elif events & select.EPOLLOUT:
            self._write_stdin()

    def _write_stdin(self) -> None:
        """Write queued input until the container's stdin is full, and watch it for the rest."""
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
                self.event_loop.watch(self.stdin, select.EPOLLOUT, self._stdin_event)
            elif self.stdin_eof:
                self._close_stdin()
            else:
                self.event_loop.watch(self.stdin, 0, self._stdin_event)
        if was_full and len(self.stdin_pending) < STDIN_BUFFER:
            for client in self.clients.values():
                self._watch(client)

    def _close_stdin(self) -> None:
        if self.stdin >= 0 and not self.terminal:
            self.event_loop.forget(self.stdin)
            os.close(self.stdin)
        self.stdin = -1


class DetachScanner:
    """Scan client input for the detach keys; ``None`` or empty keys never match.

    Follows Docker: the keys are removed from the input. A prefix that turns out not to be the
    sequence is passed on. The sequence may be split over several chunks.
    """

    def __init__(self, keys: bytes | None) -> None:
        self.keys = keys or b""
        self.matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return the input to pass on, and whether the sequence is complete.

        The rest of the input is dropped if it is.
        """
        if not self.keys:
            return data, False
        output = bytearray()
        for byte in data:
            if byte == self.keys[self.matched]:
                self.matched += 1
                if self.matched == len(self.keys):
                    return bytes(output), True
                continue
            output += self.keys[: self.matched]
            self.matched = 0
            if byte == self.keys[0]:
                self.matched = 1
                if len(self.keys) == 1:
                    return bytes(output), True
            else:
                output.append(byte)
        return bytes(output), False


DRAIN_TIMEOUT = 10.0  # seconds that attached clients have to read the remaining output


class Drain:
    """Relays of exited processes, kept until their clients have read all output or time out."""

    def __init__(self) -> None:
        self._draining: list[tuple[float, StdioRelay]] = []

    def __bool__(self) -> bool:
        return bool(self._draining)

    def add(self, relay: StdioRelay) -> None:
        """Close the relay now, or when its last client has read everything or timed out."""
        if relay.finish():
            relay.close()
        else:
            self._draining.append((time.monotonic() + DRAIN_TIMEOUT, relay))

    def timeout(self) -> float | None:
        """Return the seconds until the next deadline, or None if nothing is draining."""
        if not self._draining:
            return None
        return max(0.0, min(due for due, _ in self._draining) - time.monotonic())

    def close_finished(self) -> None:
        """Close the relays whose clients are gone or timed out."""
        now = time.monotonic()
        for entry in list(self._draining):
            if not entry[1].clients or entry[0] <= now:
                self._draining.remove(entry)
                entry[1].close()
