"""The client's end of a build session: secrets, the ssh agent, directories.

Follows :mod:`.session_protocol`. A thread answers the engine while the main thread shows
progress. Only what the command line names is sent.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading

from jaula.cli.cli_errors import CliError
from jaula.features.build import session_protocol
from jaula.features.build.session_protocol import SessionRequestKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jaula.cli.client.api_client import Client
    from jaula.storage.tar.tar_writer import Sink

    Secret = Callable[[], bytes]
    Write = Callable[[Sink], None]

_UPGRADE = (("Connection", "Upgrade"), ("Upgrade", session_protocol.PROTOCOL))


class Session:
    """A build session, open while the context manager is active. ``id`` is its id for ``/build``.

    ``secrets`` are functions that read a secret, ``agents`` are socket paths of ssh agents,
    ``contexts`` are functions that write a tar.
    """

    def __init__(
        self,
        client: Client,
        secrets: Mapping[str, Secret],
        agents: Mapping[str, str],
        contexts: Mapping[str, Write],
    ) -> None:
        self._client = client
        self._secrets = secrets
        self._agents = agents
        self._contexts = contexts
        self.id = os.urandom(16).hex()
        self._selector = selectors.DefaultSelector()
        self._streams: dict[int, socket.socket] = {}
        self._pending = bytearray()

    def __enter__(self) -> Session:
        from jaula.cli.client.api_client import checked, target

        connection = self._client.connection()
        path = target("/build/session", (("session", self.id),))
        connection.send("POST", path, b"", _UPGRADE)
        response = connection.response()
        if response.status != 101:
            checked(response)
            raise CliError("the engine does not support build sessions")
        self._pending += connection.leftover()
        self._connection = connection
        self._sock = connection.socket
        self._thread = threading.Thread(target=self._run, name="build-session", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the engine closed the connection first
        self._thread.join(timeout=5)
        self._connection.close()

    # -- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        self._selector.register(self._sock, selectors.EVENT_READ, 0)
        try:
            self._process_frames()
            while True:
                for key, _ in self._selector.select():
                    if key.data:
                        self._relay_agent(key.data)
                        continue
                    data = self._sock.recv(session_protocol.PAYLOAD_LIMIT)
                    if not data:
                        return
                    self._pending += data
                    self._process_frames()
        except (OSError, session_protocol.BadFrame):
            return  # the engine is gone or broke the protocol; the answer of /build reports it
        finally:
            for sock in self._streams.values():
                sock.close()
            self._selector.close()

    def _process_frames(self) -> None:
        """Handle every complete frame in the buffer."""
        while len(self._pending) >= session_protocol.HEADER_SIZE:
            kind, number, length = session_protocol.decode_header(
                bytes(self._pending[: session_protocol.HEADER_SIZE])
            )
            end = session_protocol.HEADER_SIZE + length
            if len(self._pending) < end:
                return
            payload = bytes(self._pending[session_protocol.HEADER_SIZE : end])
            del self._pending[:end]
            self._handle(kind, number, payload)

    def _handle(self, kind: SessionRequestKind, number: int, payload: bytes) -> None:
        if kind in (SessionRequestKind.SECRET, SessionRequestKind.SSH, SessionRequestKind.CONTEXT):
            try:
                self._serve(kind, number, session_protocol.decode_request(payload))
            except (CliError, OSError) as error:
                self._send_failure(number, str(error))
        elif (agent := self._streams.get(number)) is not None:
            try:
                if kind is SessionRequestKind.DATA:
                    agent.sendall(payload)
                else:
                    agent.shutdown(socket.SHUT_WR)
            except OSError:
                self._close_stream(number)

    def _serve(self, kind: SessionRequestKind, number: int, id: str) -> None:
        if kind is SessionRequestKind.SECRET and id in self._secrets:
            self._send_data(number, self._secrets[id]())
            self._send(session_protocol.encode_frame(SessionRequestKind.END, number))
        elif kind is SessionRequestKind.CONTEXT and id in self._contexts:
            self._contexts[id](lambda data: self._send_data(number, data))
            self._send(session_protocol.encode_frame(SessionRequestKind.END, number))
        elif kind is SessionRequestKind.SSH and id in self._agents:
            agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                agent.connect(self._agents[id])
            except OSError:
                agent.close()
                raise
            self._streams[number] = agent
            self._selector.register(agent, selectors.EVENT_READ, number)
        else:
            self._send_failure(number, session_protocol.UNKNOWN)

    def _relay_agent(self, number: int) -> None:
        try:
            data = self._streams[number].recv(session_protocol.PAYLOAD_LIMIT)
        except OSError:
            data = b""
        if data:
            self._send_data(number, data)
        else:
            self._close_stream(number)
            self._send(session_protocol.encode_frame(SessionRequestKind.END, number))

    def _close_stream(self, number: int) -> None:
        agent = self._streams.pop(number)
        self._selector.unregister(agent)
        agent.close()

    def _send_data(self, number: int, data: bytes | memoryview) -> None:
        view = memoryview(data)
        for start in range(0, len(view), session_protocol.PAYLOAD_LIMIT):
            chunk = bytes(view[start : start + session_protocol.PAYLOAD_LIMIT])
            self._send(session_protocol.encode_frame(SessionRequestKind.DATA, number, chunk))

    def _send_failure(self, number: int, text: str) -> None:
        self._send(
            session_protocol.encode_frame(SessionRequestKind.FAIL, number, text.encode()[:1000])
        )

    def _send(self, frame: bytes) -> None:
        self._sock.sendall(frame)
