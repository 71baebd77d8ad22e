"""A web view of a private engine, and a browser without pages: sessions, WebSockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    RejectConnection,
    Request,
    TextMessage,
)

from harness.engine import PROJECT, SLOW, PrivateEngine, Reply
from harness.rootless import RootlessHost

START_TIMEOUT = 30.0 * SLOW  # seconds


class WebView:
    """``jaula web`` for one engine. ``settings`` is the content of its configuration file."""

    def __init__(self, engine: PrivateEngine | None, settings: str = "") -> None:
        self.engine = engine
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._directory = tempfile.TemporaryDirectory(prefix="jlt")
        self._settings = Path(self._directory.name) / "web.toml"
        self._settings.write_text(settings)
        self.log = Path(self._directory.name) / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.first_line = ""
        self.owner = 0  # of the configuration file
        self.network = ""  # path of the network namespace, if it is not that of the tests

    @property
    def url(self) -> str:
        return f"{'https' if '[tls]' in self._settings.read_text() else 'http'}://{self.address}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def command(self, *words: str) -> list[str]:
        assert self.engine is not None
        return [sys.executable, "-m", "jaula", "--host", self.engine.host, "web", *words]

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DOCKER_", "JAULA_"))}
        kept.pop("DISPLAY", None)
        kept.pop("WAYLAND_DISPLAY", None)
        return kept | {"PYTHONPATH": str(PROJECT / "src")}

    def start(self, **options: Any) -> None:
        """Start it and wait until it says that it is ready. ``options`` are those of Popen."""
        words = ("--listen", self.address, "--config", str(self._settings))
        for path in (self._settings, Path(self._directory.name)):
            os.chown(path, options.get("user", self.owner), options.get("group", self.owner))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(*words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.environment(),
                **options,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(b"web view on"), (line, self.log.read_text())
        self.first_line = line.decode()

    def end(self, number: int = signal.SIGTERM) -> None:
        """End the process by a signal; :meth:`start` starts it again on the same port."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(START_TIMEOUT)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def stop(self) -> None:
        self.end()
        self._directory.cleanup()

    def configure(self, settings: str) -> None:
        """Replace the configuration file; the next start reads it."""
        self._settings.write_text(settings)

    def link(self, **options: Any) -> str:
        """Return a one-time link for a user of this host; ``options`` are those of subprocess."""
        done = subprocess.run(
            self.command("--open"),
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT,
            env=self.environment(),
            **options,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def log_in(self, **options: Any) -> Browser:
        """Return a browser that has used a link."""
        browser = Browser(self)
        code = self.link(**options).partition("#")[2]
        browser.begin(browser.request("POST", "/login", {"code": code}))
        return browser


class RootlessView(WebView):
    """The view that an ordinary user runs beside a rootless engine, in the user's namespaces."""

    def __init__(self, host: RootlessHost) -> None:
        super().__init__(None)
        self._host = host
        self.owner = host.uid
        self.network = f"/proc/{host.namespaces.pid}/ns/net"

    def command(self, *words: str) -> list[str]:
        return self._host.as_user(f"{self._host.tree}/jaula", "web", *words)

    def environment(self) -> dict[str, str]:
        return self._host.environment()


def connect(port: int, network: str = "") -> socket.socket:
    """Return a connection to a port of 127.0.0.1 in a network namespace.

    A socket is one of the namespace in which it is created: a thread enters it.
    """
    if not network:
        return socket.create_connection(("127.0.0.1", port), 60)

    def enter() -> socket.socket:
        with open(network) as namespace:
            os.setns(namespace.fileno(), os.CLONE_NEWNET)
        return socket.create_connection(("127.0.0.1", port), 60)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(enter).result()


class Browser:
    """One page of the view. Requests have the headers that it sends.

    ``cookies`` are those that were set: a view sets none.
    """

    def __init__(self, view: WebView, context: ssl.SSLContext | None = None) -> None:
        self.view = view
        self._context = context
        self.cookies: dict[str, str] = {}
        self.session = ""

    def begin(self, login: Reply) -> Any:
        """Take the session out of the answer of a login, and return what the view says of it."""
        assert login.status == 200, login.body
        self.session = login.json()["session"]
        return self.request("GET", "/session").json()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """Send one request. A header with the value '' is left out."""
        kind = http.client.HTTPConnection
        connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection("127.0.0.1", self.view.port, context=self._context)
            if self._context
            else kind("127.0.0.1", self.view.port, timeout=60)
        )
        if self.view.network:
            connection.sock = connect(self.view.port, self.view.network)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {
            "Host": self.view.address,
            "Origin": self.view.url,
            "Authorization": f"Bearer {self.session}" if self.session else "",
            "Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()),
        } | ({"Content-Type": "application/json"} if data is not None else {})
        sent |= headers or {}
        try:
            connection.request(method, path, data, {k: v for k, v in sent.items() if v})
            answer = connection.getresponse()
            for value in answer.headers.get_all("Set-Cookie") or ():
                name, _, rest = value.partition("=")
                self.cookies[name] = rest.partition(";")[0].strip('"')
            return Reply(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def api(self, method: str, path: str, body: Any = None, **options: Any) -> Reply:
        return self.request(method, f"/api{path}", body, **options)

    def download(self, path: str) -> str:
        """Return the one-time address of a download."""
        reply = self.request("POST", "/downloads", {"path": path})
        assert reply.status == 201, reply.body
        return str(reply.json()["url"])

    @contextlib.contextmanager
    def socket(
        self, path: str, headers: dict[str, str] | None = None, *, first: Any = None
    ) -> Iterator[WebSocket]:
        """Open a WebSocket of a page. ``first`` replaces the message with the session."""
        opened = WebSocket(self.view, path, {"Origin": self.view.url} | (headers or {}))
        try:
            opened.send({"session": self.session} if first is None else first)
            yield opened
        finally:
            opened.close()


class Rejected(Exception):
    """The server refused a WebSocket, or closed it with this code."""


class WebSocket:
    """A client of a WebSocket."""

    def __init__(self, view: WebView, path: str, headers: dict[str, str]) -> None:
        address = view.address
        self._sock = connect(view.port, view.network)
        self._connection = WSConnection(ConnectionType.CLIENT)
        self._events: list[Any] = []
        extra = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._sock.sendall(
            self._connection.send(Request(host=address, target=path, extra_headers=extra))
        )
        if not isinstance(event := self._next(), AcceptConnection):
            raise Rejected(getattr(event, "status_code", event))

    def _next(self) -> Any:
        while not self._events:
            data = self._sock.recv(65536)
            self._connection.receive_data(data or None)
            self._events += list(self._connection.events())
        return self._events.pop(0)

    def receive(self) -> Any:
        """Return the next message: bytes, or a JSON document."""
        text, data = "", b""
        while True:
            event = self._next()
            if isinstance(event, CloseConnection | RejectConnection):
                raise Rejected(getattr(event, "code", event))
            if isinstance(event, TextMessage):
                text += event.data
                if event.message_finished:
                    return json.loads(text)
            elif isinstance(event, BytesMessage):
                data += event.data
                if event.message_finished:
                    return bytes(data)

    def receive_until(self, done: Callable[[Any], bool]) -> Any:
        """Return the first message for which ``done`` holds."""
        while not done(message := self.receive()):
            pass
        return message

    def send(self, message: Any) -> None:
        event = BytesMessage(message) if isinstance(message, bytes) else None
        self._sock.sendall(self._connection.send(event or TextMessage(json.dumps(message))))

    def close(self) -> None:
        self._sock.close()


@contextlib.contextmanager
def web_view(engine: PrivateEngine, settings: str = "") -> Iterator[WebView]:
    """Run a web view of an engine."""
    view = WebView(engine, settings)
    try:
        view.start()
        yield view
    finally:
        view.stop()
