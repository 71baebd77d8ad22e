"""One request as a route sees it, and its query, which is read as Docker's server reads it.

Source: moby ``api/server/httputils/form.go`` (BoolValue, Int64ValueOrZero), ``api/types/filters``
(FromJSON) and ``api/types/time`` (ParseTimestamps). Percent decoding is implemented here, since
``urllib.parse`` needs more memory than the whole of this package.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from jaula.api.http.http_errors import Busy, TooLarge
from jaula.api.http.response import Answer
from jaula.caller_quota import CallerQuota
from jaula.errors import InvalidRequest
from jaula.spec.api_params import Origin
from jaula.spec.decode import decode
from jaula.spec.json_syntax import syntax_error

if TYPE_CHECKING:
    from jaula.engine.authz.gateway import EngineApi

MAX_DOCUMENT = 4 * 1024 * 1024  # bytes of a JSON body
_MAX_PARAMETERS = 1024  # of a query
_MAX_FILTER_VALUES = 1024  # of one request: each is compared with each object
_FALSE = frozenset({"", "0", "no", "false", "none"})
_FILTER_HINT = 'write {"name": ["value"]} or {"name": {"value": true}}'
_SHORT_DOCUMENT = 64 * 1024  # bytes of a document that needs no thread
_MAX_SCANNED = 64 * 1024  # bytes of a broken document in which the error is looked up
_HEX_DIGITS = b"0123456789abcdefABCDEF"

_Document = TypeVar("_Document", bound=msgspec.Struct)
_decoding = threading.Lock()


def _decode_long(data: bytearray, kind: type[_Document]) -> _Document:
    """Decode one document at a time: until it is checked, it may take 25 times its bytes."""
    with _decoding:
        return decode(data, kind)


def unquote(text: str) -> str:
    """Replace percent escapes; bytes that are not UTF-8 become U+FFFD.

    :raises InvalidRequest: when an escape is malformed.
    """
    if "%" not in text:
        return text
    first, *rest = text.encode("utf-8", "replace").split(b"%")
    data = bytearray(first)
    for part in rest:
        digits = part[:2]
        if len(digits) < 2 or digits.strip(_HEX_DIGITS):
            escape = "%" + digits.decode("ascii", "replace")
            raise InvalidRequest(f"invalid URL escape {escape!r}")
        data.append(int(digits, 16))
        data += part[2:]
    return data.decode("utf-8", "replace")


class Query:
    """The query parameters of one request. An absent parameter reads as the empty string.

    :raises InvalidRequest: when the query has too many parameters or a malformed escape.
    """

    __slots__ = ("_values",)

    def __init__(self, text: str = "") -> None:
        self._values: dict[str, list[str]] = {}
        if not text:
            return
        pairs = text.split("&", _MAX_PARAMETERS)
        if len(pairs) > _MAX_PARAMETERS:
            raise InvalidRequest(f"the query holds more than {_MAX_PARAMETERS} parameters")
        for pair in pairs:
            if pair:
                name, _, value = pair.replace("+", " ").partition("=")
                self._values.setdefault(unquote(name), []).append(unquote(value))

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str) -> str:
        """Return the first value."""
        values = self._values.get(name)
        return values[0] if values else ""

    def texts(self, name: str) -> list[str]:
        """Return every value, in order."""
        return self._values.get(name, [])

    def optional(self, name: str) -> str | None:
        """Return the first value; None if it is absent or empty."""
        return self.text(name) or None

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a boolean as Docker reads it: 0, no, false, none and an empty value are false."""
        if name not in self._values:
            return default
        return self.text(name).strip().lower() not in _FALSE

    def integer(self, name: str) -> int | None:
        """Return a decimal integer of at most 64 bits; None if absent.

        :raises InvalidRequest: when the value is not an integer.
        """
        value = self.text(name).strip()
        if not value:
            return None
        digits = value[1:] if value[0] in "+-" else value
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= 19):
            raise InvalidRequest(f"{name} {value[:40]!r} is not an integer")
        return int(value)

    def timestamp(self, name: str) -> float | None:
        """Return a time in seconds since 1970; None if absent.

        :raises InvalidRequest: when the value is not a time.
        """
        nanoseconds = self.nanoseconds(name)
        return None if nanoseconds is None else nanoseconds / 1e9

    def nanoseconds(self, name: str) -> int | None:
        """Return a time in nanoseconds since 1970; None if absent.

        The value is seconds with a fraction, of which nine digits count.

        :raises InvalidRequest: when the value is not a time.
        """
        value = self.text(name).strip()
        if not value:
            return None
        seconds, _, fraction = value.partition(".")
        whole = seconds.removeprefix("-")
        digits = (whole or "0") + (fraction or "0")
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= 30):
            raise InvalidRequest(
                f"{name} {value[:40]!r} is not a time", hint="write seconds since 1970"
            )
        nanoseconds = int(whole or "0") * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
        return -nanoseconds if seconds.startswith("-") else nanoseconds

    def filters(self) -> dict[str, list[str]]:
        """Return the ``filters``: ``{"name": {"value": true}}`` or ``{"name": ["value"]}``.

        :raises InvalidRequest: when the document has another form, or too many values.
        """
        value = self.text("filters")
        if not value:
            return {}
        try:
            document = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
            document = None
        if not isinstance(document, dict):
            raise InvalidRequest("invalid filter", hint=_FILTER_HINT)
        filters = {name: _filter_values(values) for name, values in document.items()}
        number = sum(map(len, filters.values()))
        if number > _MAX_FILTER_VALUES:
            raise InvalidRequest(
                f"the filters hold {number} values; at most {_MAX_FILTER_VALUES} are allowed"
            )
        return filters


def _filter_values(values: object) -> list[str]:
    if isinstance(values, dict) and all(isinstance(v, bool) for v in values.values()):
        return [text for text, enabled in values.items() if enabled]
    if isinstance(values, list) and all(isinstance(v, str) for v in values):
        return list(values)
    if values is None:
        return []
    raise InvalidRequest("invalid filter", hint=_FILTER_HINT)


def _check_media_type(text: str) -> None:
    """Check the media type of a body as Docker does; a body without one is an error there, too.

    :raises InvalidRequest: when it is not JSON.
    """
    media, _, rest = text.partition(";")
    media, parameters = media.strip(), [part.strip() for part in rest.split(";")]
    reason = ""
    if not media:
        reason = "mime: no media type"
    elif any(not name or not equals for name, equals, _ in (p.partition("=") for p in parameters)):
        reason = "mime: invalid media parameter" if rest.strip() else ""
    if reason:
        raise InvalidRequest(f"malformed Content-Type header ({text[:80]}): {reason}")
    if media.lower() != "application/json":
        raise InvalidRequest(
            f"unsupported Content-Type header ({media[:80]}): must be 'application/json'"
        )


_GO_KINDS = {
    "str": "string",
    "int": "number",
    "float": "number",
    "bool": "bool",
    "array": "array",
    "object": "object",
    "null": "null",
}
_GO_TYPES = {"str": "string", "int": "int64", "bool": "bool", "float": "float64"}


def _type_error(text: str) -> str:
    """Return msgspec's error about a member of a wrong type in the words of Go's decoder.

    Go also names its structures, which clients cannot know.
    """
    what, _, path = text.partition(" - at `$")
    expected, _, got = what.partition(", got ")
    names = expected.removeprefix("Expected ").partition("`")[2].partition("`")[0]
    kind = _GO_KINDS.get(got.strip("`"), "number")
    type_name = names.split(" | ")[0]
    target = _GO_TYPES.get(type_name, type_name)
    member = path.rstrip("`").lstrip(".").replace("[...]", "")
    if not expected.startswith("Expected ") or not type_name:
        return text
    if not member:
        return f"json: cannot unmarshal {kind} into Go value of type {target}"
    return f"json: cannot unmarshal {kind} into Go struct field {member} of type {target}"


class Limits(msgspec.Struct, frozen=True):
    """Limits that the requests of all callers share.

    ``bodies`` are bytes of bodies in memory. ``transfers`` are requests that occupy a thread while
    their client sends or reads: archives, and the progress of a pull or push.
    """

    bodies: CallerQuota
    transfers: CallerQuota


class Request:
    """The parsed head of a request, its body to be read on demand, and the engine.

    ``name`` is the variable part of the path, decoded, and ``version`` the API version in the path.
    ``title`` is the method and path, for the audit log. ``chunks`` yields the body.
    """

    __slots__ = (
        "_chunks",
        "_headers",
        "_held",
        "_limits",
        "_title",
        "_transferring",
        "engine",
        "name",
        "peer",
        "query",
        "version",
    )

    def __init__(
        self,
        engine: EngineApi,
        name: str,
        query: Query,
        headers: dict[bytes, bytes],
        version: tuple[int, int],
        title: str,
        chunks: Callable[[], AsyncIterator[bytes]],
        limits: Limits,
        peer: Origin | None,
    ) -> None:
        self.engine = engine
        self.name = name
        self.query = query
        self._headers = headers
        self.version = version
        self._title = title
        self._chunks = chunks
        self._limits = limits
        self._held = 0  # bytes of the body in memory
        self._transferring = False
        self.peer = peer

    def header(self, name: bytes) -> str:
        """Return a header by its lower-case name; empty if absent."""
        return self._headers.get(name, b"").decode("latin-1")

    def archive(self) -> AsyncIterator[bytes]:
        """Return the chunks of a body that is not held in memory, as a transfer.

        :raises NotAuthorized: when the caller may not change anything.
        :raises Busy: when the caller has too many transfers.
        """
        self.engine.access.require_body(self._title)
        self.begin_transfer()
        return self._chunks()

    def begin_transfer(self) -> None:
        """Take a thread for as long as the request lasts, since it waits for the client.

        :raises Busy: when the caller has too many transfers.
        """
        access = self.engine.access
        if not self._limits.transfers.take(access.caller, 1, root=access.is_root):
            raise Busy("too many transfers are in progress", hint="wait until one has ended")
        self._transferring = True

    async def _document_bytes(self) -> bytearray:
        self.engine.access.require_body(self._title)
        if int(self._headers.get(b"content-length", b"0")) > MAX_DOCUMENT:
            raise TooLarge(f"the body is larger than the limit of {MAX_DOCUMENT} bytes")
        data = bytearray()
        async for chunk in self._chunks():
            if len(data) + len(chunk) > MAX_DOCUMENT:
                raise TooLarge(f"the body is larger than the limit of {MAX_DOCUMENT} bytes")
            self._hold(len(chunk))
            data += chunk
        return data

    def _hold(self, size: int) -> None:
        access = self.engine.access
        if not self._limits.bodies.take(access.caller, size, root=access.is_root):
            raise Busy("the bodies of all requests take too much memory", hint="try again")
        self._held += size

    def forget_body(self) -> None:
        """Give back the memory of the body, which no route reads any more."""
        if self._held:
            self._limits.bodies.give_back(self.engine.access.caller, self._held)
            self._held = 0

    def end(self) -> None:
        """Give back everything at the end of the request."""
        self.forget_body()
        if self._transferring:
            self._limits.transfers.give_back(self.engine.access.caller, 1)
            self._transferring = False

    async def document(self, kind: type[_Document], *, required: bool = False) -> _Document:
        """Return the JSON body as a typed document. An absent body is an empty document.

        :raises InvalidRequest: when the body is invalid, or absent and ``required``. The text names
            the member.
        :raises TooLarge: when the body is larger than the limit.
        """
        data = await self._document_bytes()
        if not data:
            if required:
                raise InvalidRequest("invalid JSON: got EOF while reading request body")
            return decode(b"", kind)
        _check_media_type(self.header(b"content-type"))
        try:
            if len(data) <= _SHORT_DOCUMENT:
                return decode(data, kind)
            return await asyncio.to_thread(_decode_long, data, kind)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"invalid JSON: {_type_error(str(error))}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            text = syntax_error(bytes(data)) if len(data) <= _MAX_SCANNED else ""
            raise InvalidRequest(text or f"invalid JSON: {error}") from None
        except RecursionError:
            raise InvalidRequest("invalid JSON: nested too deep") from None

    async def body_size(self) -> int:
        """Read and drop the body; return its size in bytes."""
        return len(await self._document_bytes())

    async def ignore_body(self) -> None:
        """Read and drop a body that the route does not use; limited like a document."""
        await self._document_bytes()


Handler = Callable[[Request], Awaitable[Answer]]
