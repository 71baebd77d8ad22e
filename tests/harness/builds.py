"""Builds through the API: a context as a dictionary, the messages, a client's session."""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from harness.engine import PrivateEngine, UnixConnection
from jaula.features.build import session_protocol
from jaula.features.build.session_protocol import SessionRequestKind

Files = Mapping[str, str | bytes | tarfile.TarInfo]


@dataclass(frozen=True)
class Built:
    """The result of a build; ``image`` is '' if absent."""

    status: int
    messages: list[dict[str, Any]]

    @property
    def text(self) -> str:
        return "".join(m.get("stream", "") for m in self.messages)

    @property
    def image(self) -> str:
        result = [m["aux"]["ID"] for m in self.messages if "aux" in m]
        return str(result[-1]) if result else ""

    @property
    def error(self) -> str:
        result = [m.get("error") or m.get("message") or "" for m in self.messages]
        return str(next((text for text in result if text), ""))

    @property
    def cached(self) -> int:
        return self.text.count("Using cache")


def context(files: Files, *, mtime: int = 1_700_000_000) -> bytes:
    """Return a tar of the files; a TarInfo is used unchanged under its name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), mtime
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def query(**parameters: Any) -> str:
    """Return parameters as a client sends them: documents as JSON."""
    plain = {
        name: json.dumps(value) if isinstance(value, dict | list) else str(value)
        for name, value in parameters.items()
    }
    return urlencode(plain)


def build(
    engine: PrivateEngine, files: Files | bytes, *, timeout: float = 120.0, **parameters: Any
) -> Built:
    """Build; ``files`` contain the Dockerfile."""
    body = files if isinstance(files, bytes) else context(files)
    reply = engine.request(
        "POST",
        f"/build?{query(**parameters)}",
        body,
        timeout=timeout,
        headers={"Content-Type": "application/x-tar"},
    )
    lines = reply.body.decode().split("\n")
    return Built(reply.status, [json.loads(line) for line in lines if line])


def done(engine: PrivateEngine, files: Files, **parameters: Any) -> Built:
    """Build and assert success."""
    built = build(engine, files, **parameters)
    assert built.status == 200 and not built.error and built.image, built
    return built


def nothing_left(engine: PrivateEngine) -> bool:
    """Return whether every build directory is removed, shortly after the last message."""
    work = engine.root / "lib" / "build" / "work"
    deadline = time.monotonic() + 10
    while any(work.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(work.iterdir())


def output(engine: PrivateEngine, image: str, *words: str) -> str:
    """Return the output of a command in a container of an image."""
    made = engine.cli("jaula", "run", "--rm", image, *words)
    assert made.returncode == 0, made.stderr
    return made.stdout


def files_of(engine: PrivateEngine, image: str) -> dict[str, bytes]:
    """Return the regular files of an image by path, as an export contains them."""
    created = engine.request("POST", "/containers/create", {"Image": image, "Cmd": ["x"]}).json()
    try:
        data = engine.request("GET", f"/containers/{created['Id']}/export").body
    finally:
        engine.request("DELETE", f"/containers/{created['Id']}")
    result = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isreg() else None
            if file is not None:
                result["/" + member.name] = file.read()
    return result


@contextlib.contextmanager
def running(engine: PrivateEngine, files: Files, **parameters: Any) -> Iterator[socket.socket]:
    """Yield a running build; closing the socket disconnects the client."""
    connection = UnixConnection(str(engine.socket))
    body = context(files)
    connection.request("POST", f"/build?{query(**parameters)}", body, {"Content-Type": "x"})
    sock = connection.sock
    try:
        yield sock
    finally:
        connection.close()


@dataclass
class Session:
    """The client's side of a build session, in a thread."""

    engine: PrivateEngine
    secrets: dict[str, bytes] = field(default_factory=dict)
    contexts: dict[str, bytes] = field(default_factory=dict)  # tars
    agent: Callable[[bytes], bytes] | None = None  # answers what a connection sends
    asked: list[tuple[str, str]] = field(default_factory=list)
    id: str = field(default_factory=lambda: secrets.token_hex(16))

    def __enter__(self) -> Session:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.connect(str(self.engine.socket))
        self._sock.sendall(
            f"POST /build/session?session={self.id} HTTP/1.1\r\nHost: x\r\n"
            f"Connection: Upgrade\r\nUpgrade: {session_protocol.PROTOCOL}\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self._sock.recv(4096)
            assert piece, head
            head += piece
        assert head.startswith(b"HTTP/1.1 101"), head
        self._pending = head.partition(b"\r\n\r\n")[2]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join(10)

    def _read(self, size: int) -> bytes:
        while len(self._pending) < size:
            piece = self._sock.recv(65536)
            if not piece:
                raise EOFError
            self._pending += piece
        data, self._pending = self._pending[:size], self._pending[size:]
        return data

    def _serve(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                kind, stream, length = session_protocol.decode_header(
                    self._read(session_protocol.HEADER_SIZE)
                )
                self._answer(kind, stream, self._read(length))

    def _answer(self, kind: SessionRequestKind, stream: int, payload: bytes) -> None:
        if kind is SessionRequestKind.DATA and self.agent is not None:
            self._say(SessionRequestKind.DATA, stream, self.agent(payload))
        if kind not in (
            SessionRequestKind.SECRET,
            SessionRequestKind.CONTEXT,
            SessionRequestKind.SSH,
        ):
            return
        id = session_protocol.decode_request(payload)
        self.asked.append((kind.name.lower(), id))
        if kind is SessionRequestKind.SSH and self.agent is not None:
            return
        known = {
            SessionRequestKind.SECRET: self.secrets,
            SessionRequestKind.CONTEXT: self.contexts,
        }.get(kind, {})
        if id not in known:
            self._say(SessionRequestKind.FAIL, stream, session_protocol.UNKNOWN.encode())
            return
        content = known[id]
        for start in range(0, len(content), session_protocol.PAYLOAD_LIMIT):
            self._say(
                SessionRequestKind.DATA,
                stream,
                content[start : start + session_protocol.PAYLOAD_LIMIT],
            )
        self._say(SessionRequestKind.END, stream, b"")

    def _say(self, kind: SessionRequestKind, stream: int, payload: bytes) -> None:
        self._sock.sendall(session_protocol.encode_frame(kind, stream, payload))
