"""The web application: its routes, logins and sessions."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from jaula.errors import InvalidRequest, JaulaError, NotAuthorized
from jaula.spec.api_params import WebUser
from jaula.web import archive_files, proxy
from jaula.web.config import OIDC_LOGIN_SECONDS, allowed_hosts
from jaula.web.http_checks import HttpChecks
from jaula.web.sessions import LoginLimiter, Sessions
from jaula.web.static_files import StaticFiles

if TYPE_CHECKING:
    from jaula.web.config import WebConfig
    from jaula.web.engine_client import EngineClient
    from jaula.web.oidc import Provider
    from jaula.web.session_file import SessionFile
    from jaula.web.sessions import Session

MAX_LOGIN = 4096  # bytes of the body of a login
_LOGIN_SECONDS = 10.0  # for the body of a login
_LOGGED_OUT = 4401  # close code of a WebSocket whose session ended

Redeem = Callable[[str], Awaitable[WebUser]]
"""Returns the user of a one-time link."""

_log = logging.getLogger("jaula.web")


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
        self._tls = url.startswith("https://")
        prefix = "__Host-" if self._tls else ""
        self._cookie = f"{prefix}jaula-session-{url.rpartition(':')[2].strip('/')}"
        self._state_cookie = f"{prefix}jaula-oidc"
        self.routes = [
            Route("/", self._page),
            Route("/login", self._login_page, methods=["GET"]),
            Route("/login", self._login, methods=["POST"]),
            Route("/login/certificate", self._login_certificate, methods=["POST"]),
            Route("/login/oidc", self._oidc_begin),
            Route("/login/oidc/callback", self._oidc_callback),
            Route("/logout", self._logout, methods=["POST"]),
            Route("/session", self._session_document),
            Route("/static/{name:path}", self._static_file),
            Route("/files/{ref}", archive_files.download(self._engine, self.require)),
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

    def _find(self, connection: Request | WebSocket) -> Session | None:
        return self.sessions.find(connection.cookies.get(self._cookie, ""))

    def require(self, request: Request) -> Session:
        """Return the session of a request, with its token if the request may change something.

        :raises NotAuthorized: when there is no session, or the token is another one.
        """
        session = self._find(request)
        if session is None:
            error = NotAuthorized("log in first", hint="jaula web --open")
            error.status = 401
            raise error
        if request.method not in ("GET", "HEAD") and not session.check_csrf(
            request.headers.get("x-csrf-token", "")
        ):
            raise NotAuthorized("the request lacks the token of its page", hint="reload the page")
        return session

    def _begin(self, user: WebUser, method: str, request: Request, answer: Response) -> Response:
        """Begin a session, end that of the same browser, and set the cookie of the answer."""
        self.sessions.end(request.cookies.get(self._cookie, ""))
        user = msgspec.structs.replace(user, address=_address(request))
        identifier, _ = self.sessions.create(user, method)
        answer.set_cookie(
            self._cookie, identifier, path="/", secure=self._tls, httponly=True, samesite="strict"
        )
        return answer

    async def _session_document(self, request: Request) -> Response:
        session = self._find(request)
        methods = {
            "certificate": _certificate(request) is not None,
            "oidc": self._provider.name if self._provider else "",
        }
        if session is None:
            return JSONResponse({"methods": methods})
        user = session.user
        name = user.name or user.certificate or ("" if user.uid is None else str(user.uid))
        return JSONResponse({"user": name, "method": session.method, "csrf": session.csrf})

    async def _logout(self, request: Request) -> Response:
        self.require(request)
        self.sessions.end(request.cookies.get(self._cookie, ""))
        answer = Response(status_code=204)
        answer.delete_cookie(
            self._cookie, path="/", secure=self._tls, httponly=True, samesite="strict"
        )
        return answer

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
        code = await _code(request)
        user = await self._attempt(request, self._redeem(code))
        return self._begin(user, "link", request, Response(status_code=204))

    async def _login_certificate(self, request: Request) -> Response:
        async def prove() -> WebUser:
            user = _certificate(request)
            if user is None:
                raise NotAuthorized("the browser sent no certificate that this view trusts")
            return user

        user = await self._attempt(request, prove())
        return self._begin(user, "certificate", request, Response(status_code=204))

    async def _oidc_begin(self, request: Request) -> Response:
        provider = self._require_provider()
        self._limiter.check(_address(request))
        target, state = await provider.begin(f"{self._url}/login/oidc/callback")
        answer = RedirectResponse(target, 303)
        answer.set_cookie(
            self._state_cookie,
            state,
            max_age=OIDC_LOGIN_SECONDS,
            path="/",
            secure=self._tls,
            httponly=True,
            samesite="lax",  # the provider's redirect comes from another site
        )
        return answer

    async def _oidc_callback(self, request: Request) -> Response:
        provider = self._require_provider()
        state = request.cookies.get(self._state_cookie, "")
        user = await self._attempt(request, provider.finish(dict(request.query_params), state))
        # The cookie is not sent with a redirect of another site, so the page loads the view itself.
        page = HTMLResponse('<!doctype html><meta http-equiv="refresh" content="0;url=/">')
        page.delete_cookie(self._state_cookie, path="/", secure=self._tls)
        return self._begin(user, "oidc", request, page)

    def _require_provider(self) -> Provider:
        if self._provider is None:
            error = InvalidRequest("no OpenID Connect provider is configured")
            error.status = 404
            raise error
        return self._provider

    # -- pages, API and streams ------------------------------------------------------------------

    async def _page(self, request: Request) -> Response:
        return self._static.response(request, "index.html")

    _login_page = _page

    async def _static_file(self, request: Request) -> Response:
        return self._static.response(request, request.path_params["name"])

    async def _api(self, request: Request) -> Response:
        return await proxy.forward(request, self._engine, self.require(request))

    async def _stream(self, socket: WebSocket) -> None:
        await self._with_session(
            socket, lambda session: proxy.StreamSocket(socket, self._engine, session).run()
        )

    async def _terminal(self, socket: WebSocket) -> None:
        await self._with_session(
            socket, lambda session: proxy.terminal(socket, self._engine, session)
        )

    async def _with_session(
        self, socket: WebSocket, serve: Callable[[Session], Awaitable[None]]
    ) -> None:
        """Serve a WebSocket until it ends, or its session does."""
        session = self._find(socket)
        await socket.accept()
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


async def _code(request: Request) -> str:
    """Return the code of the link in the body of a login.

    :raises InvalidRequest: when the body is not valid.
    """
    data = bytearray()
    try:
        async with asyncio.timeout(_LOGIN_SECONDS):
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_LOGIN:
                    raise InvalidRequest("the body of the login is too large")
    except TimeoutError:
        raise InvalidRequest(f"the body of the login took over {_LOGIN_SECONDS:g} s") from None
    try:
        return str(json.loads(data)["code"])
    except (ValueError, KeyError, TypeError):
        raise InvalidRequest('the body of the login must be {"code": TEXT}') from None


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _certificate(request: Request) -> WebUser | None:
    """Return the user of the client certificate that the server has verified."""
    user = request.scope.get("state", {}).get("certificate")
    return user if isinstance(user, WebUser) else None


async def _error(_: Request, error: Exception) -> Response:
    assert isinstance(error, JaulaError)
    return proxy.error_response(error)


async def _unexpected(_: Request, error: Exception) -> Response:
    return JSONResponse({"message": f"internal error ({type(error).__name__})"}, 500)
