"""Clients that keep connections open, and check each answer: load for a server that moves.

    load_client.py counter|redis|http ADDRESS PORT CONNECTIONS

Prints ``ready`` when each connection had an answer. At the end of its input it prints a JSON
document: answers of all connections, the longest time between two answers of one of them in
milliseconds, and the failures.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable

TIMEOUT = 60.0  # seconds
PAUSE = 0.002  # seconds between two requests of a connection


class Connection:
    """One connection; ``request`` sends one request, and checks its answer against the last one."""

    def __init__(self, address: str, port: int, number: int) -> None:
        self.server = address, port
        self.number = number
        self.open()
        self.last = 0

    def open(self) -> None:
        self.sock = socket.create_connection(self.server, 10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(TIMEOUT)
        self.file = self.sock.makefile("rb")

    def line(self) -> bytes:
        text = self.file.readline()
        if not text:
            raise ConnectionError("the server has closed the connection")
        return text

    def counter(self) -> None:
        """The counter is common to all connections: it only grows."""
        self.sock.sendall(b"INCR\n")
        self._check(int(self.line()), exact=False)

    def redis(self) -> None:
        """Each connection has a key of its own."""
        self.sock.sendall(f"INCR key{self.number}\r\n".encode())
        answer = self.line()
        if not answer.startswith(b":"):
            raise ValueError(f"the server answered {answer!r}")
        self._check(int(answer[1:]), exact=True)

    def http(self) -> None:
        """Pages of one connection, which is kept until the server announces its end."""
        page = (self.last + 1) % 8
        self.sock.sendall(f"GET /{page}.html HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        status = self.line()
        size, close = 0, False
        while (header := self.line()) != b"\r\n":
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
            close = close or (name.lower() == b"connection" and value.strip() == b"close")
        body = self.file.read(size)
        if b" 200 " not in status or body != f"served {page}\n".encode():
            raise ValueError(f"page {page}: {status!r} {body!r}")
        self.last += 1
        if close:  # nginx does so after 1000 requests
            self.open()

    def _check(self, number: int, *, exact: bool) -> None:
        if number <= self.last or (exact and self.last and number != self.last + 1):
            raise ValueError(f"{number} after {self.last}")
        self.last = number


def main(protocol: str, address: str, port: int, connections: int) -> None:
    answers, worst, failures = [0] * connections, [0.0] * connections, list[str]()
    stop, ready = threading.Event(), threading.Barrier(connections + 1)

    def run(number: int) -> None:
        connection = Connection(address, port, number)
        request: Callable[[], None] = getattr(connection, protocol)
        request()
        answers[number] = 1
        ready.wait()
        before = time.monotonic()
        try:
            while not stop.wait(PAUSE):
                request()
                now = time.monotonic()
                answers[number] += 1
                worst[number], before = max(worst[number], now - before), now
        except (OSError, ValueError) as error:
            failures.append(f"{type(error).__name__}: {error}")

    threads = [
        threading.Thread(target=run, args=(each,), daemon=True) for each in range(connections)
    ]
    for thread in threads:
        thread.start()
    ready.wait(30)
    print("ready", flush=True)
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    result = {"answers": sum(answers), "worst": max(worst) * 1000, "failures": failures}
    print(json.dumps(result))


main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
