"""The process of the web view: its socket, its registration at the engine, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Any

import h11
import msgspec
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from jaula import tls
from jaula.api.http.http_protocol import certified_peer
from jaula.errors import JaulaError, NotAuthorized, Unavailable
from jaula.features.web import session_file, web_config
from jaula.features.web.app import WebApp
from jaula.features.web.engine_client import EngineClient, EngineDown
from jaula.features.web.static_files import StaticFiles
from jaula.features.web.web_confinement import confine
from jaula.features.web.web_proxy import MAX_MESSAGE
from jaula.spec.api_params import WebUser

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.features.web.session_file import SessionFile
    from jaula.features.web.web_config import WebConfig

MAX_CONNECTIONS = 512
_RETRY = 1.0  # seconds between attempts to reach the engine
_GRACE = 2  # seconds for requests at the end
_EXPIRE = 10.0  # seconds between two checks for sessions that have ended
_HEAD_SECONDS = 15.0  # for the head of a request, so that idle connections leave room for users
_BACKLOG = 128

_log = logging.getLogger("jaula.features.web")


class ViewProtocol(H11Protocol):
    """uvicorn's protocol with a time limit for heads of requests.

    The verified certificate of a connection is in ``scope["state"]``.
    """

    _head_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Take data. A head that is not complete has :data:`_HEAD_SECONDS`."""
        super().data_received(data)
        self._limit_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        super().connection_lost(exc)
        if self._head_timer is not None:
            self._head_timer.cancel()

    def _limit_head(self) -> None:
        """Start the timer if a head is expected, stop it if the head has arrived."""
        if self.conn.their_state is not h11.IDLE:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(_HEAD_SECONDS, self.transport.close)

    def connection_made(self, transport: Any) -> None:
        """Begin a connection."""
        super().connection_made(transport)
        self._limit_head()
        secure = transport.get_extra_info("ssl_object")
        der = secure.getpeercert(binary_form=True) if secure is not None else None
        if der:
            peer = certified_peer("", secure.getpeercert()["subject"], der)
            name = peer.name or peer.fingerprint
            user = WebUser(certificate=name, fingerprint=peer.fingerprint)
            self.app_state = {**self.app_state, "certificate": user}


class WebServer:
    """A web view for the engine on a unix socket.

    An administrator's view serves every user, and is registered at the engine. That of another user
    serves this user only, and makes the links itself.
    """

    def __init__(self, config: WebConfig, engine_socket: str) -> None:
        self._config = config
        self._engine = EngineClient(engine_socket)
        self._socket = listen(*web_config.check(config))
        host, port = self._socket.getsockname()[:2]
        self.url = web_config.url_of(config, host, port)
        self._own_links: Any = None  # WebLogins

    def run(
        self,
        on_ready: Callable[[str], None],
        *,
        link: bool = False,
        until_stdin_ends: bool = False,
    ) -> None:
        """Serve until a signal. ``on_ready`` is called once, when the engine knows the view.

        It gets a link that logs in the user of this process; '' for a view of root without
        ``link``.

        With ``until_stdin_ends`` the end of the standard input is the end, too. A view of root
        confines itself first.
        """
        file = self._open_sessions()
        if os.geteuid() == 0 and not confine():
            _log.warning("the kernel has no Landlock: this process could write files of root")
        asyncio.run(self._run(on_ready, link, until_stdin_ends, file))

    def _open_sessions(self) -> SessionFile | None:
        """Open the file of the sessions, which a confined process could not."""
        socket_path, port = self._engine.socket, self._socket.getsockname()[1]
        digest = session_file.settings_digest(self._config, socket_path, self.url)
        directories = (os.path.dirname(socket_path), os.environ.get("XDG_RUNTIME_DIR", ""))
        return session_file.open_sessions(directories, port, digest)

    async def _run(
        self,
        on_ready: Callable[[str], None],
        link: bool,
        until_stdin_ends: bool,
        file: SessionFile | None,
    ) -> None:
        static = StaticFiles()
        static.require_vendor()
        provider = None
        if self._config.oidc is not None:
            from jaula.features.web.oidc import Provider

            provider = Provider(self._config.oidc)
        app = WebApp(
            self._config,
            self._engine,
            self._redeem,
            self.url,
            provider=provider,
            static=static,
            session_file=file,
        )
        config = uvicorn.Config(
            app.asgi(),
            http=ViewProtocol,
            ws="wsproto",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=_GRACE,
            ws_max_size=MAX_MESSAGE,
        )
        config.load()
        if self._config.tls is not None:
            config.ssl = tls_context(self._config.tls)
        server = uvicorn.Server(config)
        loop = asyncio.get_running_loop()
        if until_stdin_ends:
            loop.add_reader(sys.stdin.fileno(), lambda: setattr(server, "should_exit", True))
        follow = asyncio.create_task(self._follow_engine(on_ready, link))
        expire = asyncio.create_task(_expire(app))
        try:
            await server.serve(sockets=[self._socket])
        finally:
            for task in (follow, expire):
                task.cancel()
            await asyncio.gather(follow, expire, return_exceptions=True)
            app.sessions.store()

    async def _follow_engine(self, on_ready: Callable[[str], None], link: bool) -> None:
        """Register at the engine, again after each of its restarts."""
        ready = False
        while True:
            try:
                await self._register()
                if not ready:
                    link = link or self._own_links is not None  # only this process can make those
                    on_ready(await self._create_link() if link else "")
                    ready = True
                answer = await self._engine.open("GET", '/events?filters={"type":["daemon"]}')
                async for _ in answer.chunks():
                    pass
            except EngineDown as error:
                _log.debug("%s", error)
            except JaulaError as error:
                _log.error("cannot register at the engine: %s", error)
            await asyncio.sleep(_RETRY)

    async def _register(self) -> None:
        """Register at the engine, or prepare to make the links of an ordinary user here."""
        caller = await self._engine.document("GET", "/jaula/web/whoami")
        if caller["Admin"]:
            self._own_links = None
            await self._engine.document("PUT", "/jaula/web/server", None, {"Url": self.url})
        elif self._own_links is None:
            from jaula.features.web.logins import WebLogins

            self._own_links = WebLogins()
            self._own_links.url = self.url

    async def _create_link(self) -> str:
        """Return a link for the user of this process."""
        if self._own_links is not None:
            return f"{self.url}/login#{self._own_links.create(_own_user())}"
        link = await self._engine.document("POST", "/jaula/web/links")
        return str(link["Url"])

    async def _redeem(self, code: str) -> WebUser:
        """Return the user of a link.

        :raises NotAuthorized: when the code is not valid.
        """
        if self._own_links is not None:
            user: WebUser = self._own_links.redeem(code)
            return user
        try:
            document = await self._engine.document(
                "POST", "/jaula/web/logins", None, {"Code": code}
            )
        except JaulaError as error:
            if error.status == NotAuthorized.status:
                raise NotAuthorized(str(error)) from None
            raise
        return named(msgspec.convert(document, WebUser))


def named(user: WebUser) -> WebUser:
    """Return a user with the name that the host has for the uid.

    A rootless engine is in a user namespace, where the user of this process has the uid 0.
    """
    import pwd

    if user.uid is None:
        return user
    with contextlib.suppress(KeyError):
        name = pwd.getpwuid(user.uid or os.geteuid()).pw_name
        return msgspec.structs.replace(user, name=name)
    return user


def _own_user() -> WebUser:
    groups = tuple(os.getgroups())
    return named(WebUser(uid=os.geteuid(), gid=os.getegid(), groups=groups))


async def _expire(app: WebApp) -> None:
    while True:
        await asyncio.sleep(_EXPIRE)
        app.sessions.expire()
        app.sessions.store()


def listen(host: str, port: int) -> socket.socket:
    """Return the listening socket.

    :raises Unavailable: when the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise Unavailable(
            f"cannot listen on {host} port {port}: {error.strerror}",
            hint="a web view that runs is opened by jaula web --open; another address is chosen"
            " with --listen 127.0.0.1:PORT",
        ) from None
    return sock


def tls_context(files: web_config.TlsFiles) -> ssl.SSLContext:
    """Return the TLS context. A browser may have a certificate of the authority, or none.

    :raises InvalidRequest: when a file is missing or not valid.
    """
    context = tls.server_context(tls.TlsFiles(files.client_ca, files.cert, files.key))
    if files.client_ca:
        context.verify_mode = ssl.CERT_OPTIONAL
    return context
