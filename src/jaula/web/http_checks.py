"""Checks of every request before a route sees it, and the headers of every answer.

The checks answer three attacks of a page that the user has open elsewhere: a name that resolves to
this address (DNS rebinding: the header Host), a request that the browser sends with the cookie
(cross-site request forgery: the headers Origin and Sec-Fetch-Site, and a token), and a frame.

Source: the Fetch standard, "Origin header"; W3C Fetch Metadata; CSP level 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
DATA_POLICY = "sandbox; default-src 'none'; frame-ancestors 'none'"
"""Of what the engine or a container sent, in case that a browser shows it as a page."""

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=()"),
)
_STRICT_TRANSPORT = (b"strict-transport-security", b"max-age=31536000")
_SAFE = ("GET", "HEAD")
MAX_HEADERS = 64 * 1024  # bytes


def refusal(
    kind: str, method: str, headers: dict[bytes, bytes], hosts: frozenset[str], own: frozenset[str]
) -> str:
    """Return why a request is refused, empty if it is not. Pure.

    ``kind`` is ``http`` or ``websocket``. ``own`` are the origins of this view.
    """
    if headers.get(b"host", b"").decode("latin-1").lower() not in hosts:
        return "this name does not lead to the web view: add it to hosts in web.toml"
    origin = headers.get(b"origin", b"").decode("latin-1").lower()
    if kind == "websocket" or method not in _SAFE:
        if origin not in own:
            return "a page of another origin sent this request"
    elif origin and origin not in own:
        return "a page of another origin sent this request"
    if kind == "websocket" or method not in _SAFE:
        site = headers.get(b"sec-fetch-site", b"same-origin")
        if site != b"same-origin":
            return "a page of another site sent this request"
    return ""


class HttpChecks:
    """The middleware around the whole application."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], url: str) -> None:
        self._app = app
        self._hosts = hosts
        scheme = url.partition("://")[0]
        self._own = frozenset(f"{scheme}://{host}" for host in hosts)
        self._tls = scheme == "https"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on and complete the answer."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        method = scope.get("method", "GET")
        why = refusal(scope["type"], method, headers, self._hosts, self._own)
        if why:
            await _refuse(scope, receive, self._completed(send), why)
            return
        await self._app(scope, receive, self._completed(send))

    def _completed(self, send: Send) -> Callable[[Message], Any]:
        async def complete(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                more = list(_HEADERS)
                if b"content-security-policy" not in present:
                    more.append((b"content-security-policy", POLICY.encode()))
                if b"cache-control" not in present:
                    more.append((b"cache-control", b"no-store"))
                if self._tls:
                    more.append(_STRICT_TRANSPORT)
                message["headers"] = [*message["headers"], *more]
            await send(message)

        return complete


async def _refuse(scope: Scope, receive: Receive, send: Send, why: str) -> None:
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    from starlette.responses import JSONResponse

    await JSONResponse({"message": why}, 421 if "name" in why else 403)(scope, receive, send)
