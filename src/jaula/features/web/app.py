"""The web application: its routes, logins and sessions.

The identifier of a session is in the body of a login's answer, and comes back in the header
``Authorization: Bearer`` of each request, and in the first message of each WebSocket. No cookie is
set, and none is read: every port of the host name would receive it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from jaula.errors import InvalidRequest, JaulaError, NotAuthorized
from jaula.features.web import archive_files, web_proxy
from jaula.features.web.downloads import Downloads
from jaula.features.web.http_checks import HttpChecks
from jaula.features.web.sessions import LoginLimiter, Sessions
from jaula.features.web.static_files import StaticFiles
from jaula.features.web.web_config import allowed_hosts
from jaula.spec.api_params import WebUser

if TYPE_CHECKING:
    from jaula.features.web.engine_client import EngineClient
    from jaula.features.web.oidc import Provider
    from jaula.features.web.session_file import SessionFile
    from jaula.features.web.sessions import Session
    from jaula.features.web.web_config import WebConfig

MAX_LOGIN = 16384  # bytes of the body of a login, or of the request of a download
_LOGIN_SECONDS = 10.0  # for the body of a login
_FIRST_MESSAGE_SECONDS = 10.0  # for the message with the session of a WebSocket
_MAX_FIRST_MESSAGE = 1024  # bytes
_LOGGED_OUT = 4401  # close code of a WebSocket whose session ended
_FILES, _API = "/files/", "/api/"

Redeem = Callable[[str], Awaitable[WebUser]]
"""Returns the user of a one-time link."""

_log = logging.getLogger("jaula.features.web")


class WebApp:
    """The application for one engine. ``url`` is its own address, as browsers reach it."""

    def __init__(
        self,
        config: WebConfig,
        engine: EngineClient,
        redeem: Redeem,
        url: str,
        *,
        provider: Provider | None = None,
        static: StaticFiles | None = None,
        session_file: SessionFile | None = None,
    ) -> None:
        self._config = config
        self._engine = engine
        self._redeem = redeem
        self._url = url
        self._provider = provider
        self._static = static or StaticFiles()
        self.sessions = Sessions(
            lifetime=config.session_hours * 3600,
            idle=config.idle_minutes * 60,
            file=session_file,
        )
        self._limiter = LoginLimiter()
        self._downloads = Downloads()
        self.routes = [
            Route("/", self._page),
            Route("/login", self._login_page, methods=["GET"]),
            Route("/login", self._login, methods=["POST"]),
            Route("/login/certificate", self._login_certificate, methods=["POST"]),
            Route("/login/oidc", self._oidc_begin, methods=["POST"]),
            Route("/login/oidc/callback", self._login_page, methods=["GET"]),
            Route("/login/oidc/callback", self._oidc_finish, methods=["POST"]),
            Route("/logout", self._logout, methods=["POST"]),
            Route("/session", self._session_document),
            Route("/static/{name:path}", self._static_file),
            Route("/files/{ref}", self._file),
            Route("/downloads", self._new_download, methods=["POST"]),
            Route("/downloads/{token}", self._download),
            Route("/api/{path:path}", self._api, methods=["GET", "HEAD", "POST", "PUT", "DELETE"]),
            WebSocketRoute("/stream", self._stream),
            WebSocketRoute("/terminal", self._terminal),
        ]

    def asgi(self) -> Any:
        """Return the application with the checks around it."""
        app = Starlette(
            routes=self.routes,
            exception_handlers={JaulaError: _error, Exception: _unexpected},
        )
        return HttpChecks(app, allowed_hosts(self._config, self._url), self._url)

    # -- sessions --------------------------------------------------------------------------------

    def require(self, request: Request) -> Session:
        """Return the session of a request.

        :raises NotAuthorized: when there is none.
        """
        session = self.sessions.find(_identifier(request))
        if session is None:
            error = NotAuthorized("log in first", hint="jaula web --open")
            error.status = 401
            raise error
        return session

    def _begin(self, user: WebUser, method: str, request: Request) -> Response:
        """Begin a session, end that of the same page, and answer with the new identifier."""
        self.sessions.end(_identifier(request))
        user = msgspec.structs.replace(user, address=_address(request))
        identifier, _ = self.sessions.create(user, method)
        return JSONResponse({"session": identifier})

    async def _session_document(self, request: Request) -> Response:
        session = self.sessions.find(_identifier(request))
        methods = {
            "certificate": _certificate(request) is not None,
            "oidc": self._provider.name if self._provider else "",
        }
        if session is None:
            return JSONResponse({"methods": methods})
        user = session.user
        name = user.name or user.certificate or ("" if user.uid is None else str(user.uid))
        return JSONResponse({"user": name, "method": session.method})

    async def _logout(self, request: Request) -> Response:
        self.require(request)
        self.sessions.end(_identifier(request))
        return Response(status_code=204)

    # -- logins ----------------------------------------------------------------------------------

    async def _attempt(self, request: Request, prove: Awaitable[WebUser]) -> WebUser:
        """Return the user that ``prove`` finds, and count a failure.

        :raises JaulaError: when the login fails, or too many have failed.
        """
        address = _address(request)
        try:
            self._limiter.check(address)
        except NotAuthorized:
            if asyncio.iscoroutine(prove):
                prove.close()
            raise
        try:
            return await prove
        except NotAuthorized as error:
            self._limiter.fail(address)
            _log.warning("a login from %s failed: %s", address, error)
            raise

    async def _login(self, request: Request) -> Response:
        code = _text(await _fields(request), "code")
        user = await self._attempt(request, self._redeem(code))
        return self._begin(user, "link", request)

    async def _login_certificate(self, request: Request) -> Response:
        async def prove() -> WebUser:
            user = _certificate(request)
            if user is None:
                raise NotAuthorized("the browser sent no certificate that this view trusts")
            return user

        user = await self._attempt(request, prove())
        return self._begin(user, "certificate", request)

    async def _oidc_begin(self, request: Request) -> Response:
        provider = self._require_provider()
        self._limiter.check(_address(request))
        if request.headers.get("origin", "").lower() != self._url.lower():
            # The provider leads back there, where this page's storage is not.
            raise InvalidRequest(
                "a login of the provider begins at the address of the view",
                hint=f"open {self._url}",
            )
        target, browser = await provider.begin(f"{self._url}/login/oidc/callback")
        return JSONResponse({"url": target, "login": browser})

    async def _oidc_finish(self, request: Request) -> Response:
        """Finish a login for the page to which the provider has led the browser."""
        provider = self._require_provider()
        fields = await _fields(request)
        browser, answer = _text(fields, "login"), dict(parse_qsl(_text(fields, "answer")))
        user = await self._attempt(request, provider.finish(answer, browser))
        return self._begin(user, "oidc", request)

    def _require_provider(self) -> Provider:
        if self._provider is None:
            error = InvalidRequest("no OpenID Connect provider is configured")
            error.status = 404
            raise error
        return self._provider

    # -- pages, API and streams ------------------------------------------------------------------

    async def _page(self, request: Request) -> Response:
        return self._static.response(request, "index.html")

    async def _login_page(self, request: Request) -> Response:
        """Answer with the page, which no cache keeps: its address may have a provider's code."""
        page = self._static.response(request, "index.html")
        page.headers["Cache-Control"] = "no-store"
        return page

    async def _static_file(self, request: Request) -> Response:
        return self._static.response(request, request.path_params["name"])

    async def _api(self, request: Request) -> Response:
        return await web_proxy.forward(request, self._engine, self.require(request))

    async def _file(self, request: Request) -> Response:
        session, ref = self.require(request), request.path_params["ref"]
        return await archive_files.download(ref, request.query_params, self._engine, session)

    async def _new_download(self, request: Request) -> Response:
        session = self.require(request)
        path = _text(await _fields(request), "path")
        if not path.startswith((_FILES, _API)) or not path.isascii() or not path.isprintable():
            raise InvalidRequest(
                f"the path {path[:80]!r} of a download is not one of this view",
                hint=f"it begins with {_FILES} or {_API}",
            )
        return JSONResponse({"url": f"/downloads/{self._downloads.create(session, path)}"}, 201)

    async def _download(self, request: Request) -> Response:
        """Answer a one-time address, which the link of a page follows without a header."""
        if request.method != "GET":
            return Response(status_code=405, headers={"Allow": "GET"})
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise NotAuthorized("a page of another origin sent this request")
        session, target = self._downloads.take(request.path_params["token"])
        if target.startswith(_API):
            return await web_proxy.save(target.removeprefix("/api"), self._engine, session)
        path, _, query = target.partition("?")
        ref = unquote(path.removeprefix(_FILES))
        return await archive_files.download(ref, dict(parse_qsl(query)), self._engine, session)

    async def _stream(self, socket: WebSocket) -> None:
        await self._with_session(
            socket, lambda session: web_proxy.StreamSocket(socket, self._engine, session).run()
        )

    async def _terminal(self, socket: WebSocket) -> None:
        await self._with_session(
            socket, lambda session: web_proxy.terminal(socket, self._engine, session)
        )

    async def _with_session(
        self, socket: WebSocket, serve: Callable[[Session], Awaitable[None]]
    ) -> None:
        """Serve a WebSocket until it ends, or its session does.

        A page of a browser cannot give a WebSocket a header: its first message has the session.
        """
        await socket.accept()
        try:
            async with asyncio.timeout(_FIRST_MESSAGE_SECONDS):
                identifier = _first_message(await socket.receive())
        except TimeoutError:
            identifier = ""
        except WebSocketDisconnect:
            return
        session = self.sessions.find(identifier)
        if session is None:
            await socket.close(_LOGGED_OUT)
            return
        task = asyncio.ensure_future(serve(session))
        session.closers.add(task.cancel)
        try:
            await asyncio.wait((task,))
            if task.cancelled():
                await socket.close(_LOGGED_OUT)
            else:
                task.result()
        finally:
            task.cancel()
            session.closers.discard(task.cancel)


def _identifier(request: Request) -> str:
    """Return the identifier of the session that a request names; '' if it names none."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value if scheme.lower() == "bearer" else ""


def _first_message(message: Mapping[str, Any]) -> str:
    """Return the identifier of the session in the first message of a WebSocket, or ''.

    :raises WebSocketDisconnect: when the page has closed it.
    """
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    text = message.get("text") or ""
    if len(text) > _MAX_FIRST_MESSAGE:
        return ""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    identifier = document.get("session") if isinstance(document, dict) else None
    return identifier if isinstance(identifier, str) else ""


async def _fields(request: Request) -> dict[str, Any]:
    """Return the fields of the body of a request to the view itself.

    :raises InvalidRequest: when the body is not valid.
    """
    data = bytearray()
    try:
        async with asyncio.timeout(_LOGIN_SECONDS):
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_LOGIN:
                    raise InvalidRequest("the body of the request is too large")
    except TimeoutError:
        raise InvalidRequest(f"the body of the request took over {_LOGIN_SECONDS:g} s") from None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidRequest("the body of the request is not a JSON document") from None
    if not isinstance(document, dict):
        raise InvalidRequest("the body of the request is not a JSON object")
    return document


def _text(fields: Mapping[str, Any], name: str) -> str:
    """Return a field of a request.

    :raises InvalidRequest: when it is missing, or not text.
    """
    value = fields.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f'the body of the request must be {{"{name}": TEXT}}')
    return value


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _certificate(request: Request) -> WebUser | None:
    """Return the user of the client certificate that the server has verified."""
    user = request.scope.get("state", {}).get("certificate")
    return user if isinstance(user, WebUser) else None


async def _error(_: Request, error: Exception) -> Response:
    assert isinstance(error, JaulaError)
    return web_proxy.error_response(error)


async def _unexpected(_: Request, error: Exception) -> Response:
    return JSONResponse({"message": f"internal error ({type(error).__name__})"}, 500)
