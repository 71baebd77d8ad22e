"""One connection to a registry: HTTP/1.1 by the standard library, with clocks that hold.

``http.client`` waits for each piece anew, so a peer that sends a byte a minute would be waited for
without end. Here every read of the socket asks a clock: how long the whole answer may still take,
how long silence may last, and how many bytes have to come in a window of time.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
from time import monotonic

from jaula.errors import Unavailable
from jaula.images.registry.http.proxy import Proxy
from jaula.images.registry.http.url import Url
from jaula.images.registry.timeouts import Timeouts


class Deadline:
    """The limits of what is being read at present."""

    def __init__(self, patience: Timeouts) -> None:
        self._patience = patience
        self.stall = patience.stall
        self._deadline: float | None = None
        self._window_ends = 0.0
        self._got = 0

    def document(self, *, committing: bool = False) -> None:
        """From now on a whole answer has ``patience.document`` seconds, or ``commit``."""
        seconds = self._patience.commit if committing else self._patience.document
        self.stall = seconds if committing else self._patience.stall
        self._deadline = monotonic() + seconds

    def stream(self) -> None:
        """From now on only the speed counts."""
        self._deadline = None
        self._window_ends = monotonic() + self._patience.window
        self._got = 0

    def left(self) -> float:
        """Seconds to wait for the next bytes. Raises TimeoutError where there are none left."""
        now = monotonic()
        if self._deadline is not None:
            if now >= self._deadline:
                raise TimeoutError("the answer takes too long")
            return min(self._deadline - now, self.stall)
        if now >= self._window_ends:
            if self._got < self._patience.least:
                raise TimeoutError("the answer comes too slowly")
            self._window_ends, self._got = now + self._patience.window, 0
        return min(self._window_ends - now + 0.01, self.stall)

    def count(self, size: int) -> None:
        self._got += size


class _Reader(io.RawIOBase):
    def __init__(self, held: socket.socket, clock: Deadline) -> None:
        self._held = held
        self._clock = clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            left = self._clock.left()
            self._held.settimeout(left)
            try:
                size = self._held.recv_into(buffer)
            except TimeoutError:
                if left >= self._clock.stall:
                    raise
                self._clock.left()  # raises where the time is over, else a new window began
                continue
            self._clock.count(size)
            return size


class _Socket:
    """What ``http.client`` uses of a socket. It closes too early: an answer is still read then."""

    def __init__(self, held: socket.socket, clock: Deadline, stall: float) -> None:
        self.held = held
        self._clock = clock
        self._stall = stall

    def sendall(self, data: bytes) -> None:
        self.held.settimeout(self._stall)
        self.held.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self.held, self._clock), 1 << 16)

    def close(self) -> None:
        """Nothing; see :meth:`Connection.end`."""


class Connection(http.client.HTTPConnection):
    """To one host, through a proxy or not."""

    def __init__(
        self, url: Url, proxy: Proxy | None, tls: ssl.SSLContext | None, patience: Timeouts
    ) -> None:
        super().__init__(url.host, url.port)
        self._url = url
        self._proxy = proxy
        self._tls = tls
        self._patience = patience
        self.clock = Deadline(patience)
        self.idle_since = 0.0
        self.held: socket.socket | None = None

    def end(self) -> None:
        """Close the socket; again is harmless."""
        self.close()
        if self.held is not None:
            self.held.close()

    def connect(self) -> None:
        """Reach the host. Raises OSError, :class:`Unavailable` where a proxy refuses."""
        via = (self._proxy.host, self._proxy.port) if self._proxy else (self.host, self.port)
        held = socket.create_connection(via, self._patience.connect)
        try:
            held.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                if self._proxy is not None:
                    self._open_tunnel(held, self._proxy)
                held.settimeout(self._patience.connect)
                held = self._tls.wrap_socket(held, server_hostname=self.host)
        except BaseException:
            held.close()
            raise
        self.held = held
        self.sock = _Socket(held, self.clock, self._patience.stall)

    def _open_tunnel(self, held: socket.socket, proxy: Proxy) -> None:
        """RFC 9110 section 9.3.6; the host speaks only after we did, so nothing is read early."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"CONNECT {name}:{self.port} HTTP/1.1", f"Host: {name}:{self.port}"]
        if proxy.authorization:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        held.sendall("\r\n".join([*lines, "\r\n"]).encode("latin-1"))
        clock = Deadline(self._patience)
        clock.document()
        answer = http.client.HTTPResponse(
            _Socket(held, clock, self._patience.stall),  # type: ignore[arg-type]
            method="CONNECT",
        )
        answer.begin()
        if answer.status != 200:
            raise Unavailable(
                f"the proxy {proxy.host}:{proxy.port} refused: {answer.status} {answer.reason}"
            )

    def target(self) -> str:
        """The request target: the whole URL for a proxy that reads along."""
        if self._proxy is not None and self._tls is None:
            return f"http://{self._url.authority}"
        return ""

    def proxy_headers(self) -> dict[str, str]:
        if self._proxy is None or self._tls is not None or not self._proxy.authorization:
            return {}
        return {"Proxy-Authorization": self._proxy.authorization}
