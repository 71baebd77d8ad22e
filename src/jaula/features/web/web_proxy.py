"""The engine's API for a logged-in user: requests, streams and terminals.

A browser has few connections for one origin, so all open-ended answers (events, logs, statistics)
share one WebSocket. Its messages are:

* from the browser, text: ``{"open": ID, "path": PATH}`` begins ``GET PATH``, ``{"close": ID}``
  ends it;
* to the browser, text: ``{"id": ID, "status": STATUS, "message": TEXT}`` is the head (with the
  engine's message if it refuses), ``{"id": ID, "end": true}`` the end, with ``"message"`` if the
  engine went away;
* to the browser, binary: the ID as four bytes in network byte order, and a part of the body.

A terminal has a WebSocket of its own (:func:`terminal`). The first message of both kinds is
``{"session": IDENTIFIER}``, which :mod:`jaula.features.web.app` takes.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from jaula.errors import InvalidRequest, JaulaError
from jaula.features.web.engine_client import API, EngineClient, EngineDown, engine_error
from jaula.features.web.http_checks import DATA_POLICY

if TYPE_CHECKING:
    from jaula.features.web.engine_client import Answer, Hijacked
    from jaula.features.web.sessions import Session

MAX_STREAMS = 24  # of one WebSocket
MAX_STREAMS_OF_SESSION = 64
MAX_MESSAGE = 1 << 20  # bytes of a message of a browser
WINDOW = 512 * 1024  # bytes of a terminal's output that the browser has not shown yet
_CHUNK = 32 * 1024  # bytes
_TO_ENGINE = ("content-type", "content-length", "accept", "x-registry-auth", "x-registry-config")
_TO_BROWSER = ("content-type", "content-length", "x-docker-container-path-stat", "api-version")
_HIJACKED = ("attach", "session", "grpc")
_OWN = ("server", "links", "logins")  # of /jaula/web, for the web view itself
_ENDED, _POLICY_VIOLATION, _FAILED = 1000, 1008, 1011  # RFC 6455, section 7.4.1


def refuse_path(path: str) -> str:
    """Return why a path of the engine is not served, empty if it is. Pure.

    ``path`` is encoded. The engine decodes its parts, so they are judged decoded.
    """
    parts = unquote(path).strip("/").split("/")
    if parts[:2] == ["jaula", "web"] and parts[2:3] and parts[2] in _OWN:
        return "this route is for the web view itself"
    hijacked = parts[-1] in _HIJACKED or "attach" in parts[2:]
    if hijacked or (parts[0] == "exec" and parts[-1] == "start"):
        return "this route takes the connection over: use the terminal"
    if ".." in parts or "." in parts:
        return "the path has a part that is a dot"
    return ""


async def _bytes(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            yield chunk


async def forward(request: Request, engine: EngineClient, session: Session) -> Response:
    """Send a request of the browser to the engine as the session's user, and stream the answer."""
    raw = request.scope["raw_path"].partition(b"?")[0].decode("ascii")
    path = raw.removeprefix("/api")
    why = refuse_path(path)
    if why:
        raise InvalidRequest(why)
    query = request.scope["query_string"].decode("ascii")
    headers = [(name, request.headers[name]) for name in _TO_ENGINE if name in request.headers]
    body = None if request.method in ("GET", "HEAD") else _bytes(request)
    target = API + path + (f"?{query}" if query else "")
    answer = await engine.open(request.method, target, session.user, headers=headers, body=body)
    return _response(answer, {})


async def save(target: str, engine: EngineClient, session: Session) -> Response:
    """Answer a download with what ``GET target`` of the engine answers, as a file.

    ``target`` is an encoded path with its query.
    """
    why = refuse_path(target.partition("?")[0])
    if why:
        raise InvalidRequest(why)
    answer = await engine.open("GET", API + target, session.user)
    if answer.status != HTTPStatus.OK:
        raise engine_error(answer.status, await answer.read())
    return _response(answer, {"Content-Disposition": "attachment"})


def _response(answer: Answer, headers: dict[str, str]) -> Response:
    sent = {name: value for name, value in answer.headers if name in _TO_BROWSER}
    sent["Content-Security-Policy"] = DATA_POLICY
    return StreamingResponse(_body(answer), answer.status, sent | headers)


async def _body(answer: Answer) -> AsyncIterator[bytes]:
    chunks = answer.chunks()
    try:
        async for chunk in chunks:
            yield chunk
    finally:
        answer.close()


class StreamSocket:
    """The WebSocket of one page for its streams."""

    def __init__(self, socket: WebSocket, engine: EngineClient, session: Session) -> None:
        self._socket = socket
        self._engine = engine
        self._session = session
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Serve until the page closes the socket, or the session ends."""
        try:
            while True:
                text = await self._socket.receive_text()
                if len(text) > MAX_MESSAGE:
                    raise InvalidRequest("the message is too large")
                self._take(_message(text))
        except WebSocketDisconnect:
            return
        except (JaulaError, KeyError, TypeError, ValueError):
            await self._socket.close(_POLICY_VIOLATION)  # not a message of a page of this view
        finally:
            for task in tuple(self._tasks.values()):
                task.cancel()

    def _take(self, message: dict[str, Any]) -> None:
        if "close" in message:
            task = self._tasks.get(int(message["close"]))
            if task is not None:
                task.cancel()
            return
        number, path = int(message["open"]), str(message["path"])
        if number in self._tasks or not 0 <= number < 1 << 32:
            raise InvalidRequest("the number of a stream is used twice")
        task = asyncio.create_task(self._relay(number, path))
        self._tasks[number] = task
        task.add_done_callback(lambda _: self._tasks.pop(number, None))

    async def _relay(self, number: int, path: str) -> None:
        self._session.streams += 1
        try:
            if len(self._tasks) > MAX_STREAMS or self._session.streams > MAX_STREAMS_OF_SESSION:
                await self._send({"id": number, "status": 503, "message": "too many streams"})
                return
            why = refuse_path(path.partition("?")[0])
            if why or not path.startswith("/") or not path.isascii() or not path.isprintable():
                why = why or "the path of a stream is not valid"
                await self._send({"id": number, "status": 400, "message": why})
                return
            try:
                answer = await self._engine.open("GET", API + path, self._session.user)
            except EngineDown as error:
                await self._send({"id": number, "status": 502, "message": str(error)})
                return
            if answer.status >= 400:
                refused = engine_error(answer.status, await answer.read())
                await self._send({"id": number, "status": answer.status, "message": str(refused)})
                return
            await self._send({"id": number, "status": answer.status})
            end: dict[str, Any] = {"id": number, "end": True}
            try:
                async for chunk in answer.chunks():
                    async with self._sending:
                        await self._socket.send_bytes(struct.pack("!I", number) + chunk)
            except EngineDown as error:
                end["message"] = str(error)
            finally:
                answer.close()
            await self._send(end)
        except (WebSocketDisconnect, RuntimeError):
            return  # the page has closed the socket
        finally:
            self._session.streams -= 1

    async def _send(self, message: dict[str, Any]) -> None:
        async with self._sending:
            await self._socket.send_text(json.dumps(message))


# -- terminals ---------------------------------------------------------------------------------


async def terminal(socket: WebSocket, engine: EngineClient, session: Session) -> None:
    """Serve a terminal: an exec or an attach, until one side ends.

    The message after that of the session is
    ``{"container", "kind", "cmd", "user", "rows", "cols"}``, with ``kind`` one of ``exec`` and
    ``attach``. Later ones are input (binary), a new size
    (``{"rows", "cols"}``) or ``{"shown": N}``, the number of bytes that the browser has shown. To
    the browser: output (binary), and ``{"message", "code"}`` before the end.
    """
    user = session.user
    session.streams += 1
    stream: Hijacked | None = None
    try:
        request = _message(await socket.receive_text())
        ref, rows, cols = quote(str(request["container"]), safe=""), *_size(request)
        if session.streams > MAX_STREAMS_OF_SESSION:
            raise InvalidRequest("too many streams are open")
        if request.get("kind") == "attach":
            resize = f"/containers/{ref}/resize"
            inspect = await engine.document("GET", f"/containers/{ref}/json", user)
            tty = bool(inspect["Config"]["Tty"])
            query = urlencode({"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1, "logs": 1})
            stream = await engine.hijack(f"/containers/{ref}/attach?{query}", user)
            code = f"/containers/{ref}/json"
        else:
            tty = True
            body = {
                "Cmd": [str(word) for word in request["cmd"]],
                "Tty": True,
                "AttachStdin": True,
                "AttachStdout": True,
                "AttachStderr": True,
                "User": str(request.get("user") or ""),
                "Env": ["TERM=xterm-256color"],
                "ConsoleSize": [rows, cols],
            }
            created = await engine.document("POST", f"/containers/{ref}/exec", user, body)
            started = {"Detach": False, "Tty": True, "ConsoleSize": [rows, cols]}
            stream = await engine.hijack(f"/exec/{created['Id']}/start", user, started)
            resize, code = f"/exec/{created['Id']}/resize", f"/exec/{created['Id']}/json"
        relay = TerminalRelay(socket, engine, session, stream, resize, framed=not tty)
        if tty and request.get("kind") == "attach":
            await relay.resize(rows, cols)
        await relay.run()
        status = await _exit_code(engine, code, session)
        await socket.send_text(json.dumps({"message": "", "code": status}))
        await socket.close(_ENDED)
    except (KeyError, TypeError, ValueError):
        await _close(socket, "the first message of a terminal is not valid")
    except JaulaError as error:
        await _close(socket, str(error))
    except (WebSocketDisconnect, RuntimeError, OSError):
        return  # the page has closed the socket
    finally:
        session.streams -= 1
        if stream is not None:
            stream.writer.close()


class TerminalRelay:
    """Carries bytes between a browser's terminal and a stream of the engine."""

    def __init__(
        self,
        socket: WebSocket,
        engine: EngineClient,
        session: Session,
        stream: Hijacked,
        resize_path: str,
        *,
        framed: bool,
    ) -> None:
        self._socket = socket
        self._engine = engine
        self._session = session
        self._stream = stream
        self._resize_path = resize_path
        self._framed = framed
        self._unshown = 0
        self._shown = asyncio.Event()

    async def run(self) -> None:
        """Relay until the program or the browser ends."""
        output = asyncio.create_task(self._output())
        keys = asyncio.create_task(self._input())
        try:
            done, _ = await asyncio.wait((output, keys), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            output.cancel()
            keys.cancel()
            await asyncio.gather(output, keys, return_exceptions=True)

    async def _output(self) -> None:
        data, left = self._stream.early, b""
        while True:
            if data:
                if self._framed:
                    left, data = unframe(left + data)
                self._unshown += len(data)
                if data:
                    await self._socket.send_bytes(data)
            while self._unshown > WINDOW:
                self._shown.clear()
                await self._shown.wait()
            data = await self._stream.reader.read(_CHUNK)
            if not data:
                return

    async def _input(self) -> None:
        writer = self._stream.writer
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", _ENDED))
            if (data := message.get("bytes")) is not None:
                writer.write(data)
                await writer.drain()
                continue
            document = _message(message.get("text") or "")
            if "shown" in document:
                self._unshown = max(0, self._unshown - int(document["shown"]))
                self._shown.set()
            elif document.get("eof"):
                writer.write_eof()
            else:
                await self.resize(*_size(document))

    async def resize(self, rows: int, cols: int) -> None:
        """Set the size of the program's terminal."""
        query = urlencode({"h": rows, "w": cols})
        try:
            await self._engine.document("POST", f"{self._resize_path}?{query}", self._session.user)
        except EngineDown:
            raise
        except JaulaError:
            return  # the program has ended: the end of its output follows


def unframe(data: bytes) -> tuple[bytes, bytes]:
    """Return what is left of an incomplete frame, and the payload of the complete ones. Pure.

    Source: Docker Engine API, "Attach to a container, Stream format".
    """
    payload = bytearray()
    at = 0
    while len(data) - at >= 8:
        size = int.from_bytes(data[at + 4 : at + 8])
        if len(data) - at - 8 < size:
            break
        payload += data[at + 8 : at + 8 + size]
        at += 8 + size
    return data[at:], bytes(payload)


async def _exit_code(engine: EngineClient, path: str, session: Session) -> int | None:
    """Return the exit code of a program that has ended; None if it is not known."""
    try:
        document = await engine.document("GET", path, session.user)
    except JaulaError:
        return None  # the container was removed with --rm
    code = document.get("ExitCode", (document.get("State") or {}).get("ExitCode"))
    return code if isinstance(code, int) else None


async def _close(socket: WebSocket, message: str) -> None:
    try:
        await socket.send_text(json.dumps({"message": message, "code": None}))
        await socket.close(_FAILED)
    except (WebSocketDisconnect, RuntimeError):
        return


def _message(text: str) -> dict[str, Any]:
    """Return a message of a browser.

    :raises InvalidRequest: when it is not a JSON object.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest("a message is not a JSON document") from None
    if not isinstance(document, dict):
        raise InvalidRequest("a message is not a JSON object")
    return document


def _size(document: dict[str, Any]) -> tuple[int, int]:
    rows, cols = int(document["rows"]), int(document["cols"])
    if not (0 < rows < 1000 and 0 < cols < 1000):
        raise InvalidRequest("the size of a terminal is not valid")
    return rows, cols


def error_response(error: JaulaError) -> Response:
    """Return the answer for an error. An engine that is down is 502, so that pages can tell."""
    status = 502 if isinstance(error, EngineDown) else error.status
    return JSONResponse({"message": str(error)}, status)
