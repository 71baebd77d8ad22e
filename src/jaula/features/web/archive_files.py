"""Download of one file of a container, taken out of the archive that the engine's API returns.

Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; tar(5) for numbers
in base 256.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from jaula.errors import InvalidRequest
from jaula.features.web.engine_client import API, engine_error
from jaula.features.web.http_checks import DATA_POLICY

if TYPE_CHECKING:
    from jaula.features.web.engine_client import EngineClient
    from jaula.features.web.sessions import Session

BLOCK = 512  # bytes
_MAX_EXTENDED = 1 << 20  # bytes of an extended header
_FILE, _EXTENDED = b"0\0", b"xgLK"


class Member(NamedTuple):
    """The first member of an archive. ``rest`` are the bytes of its content that were read."""

    is_file: bool
    size: int
    rest: bytes


def number(field: bytes) -> int:
    """Return a number of a header: octal digits, or base 256.

    :raises InvalidRequest: when it is not a number.
    """
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:])
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        raise InvalidRequest("the archive of the engine is not valid") from None


async def first_member(chunks: AsyncIterator[bytes]) -> Member:
    """Return the first member of an archive that is not an extended header.

    :raises InvalidRequest: when the archive is not valid or ends before it.
    """
    data = b""
    size: int | None = None

    async def need(count: int) -> None:
        nonlocal data
        while len(data) < count:
            try:
                data += await anext(chunks)
            except StopAsyncIteration:
                raise InvalidRequest("the archive of the engine ends early") from None

    while True:
        await need(BLOCK)
        header, data = data[:BLOCK], data[BLOCK:]
        length, kind = number(header[124:136]), header[156:157]
        if kind not in _EXTENDED or not kind:
            return Member(kind in _FILE, length if size is None else size, data)
        if length > _MAX_EXTENDED:
            raise InvalidRequest("the archive of the engine has a header that is too large")
        padded = -(-length // BLOCK) * BLOCK
        await need(padded)
        body, data = data[:length], data[padded:]
        size = _size_record(body) if kind == b"x" else size


def _size_record(body: bytes) -> int | None:
    while body:
        length, space, _ = body.partition(b" ")
        if not (space and length.isdigit() and 0 < int(length) <= len(body)):
            raise InvalidRequest("the archive of the engine has a header that is not valid")
        record, body = body[len(length) + 1 : int(length) - 1], body[int(length) :]
        key, _, value = record.partition(b"=")
        if key == b"size" and value.isdigit():
            return int(value)
    return None


async def download(
    ref: str, query: Mapping[str, str], engine: EngineClient, session: Session
) -> Response:
    """Answer ``/files/{ref}?path=PATH``: a file itself, or a directory as an archive."""
    path = query.get("path", "")
    target = f"{API}/containers/{quote(ref, safe='')}/archive?path={quote(path, safe='')}"
    answer = await engine.open("GET", target, session.user)
    if answer.status != 200:
        raise engine_error(answer.status, await answer.read())
    name = path.rstrip("/").rpartition("/")[2] or "root"
    if query.get("tar"):
        return _response(answer.chunks(), f"{name}.tar", None)
    chunks = answer.chunks()
    try:
        member = await first_member(chunks)
        if not member.is_file:
            raise InvalidRequest(f"{path} is not a file", hint="download it as an archive")
    except BaseException:
        answer.close()
        raise
    return _response(_content(chunks, member), name, member.size)


async def _content(chunks: AsyncIterator[bytes], member: Member) -> AsyncIterator[bytes]:
    left = member.size
    yield member.rest[:left]
    left -= len(member.rest[:left])
    async for chunk in chunks:
        if left:
            yield chunk[:left]
            left -= len(chunk[:left])


def _response(content: AsyncIterator[bytes], name: str, size: int | None) -> Response:
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "Content-Security-Policy": DATA_POLICY,
    }
    if size is not None:
        headers["Content-Length"] = str(size)
    return StreamingResponse(content, 200, headers, "application/octet-stream")
