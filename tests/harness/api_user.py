"""Other users of the machine as clients of an engine, which gets their ids from the kernel."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from harness.engine import PrivateEngine, Reply, UnixConnection


@contextlib.contextmanager
def acting_as(uid: int, gid: int, groups: tuple[int, ...] = ()) -> Iterator[None]:
    """Have the ids of another user for a moment; needs root."""
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


class ApiUser:
    """One user with one connection for each request."""

    def __init__(
        self, engine: PrivateEngine, uid: int, gid: int, groups: tuple[int, ...] = ()
    ) -> None:
        self._engine = engine
        self.uid = uid
        self._ids = (uid, gid, groups)

    def connect(self) -> socket.socket:
        """Return a connection of this user."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with acting_as(*self._ids):
            sock.connect(str(self._engine.socket))  # waits while the backlog is full
        sock.settimeout(30)
        return sock

    def request(self, method: str, path: str, body: Any = None) -> Reply:
        """Send one request on a new connection. ``body``: bytes are a tar, the rest JSON."""
        return self.request_over(self.connect(), method, path, body)

    def request_over(self, sock: socket.socket, method: str, path: str, body: Any = None) -> Reply:
        """Send one request on a connection of this user, also in another thread."""
        connection = UnixConnection(str(self._engine.socket), 60)
        connection.sock = sock
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
            connection.request(method, path, data, {"Content-Type": kind} if data else {})
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def raw(self, data: bytes) -> tuple[int, bytes]:
        """Send bytes unchanged and return status and body of the first response."""
        with self.connect() as sock:
            sock.sendall(data)
            answer = http.client.HTTPResponse(sock)
            answer.begin()
            return answer.status, answer.read()

    def create(self, image: str, name: str = "", **host_config: Any) -> Reply:
        query = f"?name={name}" if name else ""
        body = {"Image": image, "Cmd": ["sleep", "60"], "HostConfig": host_config}
        return self.request("POST", f"/containers/create{query}", body)
