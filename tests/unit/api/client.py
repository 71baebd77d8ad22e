"""A raw HTTP client on a unix socket, and a server with an engine in memory behind it."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jaula.api.http.api_server import Server
from unit.api.memory_engine import Access, MemoryEngine


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.json()["message"])


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: docker"]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))

    async def head(self) -> Answer:
        line = await self.reader.readline()
        if not line:
            raise ConnectionResetError("the server closed")
        status = int(line.split()[1])
        headers = {}
        while (line := await self.reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            headers[name.strip().lower()] = value.strip()
        return Answer(status, headers)

    async def chunk(self) -> bytes:
        """One chunk; empty at the end."""
        size = int(await self.reader.readline(), 16)
        data = await self.reader.readexactly(size + 2)
        return data[:-2]

    async def answer(self, method: str = "GET") -> Answer:
        answer = await self.head()
        if answer.headers.get("transfer-encoding") == "chunked":
            chunks = []
            while chunk := await self.chunk():
                chunks.append(chunk)
            answer.body = b"".join(chunks)
        elif method != "HEAD":
            length = int(answer.headers.get("content-length", "0"))
            answer.body = await self.reader.readexactly(length)
        return answer

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            headers = {"Content-Type": "application/json"} | (headers or {})
        self.send(method, path, body, headers)
        return await self.answer(method)

    async def until_closed(self) -> bytes:
        return await self.reader.read()

    def half_close(self) -> None:
        self.writer.write_eof()

    def close(self) -> None:
        self.writer.close()


class Served(AbstractAsyncContextManager["Served"]):
    """A server on a socket of its own."""

    def __init__(self, max_connections: int = 64, root_connections: int = 0) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="jlt")
        self.path = Path(self._directory.name) / "sock"
        self._limits = {"max_connections": max_connections, "root_connections": root_connections}
        self.access = Access()  # of the connections that follow
        self._clients: list[Client] = []
        self.engine: MemoryEngine
        self.server: Server

    async def __aenter__(self) -> Served:
        self.engine = MemoryEngine()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(self.path))
        sock.setblocking(False)
        self.server = Server(self._enter, **self._limits)
        await self.server.listen(sock)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for client in self._clients:
            client.close()
        await self.server.close()
        self._directory.cleanup()

    def _enter(self, peer: object) -> Any:
        return SimpleNamespace(
            **vars(self.engine)
            | {
                "access": self.access,
                "sync": self.engine.sync,
                "act_for": self.engine.act_for,
                "service": self.engine.service,
            }
        )

    async def client(self) -> Client:
        client = Client(*await asyncio.open_unix_connection(str(self.path), limit=1 << 22))
        self._clients.append(client)
        return client


def served(test: Callable[[Served], Awaitable[None]], **options: int) -> None:
    """Run a test against a server; nothing of it may last longer than ten seconds."""

    async def run() -> None:
        async with asyncio.timeout(10), Served(**options) as server:
            await test(server)

    asyncio.run(run())


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until it holds (the time-out of the test bounds it)."""
    while not condition():  # noqa: ASYNC110 - what is waited for knows no event
        await asyncio.sleep(0.005)
