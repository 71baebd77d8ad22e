"""The server's side of gRPC: from the path of a call to a handler.

A handler gets decoded requests and yields responses. It runs in a task of its own, which is
cancelled when the client resets the call or the connection ends. A handler raises
:class:`~jaula.grpc.grpc_status.GrpcError` for a failed call; engine errors have a status too.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

from jaula.caller_quota import CallerShare
from jaula.errors import CorruptState, JaulaError
from jaula.grpc.grpc_status import Code, GrpcError, encode_message
from jaula.grpc.http2_connection import Connection, Limits, Stream
from jaula.tasks import BackgroundTasks

CONTENT_TYPE = "application/grpc"
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}  # seconds
# As containerd's errgrpc has them. Errors of the kernel and of programs are UNKNOWN there too.
_CODES = {
    304: Code.FAILED_PRECONDITION,
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    409: Code.FAILED_PRECONDITION,
    429: Code.RESOURCE_EXHAUSTED,
    501: Code.UNIMPLEMENTED,
    503: Code.UNAVAILABLE,
}

_log = logging.getLogger("jaula.grpc")


class Message(Protocol):
    """A message of a protobuf runtime."""

    def SerializeToString(self) -> bytes: ...


Decode = Callable[[bytes], Any]
"""Decodes a request; raises ValueError for bytes that are not one."""


class Call:
    """One call, as its handler sees it. ``headers`` has the metadata of the client."""

    def __init__(self, stream: Stream, decode: Decode) -> None:
        self.headers: Mapping[str, str] = stream.headers
        self._stream = stream
        self._decode = decode

    async def receive(self) -> Any:
        """Return the next request; None after the last.

        :raises GrpcError: when the bytes are not a request.
        """
        data = await self._stream.receive()
        if data is None:
            return None
        try:
            return self._decode(data)
        except ValueError as error:
            raise GrpcError(Code.INVALID_ARGUMENT, f"a request is not valid: {error}") from None

    async def request(self) -> Any:
        """Return the request of a call that has one.

        :raises GrpcError: when it is missing or not valid.
        """
        message = await self.receive()
        if message is None:
            raise GrpcError(Code.INVALID_ARGUMENT, "the call has no request")
        return message


Unary = Callable[[Call, Any], Awaitable[Message]]
Streaming = Callable[[Call], AsyncIterator[Message]]


class Method:
    """A method of a service. ``unary`` answers one request with one response."""

    def __init__(
        self, decode: Decode, *, unary: Unary | None = None, streaming: Streaming | None = None
    ) -> None:
        self.decode = decode
        self.is_unary = unary is not None
        self._unary = unary
        self._streaming = streaming

    async def responses(self, call: Call) -> AsyncIterator[Message]:
        """Run the handler and yield its responses."""
        if self._unary is not None:
            yield await self._unary(call, await call.request())
            return
        assert self._streaming is not None
        async for message in self._streaming(call):
            yield message


class Server:
    """The calls of one connection. ``methods`` has the handlers by path.

    ``check`` is called with the path of each call before its request is read; it raises an error
    of the engine if the caller may not make it. ``share`` is the memory of the caller's requests
    and answers. ``turn`` is common to the connections of a caller: in one turn of the event loop at
    most one of its calls begins, so that hundreds of them do not keep the loop.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        limits: Limits,
        check: Callable[[str], None] = lambda path: None,
        share: CallerShare | None = None,
        turn: asyncio.Lock | None = None,
    ) -> None:
        self._methods = methods
        self._check = check
        self._turn = turn
        self._tasks = BackgroundTasks(_log, "a call failed")
        self._connection = Connection(limits, self._accept, share)
        self._unary: set[Stream] = set()  # running calls with one answer
        self._stopping = False

    async def serve(self, sock: socket.socket, early: bytes = b"") -> None:
        """Answer calls until the client leaves; end those that run then."""
        try:
            await self._connection.run(sock, early)
        finally:
            await self._tasks.close()

    def stop(self) -> None:
        """Refuse further calls, and end streams; close the connection after the calls that run."""
        self._stopping = self._connection.refusing = True
        for stream in tuple(self._connection.streams.values()):
            if stream not in self._unary and stream.task is not None:
                stream.task.cancel()
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._stopping and not self._unary:
            self._connection.close()

    def _accept(self, stream: Stream) -> None:
        stream.task = self._tasks.spawn(self._answer(stream))

    async def _answer(self, stream: Stream) -> None:
        error: GrpcError | None = None
        begun = False
        try:
            method = self._find(stream)
            if method.is_unary:
                self._unary.add(stream)
            if self._turn is not None:
                async with self._turn:
                    await asyncio.sleep(0)
            async with asyncio.timeout(_timeout(stream.headers)):
                responses = method.responses(Call(stream, method.decode))
                try:
                    async for message in responses:
                        if not begun:
                            begun = True
                            self._connection.send_headers(stream.id, _HEAD)
                        data = message.SerializeToString()
                        del message  # it needs more memory, while the client reads
                        await stream.send(data)
                finally:
                    await responses.aclose()  # type: ignore[attr-defined]
        except asyncio.CancelledError:
            error = GrpcError(Code.UNAVAILABLE, "the server ends the call")
            raise
        except TimeoutError:
            error = GrpcError(Code.DEADLINE_EXCEEDED, "the deadline of the call has passed")
        except GrpcError as failure:
            error = failure
        except JaulaError as failure:
            error = as_grpc_error(failure)
        except Exception:  # noqa: BLE001 - every exception becomes a status here
            _log.exception("unexpected error in %s", stream.headers.get(":path"))
            error = GrpcError(Code.INTERNAL, "internal error, see the log of the engine")
        finally:
            self._end(stream, error, begun=begun)
            self._unary.discard(stream)
            self._close_if_idle()

    def _end(self, stream: Stream, error: GrpcError | None, *, begun: bool) -> None:
        trailers = [] if begun else list(_HEAD)
        trailers.append(("grpc-status", str(int(error.code if error else Code.OK))))
        if error is not None:
            trailers.append(("grpc-message", encode_message(error.message)))
            if error.details:
                trailers.append(("grpc-status-details-bin", _base64(error.details)))
        try:
            stream.check()
            self._connection.send_headers(stream.id, trailers, end=True)
        except GrpcError:
            pass  # the client has left the call
        stream.close()

    def _find(self, stream: Stream) -> Method:
        headers = stream.headers
        if not headers.get("content-type", "").startswith(CONTENT_TYPE):
            raise GrpcError(Code.UNIMPLEMENTED, "this connection is for gRPC only")
        path = headers.get(":path", "")
        self._check(path)
        method = self._methods.get(path)
        if method is None:
            service, _, name = path.removeprefix("/").rpartition("/")
            raise GrpcError(
                Code.UNIMPLEMENTED, f"unknown method {name[:64]} for service {service[:128]}"
            )
        return method


_HEAD = ((":status", "200"), ("content-type", CONTENT_TYPE))


def as_grpc_error(error: JaulaError) -> GrpcError:
    """Return an error of the engine as the failure of a call. Pure."""
    code = Code.DATA_LOSS if isinstance(error, CorruptState) else _CODES.get(error.status)
    return GrpcError(Code.UNKNOWN if code is None else code, str(error))


def _timeout(headers: Mapping[str, str]) -> float | None:
    """Return the value of ``grpc-timeout`` in seconds; None without a valid one. Pure."""
    text = headers.get("grpc-timeout", "")
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and len(number) <= 8 and unit in _UNITS):
        return None
    return int(number) * _UNITS[unit]


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode().rstrip("=")
