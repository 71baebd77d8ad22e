"""Checks of every request before a route sees it, and the headers of every answer.

The checks answer three attacks of a page that the user has open elsewhere: a name that resolves to
this address (DNS rebinding: the header Host), a request that the browser sends (cross-site request
forgery: the headers Origin and Sec-Fetch-Site), and a frame. A page of another origin, which may be
another port of this host, cannot send the header with the session either.

Source: the Fetch standard, "Origin header"; W3C Fetch Metadata; CSP level 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

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
_FORBIDDEN, _MISDIRECTED = 403, 421  # RFC 9110


class Refusal(NamedTuple):
    """Why a request is refused, and the status of the answer."""

    status: int
    reason: str


def refusal(
    kind: str, method: str, headers: dict[bytes, bytes], hosts: frozenset[str], own: frozenset[str]
) -> Refusal | None:
    """Return why a request is refused, None if it is not. Pure.

    ``kind`` is ``http`` or ``websocket``. ``own`` are the origins of this view.
    """
    if headers.get(b"host", b"").decode("latin-1").lower() not in hosts:
        reason = "this name does not lead to the web view: add it to hosts in web.toml"
        return Refusal(_MISDIRECTED, reason)
    changes = kind == "websocket" or method not in _SAFE
    origin = headers.get(b"origin", b"").decode("latin-1").lower()
    if (changes or origin) and origin not in own:
        return Refusal(_FORBIDDEN, "a page of another origin sent this request")
    if changes and headers.get(b"sec-fetch-site", b"same-origin") != b"same-origin":
        return Refusal(_FORBIDDEN, "a page of another site sent this request")
    return None


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
        refused = refusal(scope["type"], method, headers, self._hosts, self._own)
        if refused is not None:
            await _refuse(scope, receive, self._completed(send), refused)
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


async def _refuse(scope: Scope, receive: Receive, send: Send, refused: Refusal) -> None:
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        await send({"type": "websocket.close", "code": 1008, "reason": refused.reason})
        return
    from starlette.responses import JSONResponse

    await JSONResponse({"message": refused.reason}, refused.status)(scope, receive, send)
