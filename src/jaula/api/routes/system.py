"""The engine itself: ping, version, info, disk use, events, plugins."""

from __future__ import annotations

from jaula.api import compat
from jaula.api.http import response
from jaula.api.http.json_stream import lines
from jaula.api.http.request import Request
from jaula.api.http.response import Answer, Response, StreamResponse
from jaula.api.router import Routes
from jaula.errors import InvalidRequest, NotFound

_PING_HEADERS = (
    (b"Builder-Version", b"1"),
    (b"Cache-Control", b"no-cache, no-store, must-revalidate"),
    (b"Pragma", b"no-cache"),
    (b"Swarm", b"inactive"),
)

_DF_SECTIONS = {
    "container": ("Containers",),
    "image": ("Images", "LayersSize", "LayersReclaimable"),
    "volume": ("Volumes",),
    "build-cache": ("BuildCache", "BuilderSize"),
}


async def ping(call: Request) -> Answer:
    """``GET /_ping``."""
    await call.engine.system.ping()
    return Response(200, b"OK", response.TEXT, _PING_HEADERS)


async def ping_head(call: Request) -> Answer:
    """``HEAD /_ping``."""
    await call.engine.system.ping()
    return Response(200, b"", response.TEXT, _PING_HEADERS)


async def version(call: Request) -> Answer:
    """``GET /version``."""
    return response.json(call.engine.system.version())


async def info(call: Request) -> Answer:
    """``GET /info``."""
    return response.json(compat.info(await call.engine.system.info(), call.version))


async def disk_usage(call: Request) -> Answer:
    """``type`` narrows the answer to some kinds of object; each names members of the document."""
    document = await call.engine.system.df()
    document["Images"] = compat.images(document["Images"], call.version)
    kinds = call.query.texts("type")
    unknown = [kind for kind in kinds if kind not in _DF_SECTIONS]
    if unknown:
        raise InvalidRequest(
            f"unknown object type: {unknown[0][:80]!r}", hint="one of " + ", ".join(_DF_SECTIONS)
        )
    if kinds:
        wanted = {member for kind in kinds for member in _DF_SECTIONS[kind]}
        document = {name: value for name, value in document.items() if name in wanted}
    return response.json(document)


async def events(call: Request) -> Answer:
    """``GET /events``."""
    query = call.query
    since, until = query.timestamp("since"), query.timestamp("until")
    if since is not None and until is not None and until < since:
        raise InvalidRequest("`since` time cannot be after `until` time")
    stream = call.engine.system.events(since, until, query.filters())
    return StreamResponse(lines(stream), at_once=True)


async def plugins(call: Request) -> Answer:
    """Drivers are part of the engine; there is nothing that could be plugged in."""
    return response.json([])


async def plugin(call: Request) -> Answer:
    """``GET /plugins/{name...}/json``."""
    raise NotFound(f"plugin {call.name!r} not found")


ROUTES: Routes = (
    ("GET", "/_ping", ping),
    ("HEAD", "/_ping", ping_head),
    ("GET", "/version", version),
    ("GET", "/info", info),
    ("GET", "/system/df", disk_usage),
    ("GET", "/events", events),
    ("GET", "/plugins", plugins),
    ("GET", "/plugins/{name...}/json", plugin),
)
