"""The interface of the engine for streams, and the requests that URLs stand for.

Sources: ``ExecRequest``, ``AttachRequest`` and ``PortForwardRequest`` of CRI's api.proto;
``k8s.io/cri-streaming``, ``Runtime``.

Every stream has backpressure. A :class:`Source` that is not read stops the client, and a
:class:`Sink` returns when its client has room. So a call holds a few chunks, whatever the length of
the stream. :func:`.socket_streams.copy_streams` serves all streams of a call from one socket.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from jaula.errors import InvalidRequest

MAX_PORTS = 100  # of a request: two WebSocket channels each, and a channel is one byte


class ClientGone(ConnectionError):
    """The client has closed its connection or reset the stream."""


class Size(NamedTuple):
    """The size of a terminal, in characters."""

    columns: int
    rows: int


class Source(Protocol):
    """Bytes from the client."""

    async def read(self) -> bytes:
        """Return the next bytes, b'' at the end. A client that is gone is an end."""


class Sink(Protocol):
    """Bytes for the client."""

    async def write(self, data: bytes | memoryview) -> None:
        """Send ``data``, which must not change later; return when the client has room for more.

        :raises ClientGone: when the client does not read this stream any more.
        """


class Duplex(Source, Sink, Protocol):
    """A connection with the client, which each side can close for its own direction."""

    def end(self) -> None:
        """Tell the client that nothing more is sent. The other direction continues."""


@dataclass(frozen=True, kw_only=True)
class Streams:
    """The streams of one command. A stream that the client did not ask for is None.

    ``resize`` yields the latest size of the terminal and ends with the client. With ``tty`` the
    callee has to iterate over it; without, it is empty. With ``tty``, ``stderr`` is None.
    """

    stdin: Source | None
    stdout: Sink | None
    stderr: Sink | None
    tty: bool
    resize: AsyncIterator[Size]


class Backend(Protocol):
    """The functions of the engine that the server calls, one task for each call.

    A call is cancelled if its client is gone for a few seconds, after the input that the client
    sent has ended. An error of :mod:`jaula.errors` becomes the message for the client.
    """

    async def exec(self, container_id: str, command: tuple[str, ...], streams: Streams) -> int:
        """Run a command in a container and return its exit status, after all of its output."""

    async def attach(self, container_id: str, streams: Streams) -> None:
        """Carry the streams of the container's init until its output or the client ends."""

    async def port_forward(self, sandbox_id: str, port: int, stream: Duplex) -> None:
        """Connect to a TCP port on the loopback address of a sandbox and carry its bytes."""


@dataclass(frozen=True, kw_only=True)
class ExecRequest:
    """A request for :meth:`Backend.exec`.

    :raises InvalidRequest: when no stream is requested, or both a terminal and stderr.
    """

    container_id: str
    command: tuple[str, ...]
    tty: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False

    def __post_init__(self) -> None:
        _check_command(self)


@dataclass(frozen=True, kw_only=True)
class AttachRequest:
    """A request for :meth:`Backend.attach`.

    :raises InvalidRequest: when no stream is requested, or both a terminal and stderr.
    """

    container_id: str
    tty: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False

    def __post_init__(self) -> None:
        _check_command(self)


@dataclass(frozen=True, kw_only=True)
class PortForwardRequest:
    """A request for :meth:`Backend.port_forward`.

    ``ports`` are for WebSocket clients, whose connection has channels for exactly these. A SPDY
    client names the port of each stream itself.

    :raises InvalidRequest: when the sandbox is missing or a port is out of range.
    """

    sandbox_id: str
    ports: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.sandbox_id:
            raise InvalidRequest("missing required pod_sandbox_id")
        for port in self.ports:
            if not 1 <= port <= 65535:
                raise InvalidRequest(f"port {port} must be one of 1 to 65535")
        if len(self.ports) > MAX_PORTS:
            raise InvalidRequest(f"{len(self.ports)} ports are more than {MAX_PORTS}")


CommandRequest = ExecRequest | AttachRequest
Request = CommandRequest | PortForwardRequest


def _check_command(request: CommandRequest) -> None:
    if not request.container_id:
        raise InvalidRequest("missing required container_id")
    if request.tty and request.stderr:
        raise InvalidRequest("tty and stderr cannot both be true")
    if not (request.stdin or request.stdout or request.stderr):
        raise InvalidRequest("one of stdin, stdout, or stderr must be set")
