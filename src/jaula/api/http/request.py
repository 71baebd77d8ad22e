"""One request, as a route sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import msgspec

from jaula.api.backend import Backend
from jaula.api.http.errors import TooLarge
from jaula.api.http.query import Query
from jaula.api.http.response import Answer
from jaula.errors import InvalidRequest
from jaula.spec.api_params import Origin
from jaula.spec.decode import decode

MAX_DOCUMENT = 4 * 1024 * 1024  # bytes of a JSON body

_Document = TypeVar("_Document", bound=msgspec.Struct)


class Request:
    """The parsed head of a request, its body to be read on demand, and the engine.

    ``name`` is the variable part of the path, decoded; ``version`` the API version in the path.
    ``upgrade`` is true where the client asked to switch protocols.
    """

    __slots__ = ("_headers", "body", "engine", "name", "peer", "query", "upgrade", "version")

    def __init__(
        self,
        engine: Backend,
        name: str,
        query: Query,
        headers: dict[bytes, bytes],
        version: tuple[int, int],
        body: Callable[[], AsyncIterator[bytes]],
        peer: Origin | None,
    ) -> None:
        self.engine = engine
        self.name = name
        self.query = query
        self._headers = headers
        self.version = version
        self.body = body
        self.peer = peer
        self.upgrade = b"upgrade" in headers

    def header(self, name: bytes) -> str:
        """A header by its lower-case name, empty where absent."""
        return self._headers.get(name, b"").decode("latin-1")

    async def _document_bytes(self) -> bytes:
        if int(self._headers.get(b"content-length", b"0")) > MAX_DOCUMENT:
            raise TooLarge(f"the body is larger than {MAX_DOCUMENT} bytes, which is the limit")
        data = bytearray()
        async for chunk in self.body():
            data += chunk
            if len(data) > MAX_DOCUMENT:
                raise TooLarge(f"the body is larger than {MAX_DOCUMENT} bytes, which is the limit")
        return bytes(data)

    async def document(self, kind: type[_Document], *, required: bool = False) -> _Document:
        """The JSON body as a typed document; raises :class:`InvalidRequest` naming the member.

        No body is an empty document unless ``required``.
        """
        data = await self._document_bytes()
        if not data:
            if required:
                raise InvalidRequest("invalid JSON: got EOF while reading request body")
            return decode(b"", kind)
        media, _, _ = self.header(b"content-type").partition(";")
        if media.strip().lower() not in ("", "application/json"):
            raise InvalidRequest(
                f"unsupported Content-Type header ({media[:80]}): must be 'application/json'"
            )
        try:
            return decode(data, kind)
        except msgspec.ValidationError as problem:
            raise InvalidRequest(f"invalid request body: {problem}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            raise InvalidRequest(f"invalid JSON: {problem}") from None
        except RecursionError:
            raise InvalidRequest("invalid JSON: nested too deep") from None

    async def body_size(self) -> int:
        """Bytes of a body that is read and dropped."""
        return len(await self._document_bytes())

    async def ignore_body(self) -> None:
        """Read and drop a body that has no meaning here (bounded as a document is)."""
        await self._document_bytes()


Handler = Callable[[Request], Awaitable[Answer]]
