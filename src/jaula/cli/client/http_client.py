"""A small HTTP/1.1 client for one host: keep-alive, chunked bodies, hijacked connections.

Follows RFC 9112 as far as the engine needs it: responses delimited by ``Content-Length``, by chunks
or by the end of the connection. The module ``socket`` costs 4 ms to import (``enum``,
``selectors``), so ``_socket`` below it is used.
"""

from __future__ import annotations

import _socket

from jaula.cli.cli_errors import Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jaula.cli.client.client_tls import TlsOptions

MSG_NOSIGNAL = 0x4000
MSG_PEEK, MSG_DONTWAIT = 0x2, 0x40
POLLIN, POLLOUT = 0x1, 0x4
FIRST_ANSWER = 5000  # milliseconds to wait for an answer before the engine is asked for a ping
READ = 65536  # bytes of one recv
MAX_HEAD = 65536  # bytes of one header line


class Response:
    """Status and headers of one answer. The body is read from the connection on demand."""

    def __init__(self, connection: Connection, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self._connection = connection

    def close(self) -> None:
        """Close the connection, also before the end of the body."""
        self._connection.close()

    def chunks(self) -> Iterator[bytes]:
        """Yield the body in pieces as it arrives.

        :raises Unreachable: when the connection ends early.
        """
        connection = self._connection
        if self.status in (204, 304):
            return
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunked()
        elif "content-length" in self.headers:
            left = int(self.headers["content-length"])
            while left:
                chunk = connection.take(left)
                left -= len(chunk)
                yield chunk
        else:
            connection.reusable = False
            while chunk := connection.take(READ, may_end=True):
                yield chunk

    def _chunked(self) -> Iterator[bytes]:
        connection = self._connection
        while True:
            size = connection.line().partition(b";")[0]
            try:
                left = int(size, 16)
            except ValueError:
                raise Unreachable(f"the engine sent a bad chunk size: {size[:40]!r}") from None
            if left == 0:
                break
            while left:
                chunk = connection.take(left)
                left -= len(chunk)
                yield chunk
            connection.line()
        while connection.line():
            pass

    def read(self) -> bytes:
        """Return the whole body."""
        return b"".join(self.chunks())


class Connection:
    """One connection to the engine. Requests may be pipelined."""

    def __init__(self, address: SocketAddress) -> None:
        self.address = address
        self.socket = address.connect()
        self.reusable = True
        self._buffer = b""
        self._head: Response | None = None
        self._answered = not address.is_unix  # a systemd socket may have no engine behind it

    def fileno(self) -> int:
        return self.socket.fileno()

    def is_open(self) -> bool:
        """Return whether an idle connection is still open, as far as a unix socket tells."""
        if not self.address.is_unix:
            return True
        try:
            return bool(self._buffer or self.socket.recv(1, MSG_PEEK | MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        self.socket.close()

    def send(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Send one request.

        :raises Unreachable: when the connection is broken.
        """
        lines = [f"{method} {target} HTTP/1.1", "Host: " + self.address.host]
        lines += [f"{name}: {value}" for name, value in headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        elif method == "POST" and not any(name == "Transfer-Encoding" for name, _ in headers):
            lines.append("Content-Length: 0")
        head = "\r\n".join([*lines, "\r\n"]).encode("utf-8", "surrogateescape")
        self.send_raw(head + (body or b""))

    def send_raw(self, data: bytes) -> None:
        """Send ``data`` unchanged.

        :raises Unreachable: when the connection is broken.
        """
        try:
            if self._answered:
                self.socket.sendall(data, MSG_NOSIGNAL)
            else:
                self._send_first(data)
        except OSError as error:
            raise Unreachable(f"connection to the engine broke: {error.strerror}") from None

    def _send_first(self, data: bytes) -> None:
        """Send to an engine that may not run.

        :raises Unreachable: when it cannot start.
        """
        view = memoryview(data)
        while view:
            try:
                view = view[self.socket.send(view, MSG_NOSIGNAL | MSG_DONTWAIT) :]
            except BlockingIOError:
                self._wait(POLLOUT)

    def _wait(self, events: int) -> None:
        """Wait for events of poll(2) as long as the engine is alive.

        :raises Unreachable: when it cannot start.
        """
        from select import poll

        waiting = poll()
        waiting.register(self.fileno(), events)
        if not waiting.poll(FIRST_ANSWER):
            from jaula.cli.client import engine_liveness

            engine_liveness.wait(self.fileno(), events, self.address.text, self.address.connect)

    def response(self) -> Response:
        """Read the head of the next answer.

        :raises Unreachable: when the engine closed the connection or does not speak HTTP.
        """
        while True:
            parts = self.line().split(b" ", 2)
            if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
                raise Unreachable("the engine's answer is not HTTP")
            status = int(parts[1])
            headers: dict[str, str] = {}
            while line := self.line():
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.strip().lower()] = value.strip()
            if status >= 200 or status == 101:
                break
        if headers.get("connection", "").lower() == "close":
            self.reusable = False
        return Response(self, status, headers)

    def response_head(self) -> Response:
        """Read the head of the next answer and keep it for ``response_body``."""
        self._head = self.response()
        return self._head

    def response_body(self) -> bytes:
        """Return the body of the answer whose head ``response_head`` read."""
        if self._head is None:
            raise Unreachable("no response head was read")
        head, self._head = self._head, None
        return head.read()

    def line(self) -> bytes:
        """Return one line without its line end.

        :raises Unreachable: when the connection ends or the line is too long.
        """
        while b"\n" not in self._buffer:
            if len(self._buffer) > MAX_HEAD:
                raise Unreachable("the engine sent a header line that is too long")
            self._fill()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def take(self, limit: int, *, may_end: bool = False) -> bytes:
        """Return between 1 and ``limit`` bytes.

        At the end of the connection, return no bytes if ``may_end`` is set.

        :raises Unreachable: when the connection ends and ``may_end`` is not set.
        """
        if not self._buffer:
            try:
                data = self._receive()
            except Unreachable:
                if may_end:
                    return b""
                raise
            if not data:
                if may_end:
                    return b""
                raise Unreachable("the engine closed the connection in the middle of an answer")
            self._buffer = data
        chunk, self._buffer = self._buffer[:limit], self._buffer[limit:]
        return chunk

    def leftover(self) -> bytes:
        """Return the bytes that arrived after the head of a hijacked connection."""
        data, self._buffer = self._buffer, b""
        return data

    def _fill(self) -> None:
        data = self._receive()
        if not data:
            self.reusable = False
            raise Unreachable("the engine closed the connection")
        self._buffer += data

    def _receive(self) -> bytes:
        try:
            if not self._answered:
                self._wait(POLLIN)
                self._answered = True
            return self.socket.recv(READ)
        except OSError as error:
            raise Unreachable(f"connection to the engine broke: {error.strerror}") from None


class SocketAddress:
    """The address of an engine: ``unix:///path``, ``tcp://host:port`` or ``ssh://user@host``."""

    def __init__(self, text: str, security: TlsOptions | None = None) -> None:
        self.text = text
        self.security = security
        scheme, separator, rest = text.partition("://")
        if not separator:
            scheme, rest = ("unix", text) if text.startswith("/") else ("tcp", text)
        if scheme not in ("unix", "tcp", "ssh") or not rest:
            raise Unreachable(
                f"invalid host {text!r}: must be unix:///path, tcp://host:port or ssh://user@host"
            )
        self.is_unix = scheme == "unix"
        self.is_ssh = scheme == "ssh"
        self.path = rest
        self.host = rest.rstrip("/") if scheme == "tcp" else "jaula"

    def connect(self) -> _socket.socket:
        """Return a connected socket.

        :raises OSError: when the address does not answer.
        """
        if self.is_unix:
            connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
            try:
                connection.connect(self.path)
            except BaseException:
                connection.close()
                raise
            return connection
        if self.is_ssh:
            from jaula.cli.client import ssh

            return ssh.connect(self.path)
        host, _, port = self.host.rpartition(":")
        if not port.isdigit():
            host, port = self.host, "2376" if self.security else "2375"
        name = host.strip("[]") or "localhost"
        connection = _connected(name, int(port))
        if self.security is None:
            return connection
        from jaula.cli.client import client_tls

        return client_tls.connect(connection, name, self.security)


def _connected(name: str, port: int) -> _socket.socket:
    """Connect by TCP to the first address of ``name`` that answers.

    :raises OSError: when no address answers.
    """
    refused = OSError(f"{name} has no address")
    for family, kind, protocol, _, target in _socket.getaddrinfo(
        name, port, 0, _socket.SOCK_STREAM
    ):
        connection = _socket.socket(family, kind, protocol)
        try:
            connection.connect(target)
        except OSError as error:
            connection.close()
            refused = error
        else:
            return connection
    raise refused
