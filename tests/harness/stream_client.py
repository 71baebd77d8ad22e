"""Clients of the streaming server of CRI: SPDY as client-go speaks it, and WebSockets.

They share no code with the server, except the dictionary of header compression.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from jaula.features.kubernetes.cri.streaming.spdy import DICTIONARY

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = (
    *range(1, 5),
    *range(6, 10),
)
FIN = 1


class Answer(NamedTuple):
    """The head of an answer and, of an error, its body."""

    status: int
    headers: dict[str, str]
    body: str


async def request(
    url: str,
    headers: Iterable[tuple[str, str]],
    *,
    method: str = "POST",
    context: ssl.SSLContext | None = None,
    early: bytes = b"",
    sock: socket.socket | None = None,
) -> tuple[Answer, asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect and send a request, with ``early`` bytes after it. Return what was answered.

    ``sock``: a connected socket, for a server in another network namespace.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    if sock is None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context)
    else:
        name = parts.hostname if context else None
        reader, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=name)
    target = parts._replace(scheme="", netloc="").geturl()
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers]
    writer.write("\r\n".join([*lines, "", ""]).encode() + early)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    pairs = (line.partition(": ")[::2] for line in head[1:] if line)
    fields = {name.lower(): value for name, value in pairs}
    size = int(fields.get("content-length", 0))
    body = (await reader.readexactly(size)).decode()
    return Answer(int(head[0].split()[1]), fields, body), reader, writer


def spdy_headers(*protocols: str) -> list[tuple[str, str]]:
    upgrade = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")]
    return upgrade + [("X-Stream-Protocol-Version", protocol) for protocol in protocols]


def websocket_headers(*protocols: str) -> list[tuple[str, str]]:
    headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    return headers + [("Sec-WebSocket-Protocol", protocol) for protocol in protocols]


# -- SPDY --------------------------------------------------------------------------------------


def control(kind: int, body: bytes, flags: int = 0, *, version: int = 3) -> bytes:
    return struct.pack(">HHI", 0x8000 | version, kind, flags << 24 | len(body)) + body


def data(stream_id: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">II", stream_id, flags << 24 | len(payload)) + payload


def block(headers: Iterable[tuple[str, str]]) -> bytes:
    """Return a header block before compression."""
    pairs = list(headers)
    texts = [text.encode() for pair in pairs for text in pair]
    return struct.pack(">I", len(pairs)) + b"".join(
        struct.pack(">I", len(text)) + text for text in texts
    )


class Deflater:
    """The compression of the header blocks of one client."""

    def __init__(self) -> None:
        self._deflater = zlib.compressobj(9, zdict=DICTIONARY)

    def compress(self, raw: bytes) -> bytes:
        return self._deflater.compress(raw) + self._deflater.flush(zlib.Z_SYNC_FLUSH)

    def syn_stream(self, stream_id: int, flags: int = 0, **headers: str) -> bytes:
        compressed = self.compress(block(headers.items()))
        return control(SYN_STREAM, struct.pack(">IIBB", stream_id, 0, 0, 0) + compressed, flags)


class SpdyClient:
    """A SPDY connection. It collects what the server sends, by stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.deflater = Deflater()
        self._inflater = zlib.decompressobj(zdict=DICTIONARY)
        self._next_id = 1
        self.received: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.pings: list[int] = []
        self.goaway: int | None = None

    @classmethod
    async def connect(
        cls,
        url: str,
        protocol: str,
        context: ssl.SSLContext | None = None,
        sock: socket.socket | None = None,
    ) -> SpdyClient:
        answer, reader, writer = await request(
            url, spdy_headers(protocol), context=context, sock=sock
        )
        assert answer.status == 101, answer
        assert answer.headers["upgrade"] == "SPDY/3.1"
        assert answer.headers["x-stream-protocol-version"] == protocol
        return cls(reader, writer)

    def queue_open(self, **headers: str) -> int:
        """Ask for a stream and return its id, without waiting for the answer."""
        stream_id, self._next_id = self._next_id, self._next_id + 2
        self.writer.write(self.deflater.syn_stream(stream_id, **headers))
        return stream_id

    async def open(self, **headers: str) -> int:
        """Open a stream and return its id; 0 if the server refuses it."""
        stream_id = self.queue_open(**headers)
        while stream_id not in self.received and stream_id not in self.resets:
            assert await self.frame(), "the server closed"
        return stream_id if stream_id in self.received else 0

    async def open_all(self, *types: str) -> dict[str, int]:
        return {kind: await self.open(streamtype=kind) for kind in types}

    async def send(self, stream_id: int, payload: bytes, *, fin: bool = False) -> None:
        for start in range(0, len(payload), 32768):
            self.writer.write(data(stream_id, payload[start : start + 32768]))
            await self.writer.drain()
        if fin:
            self.writer.write(data(stream_id, b"", FIN))

    def reset(self, stream_id: int) -> None:
        """Reset a stream, as client-go does when its connection is closed."""
        cancel = 5
        self.writer.write(control(RST_STREAM, struct.pack(">II", stream_id, cancel)))

    async def frame(self) -> bool:
        """Process one frame; return False at the end of the connection."""
        try:
            word, rest = struct.unpack(">II", await self.reader.readexactly(8))
            body = await self.reader.readexactly(rest & 0xFFFFFF)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return False
        if not word >> 31:
            assert word not in self.ended
            self.received[word] += body
            if rest >> 24 & FIN:
                self.ended.add(word)
            return True
        assert word >> 16 == 0x8003
        (number,) = struct.unpack_from(">I", body)
        match word & 0xFFFF:
            case 2:
                assert self._inflater.decompress(body[4:]) == b"\0\0\0\0"
                self.received[number] = bytearray()
            case 3:
                self.resets[number] = struct.unpack(">I", body[4:])[0]
                self.ended.add(number)
            case 6:
                self.pings.append(number)
            case 7:
                self.goaway = struct.unpack(">I", body[4:])[0]
            case other:
                raise AssertionError(f"frame {other}")
        return True

    async def until_ended(self, *stream_ids: int) -> None:
        while not self.ended.issuperset(stream_ids):
            assert await self.frame(), "the server closed"

    async def until_closed(self) -> None:
        """Read to the end of the connection and close it, as client-go does after its command."""
        while self.goaway is None and await self.frame():
            pass
        self.close()

    def close(self) -> None:
        self.writer.close()


# -- WebSockets --------------------------------------------------------------------------------


def message(payload: bytes, opcode: int = 2, *, fin: bool = True) -> bytes:
    """Return a masked frame."""
    mask = os.urandom(4)
    size = len(payload)
    length = (
        bytes((0x80 | size,))
        if size < 126
        else struct.pack(">BH", 0xFE, size)
        if size < 1 << 16
        else struct.pack(">BQ", 0xFF, size)
    )
    repeated = (mask * (size // 4 + 1))[:size]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return bytes((0x80 * fin | opcode,)) + length + mask + number.to_bytes(size, "big")


class WebSocketClient:
    """A WebSocket connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.close_code: int | None = None

    @classmethod
    async def connect(
        cls,
        url: str,
        protocol: str = "",
        context: ssl.SSLContext | None = None,
        sock: socket.socket | None = None,
    ) -> WebSocketClient:
        offers = [protocol] if protocol else []
        answer, reader, writer = await request(
            url, websocket_headers(*offers), method="GET", context=context, sock=sock
        )
        assert answer.status == 101, answer
        assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert answer.headers.get("sec-websocket-protocol", "") == protocol
        return cls(reader, writer)

    def send(self, payload: bytes, opcode: int = 2, *, fin: bool = True) -> None:
        self.writer.write(message(payload, opcode, fin=fin))

    async def receive(self) -> tuple[int, bytes] | None:
        """Return the opcode and payload of the next frame, None after the close frame."""
        try:
            first, size = await self.reader.readexactly(2)
            if size > 125:
                width = 2 if size == 126 else 8
                size = int.from_bytes(await self.reader.readexactly(width), "big")
            payload = await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None
        if first & 15 == 8:
            self.close_code = int.from_bytes(payload[:2], "big")
            self.send(payload, 8)
            self.close()
            return None
        return first & 15, payload

    async def messages(self) -> list[bytes]:
        """Return the payloads of all frames up to the end."""
        result = []
        while (frame := await self.receive()) is not None:
            result.append(frame[1])
        return result

    def close(self) -> None:
        self.writer.close()


class Tunnel:
    """The reader and writer of a protocol inside of the messages of a WebSocket."""

    def __init__(self, client: WebSocketClient) -> None:
        self._client = client
        self._received = b""

    def write(self, payload: bytes) -> None:
        self._client.send(payload)

    async def drain(self) -> None:
        await self._client.writer.drain()

    def close(self) -> None:
        self._client.send(b"\x03\xe8", 8)
        self._client.close()

    async def readexactly(self, size: int) -> bytes:
        while len(self._received) < size:
            frame = await self._client.receive()
            if frame is None:
                raise asyncio.IncompleteReadError(self._received, size)
            self._received += frame[1]
        result, self._received = self._received[:size], self._received[size:]
        return result
