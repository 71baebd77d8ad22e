"""Requests to the engine and the meaning of its answers.

Every command uses the Docker Engine API (version 1.48 of its reference) and nothing else. One
connection is kept alive and reused. A request whose answer stays open (attach, wait, logs) gets a
connection of its own.
"""

from __future__ import annotations

from jaula.cli.cli_errors import CliError, EngineError, Unreachable
from jaula.cli.client import engine_address
from jaula.cli.client.http_client import Connection, Response, SocketAddress
from jaula.cli.environ import text as environ_text
from jaula.spec import fast_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Query = Iterable[tuple[str, object]]
    Headers = Iterable[tuple[str, str]]

API = "/v1.48"
UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
UPGRADE = (("Connection", "Upgrade"), ("Upgrade", "tcp"))
JSON = (("Content-Type", "application/json"),)


def quote(text: str, keep: str = "") -> str:
    """Percent-encode ``text`` for a path or a query (RFC 3986); ``keep`` is not encoded."""
    safe = UNRESERVED.union(keep.encode())
    data = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in safe else f"%{byte:02X}" for byte in data)


def target(path: str, query: Query = ()) -> str:
    """Return the request target for ``path`` below the API version.

    Empty query values are omitted.
    """
    pairs = [
        f"{quote(name)}={quote('1' if value is True else str(value))}"
        for name, value in query
        if value is not None and value is not False and value != ""
    ]
    return API + path + ("?" + "&".join(pairs) if pairs else "")


class Client:
    """A client of the engine at one address.

    ``autostart``: an engine is started if the default socket does not answer.
    """

    autostart = True

    def __init__(self, host: str = "") -> None:
        selected = resolve_endpoint(host)
        self.explicit_host = selected.host
        self.address = SocketAddress(
            self.explicit_host or engine_address.default_host(), selected.security
        )
        self._idle: list[Connection] = []

    def connection(self) -> Connection:
        """Return an idle connection or a new one.

        Starts an engine if none was selected explicitly and the default socket does not answer.

        :raises Unreachable: when the engine does not answer.
        """
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open():
                return connection
            connection.close()  # the engine has ended since
        try:
            return Connection(self.address)
        except OSError as error:
            if not self.explicit_host and self.autostart:
                from jaula.cli.client import autostart

                autostart.start(self.address, error)
                return Connection(self.address)
            raise Unreachable(self._unreachable(error)) from None

    def _unreachable(self, error: OSError) -> str:
        if isinstance(error, PermissionError):
            return f"permission denied while connecting to the jaula engine at {self.address.text}"
        return (
            f"Cannot connect to the jaula engine at {self.address.text}. "
            f"Is the engine running? ({error.strerror or error})"
        )

    def release(self, connection: Connection) -> None:
        """Return a connection to the pool after its answers were read to their end."""
        if connection.reusable:
            self._idle.append(connection)
        else:
            connection.close()

    def request(
        self,
        method: str,
        path: str,
        query: Query = (),
        body: object = None,
        headers: Headers = (),
    ) -> bytes:
        """Send one request and return the whole body of the answer.

        :raises EngineError: when the engine answers with an error status.
        """
        return self.answer(self.send(method, path, query, body, headers))

    def answer(self, connection: Connection) -> bytes:
        """Return the whole body of the answer to a request that :meth:`send` has sent.

        :raises EngineError: when the engine answers with an error status.
        """
        response = connection.response()
        content = response.read()
        self.release(connection)
        if response.status >= 400:
            raise engine_error(response.status, content)
        return content

    def document(
        self,
        method: str,
        path: str,
        query: Query = (),
        body: object = None,
        headers: Headers = (),
    ) -> Any:
        """Send one request and return the JSON document of the answer (None: no body)."""
        content = self.request(method, path, query, body, headers)
        return fast_json.decode(content) if content.strip() else None

    def get(self, path: str, query: Query = ()) -> Any:
        """GET a JSON document."""
        return self.document("GET", path, query)

    def open(
        self,
        method: str,
        path: str,
        query: Query = (),
        body: object = None,
        headers: Headers = (),
    ) -> Response:
        """Send a request on a connection of its own; the caller reads the body."""
        connection = self.send(method, path, query, body, headers)
        return checked(connection.response())

    def send(
        self,
        method: str,
        path: str,
        query: Query = (),
        body: object = None,
        headers: Headers = (),
    ) -> Connection:
        """Send one request and return its connection, for :meth:`answer`.

        :raises Unreachable: when the engine does not answer.
        """
        connection = self.connection()
        data = None if body is None else _encoded(body)
        all_headers = (*headers, *(JSON if body is not None else ()))
        connection.send(method, target(path, query), data, all_headers)
        return connection

    def lines(
        self,
        method: str,
        path: str,
        query: Query = (),
        headers: Headers = (),
        body: object = None,
    ) -> Iterator[Any]:
        """Return the JSON documents of a streaming answer."""
        return fast_json.decode_lines(self.open(method, path, query, body, headers).chunks())

    def send_hijack(self, path: str, query: Query = (), body: object = None) -> Connection:
        """Send a request that hijacks its connection.

        :func:`jaula.cli.client.hijack.check_hijacked` reads the answer.
        """
        connection = self.connection()
        data = b"" if body is None else _encoded(body)
        headers = (("Content-Type", "application/json" if body is not None else "text/plain"),)
        connection.send("POST", target(path, query), data, headers + UPGRADE)
        return connection

    def upload(
        self,
        path: str,
        query: Query,
        chunks: Iterable[bytes],
        content_type: str = "application/x-tar",
    ) -> Response:
        """POST a body of unknown length in chunks.

        An early answer of the engine ends the upload.
        """
        connection = self.connection()
        headers = (("Content-Type", content_type), ("Transfer-Encoding", "chunked"))
        connection.send("POST", target(path, query), None, headers)
        try:
            for chunk in chunks:
                if chunk:
                    connection.send_raw(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            connection.send_raw(b"0\r\n\r\n")
        except Unreachable:
            connection.reusable = False  # the engine's error answer may be unread
        except BaseException:
            connection.close()  # the engine must not wait for the rest, or take it as complete
            raise
        return checked(connection.response())


def resolve_endpoint(host: str = "") -> engine_address.Endpoint:
    """Return the endpoint for the global options, the environment and the context in use.

    ``host`` overrides the option ``--host``.

    :raises CliError: when the options conflict or the context cannot be read.
    """
    host = host or engine_address.ConnectionOptions.host
    if host and engine_address.ConnectionOptions.context:
        raise CliError("conflicting options: either specify --host or --context, not both")
    if not host and not engine_address.ConnectionOptions.context:
        host = environ_text("JAULA_HOST") or environ_text("DOCKER_HOST")
    name = engine_address.DEFAULT if host else engine_address.current_context()
    if name != engine_address.DEFAULT:
        from jaula.cli.client import contexts

        return contexts.resolve(name)
    return engine_address.Endpoint(
        host, engine_address.tls_options() if engine_address.is_tcp(host) else None
    )


def _encoded(body: object) -> bytes:
    return fast_json.encode(body).encode("utf-8", "surrogateescape")


def checked(response: Response) -> Response:
    """Return ``response``.

    :raises EngineError: when it has an error status.
    """
    if response.status >= 400:
        raise engine_error(response.status, response.read())
    return response


def engine_error(status: int, content: bytes) -> EngineError:
    """Return the exception for an error answer of the engine."""
    try:
        document = fast_json.decode(content)
        message = document["message"]
    except (ValueError, KeyError, TypeError):
        message = content.decode("utf-8", "replace").strip() or f"HTTP status {status}"
    return EngineError(status, str(message))


def filters(pairs: Iterable[str]) -> str:
    """Return the ``filters`` parameter of the API for ``--filter key=value`` flags.

    :raises UsageError: when a filter has no ``=``.
    """
    values: dict[str, dict[str, bool]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            from jaula.cli.cli_errors import UsageError

            raise UsageError(f"bad format of filter (expected name=value): {pair!r}")
        values.setdefault(name.strip().lower(), {})[value.strip()] = True
    return fast_json.encode(values) if values else ""
