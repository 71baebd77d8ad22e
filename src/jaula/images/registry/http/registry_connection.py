"""One connection to a registry: HTTP/1.1 by the standard library, with total timeouts.

``http.client`` restarts its timeout with each read, so a peer that sends one byte per minute would
never time out. Here every read of the socket has three limits: the time left for the whole
response, the time without data, and the number of bytes per window of time.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
from time import monotonic

from jaula.errors import Unavailable
from jaula.images.registry.http.proxy_choice import Proxy
from jaula.images.registry.http.url import Url
from jaula.images.registry.timeouts import Timeouts


class Deadline:
    """The time limits of the current read."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self.stall = timeouts.stall
        self._ends: float | None = None
        self._window_ends = 0.0
        self._received = 0

    def document(self, *, committing: bool = False) -> None:
        """Limit the rest of the response to the timeout of a document, or of a commit."""
        seconds = self._timeouts.commit if committing else self._timeouts.document
        self.stall = seconds if committing else self._timeouts.stall
        self._ends = monotonic() + seconds

    def stream(self) -> None:
        """Limit only the speed from now on."""
        self._ends = None
        self._window_ends = monotonic() + self._timeouts.window
        self._received = 0

    def left(self) -> float:
        """Return the seconds to wait for the next bytes.

        :raises TimeoutError: if a limit is exceeded.
        """
        now = monotonic()
        if self._ends is not None:
            if now >= self._ends:
                raise TimeoutError("the response takes too long")
            return min(self._ends - now, self.stall)
        if now >= self._window_ends:
            if self._received < self._timeouts.least:
                raise TimeoutError("the response is too slow")
            self._window_ends, self._received = now + self._timeouts.window, 0
        return min(self._window_ends - now + 0.01, self.stall)

    def count(self, size: int) -> None:
        self._received += size


class _Reader(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._socket = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            left = self._deadline.left()
            self._socket.settimeout(left)
            try:
                size = self._socket.recv_into(buffer)
            except TimeoutError:
                if left >= self._deadline.stall:
                    raise
                self._deadline.left()  # raises if the limit is exceeded, else starts a new window
                continue
            self._deadline.count(size)
            return size


class _Socket:
    """The methods of a socket that ``http.client`` calls.

    ``http.client`` closes the socket while the response is still being read, so ``close`` does
    nothing.
    """

    def __init__(self, raw_socket: socket.socket, deadline: Deadline, stall: float) -> None:
        self.raw_socket = raw_socket
        self._deadline = deadline
        self._stall = stall

    def sendall(self, data: bytes) -> None:
        self.raw_socket.settimeout(self._stall)
        self.raw_socket.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self.raw_socket, self._deadline), 1 << 16)

    def close(self) -> None:
        """Do nothing; see :meth:`Connection.end`."""


class Connection(http.client.HTTPConnection):
    """A connection to one host, direct or through a proxy."""

    def __init__(
        self, url: Url, proxy: Proxy | None, tls: ssl.SSLContext | None, timeouts: Timeouts
    ) -> None:
        super().__init__(url.host, url.port)
        self._url = url
        self._proxy = proxy
        self._tls = tls
        self._timeouts = timeouts
        self.deadline = Deadline(timeouts)
        self.idle_since = 0.0
        self.raw_socket: socket.socket | None = None

    def end(self) -> None:
        """Close the socket. Idempotent."""
        self.close()
        if self.raw_socket is not None:
            self.raw_socket.close()

    def connect(self) -> None:
        """Connect to the host.

        :raises OSError: if the host is not reachable.
        :raises Unavailable: if the proxy refuses.
        """
        via = (self._proxy.host, self._proxy.port) if self._proxy else (self.host, self.port)
        raw_socket = socket.create_connection(via, self._timeouts.connect)
        try:
            raw_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                if self._proxy is not None:
                    self._open_tunnel(raw_socket, self._proxy)
                raw_socket.settimeout(self._timeouts.connect)
                raw_socket = self._tls.wrap_socket(raw_socket, server_hostname=self.host)
        except BaseException:
            raw_socket.close()
            raise
        self.raw_socket = raw_socket
        self.sock = _Socket(raw_socket, self.deadline, self._timeouts.stall)

    def _open_tunnel(self, raw_socket: socket.socket, proxy: Proxy) -> None:
        """Open a tunnel (RFC 9110 section 9.3.6).

        The host speaks only after the client, so no byte of it is read early here.
        """
        name = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"CONNECT {name}:{self.port} HTTP/1.1", f"Host: {name}:{self.port}"]
        if proxy.authorization:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        raw_socket.sendall("\r\n".join([*lines, "\r\n"]).encode("latin-1"))
        deadline = Deadline(self._timeouts)
        deadline.document()
        response = http.client.HTTPResponse(
            _Socket(raw_socket, deadline, self._timeouts.stall),  # type: ignore[arg-type]
            method="CONNECT",
        )
        response.begin()
        if response.status != 200:
            raise Unavailable(
                f"the proxy {proxy.host}:{proxy.port} refused: {response.status} {response.reason}"
            )

    def target(self) -> str:
        """Return the prefix of the request target: a proxy for plain HTTP gets the whole URL."""
        if self._proxy is not None and self._tls is None:
            return f"http://{self._url.authority}"
        return ""

    def proxy_headers(self) -> dict[str, str]:
        if self._proxy is None or self._tls is not None or not self._proxy.authorization:
            return {}
        return {"Proxy-Authorization": self._proxy.authorization}
