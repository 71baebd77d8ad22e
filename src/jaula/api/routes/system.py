"""The engine itself: ping, version, info, disk use, events, plugins."""

from __future__ import annotations

from jaula.api import older, reply
from jaula.api.call import Call
from jaula.api.lines import lines
from jaula.api.reply import Answer, Reply, Stream
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


async def ping(call: Call) -> Answer:
    """``GET /_ping``."""
    await call.engine.system.ping()
    return Reply(200, b"OK", reply.TEXT, _PING_HEADERS)


async def ping_head(call: Call) -> Answer:
    """``HEAD /_ping``."""
    await call.engine.system.ping()
    return Reply(200, b"", reply.TEXT, _PING_HEADERS)


async def version(call: Call) -> Answer:
    """``GET /version``."""
    return reply.json(call.engine.system.version())


async def info(call: Call) -> Answer:
    """``GET /info``."""
    return reply.json(older.info(await call.engine.system.info(), call.version))


async def disk_usage(call: Call) -> Answer:
    """``type`` narrows the answer to some kinds of object; each names members of the document."""
    document = await call.engine.system.df()
    document["Images"] = older.images(document["Images"], call.version)
    kinds = call.query.texts("type")
    unknown = [kind for kind in kinds if kind not in _DF_SECTIONS]
    if unknown:
        raise InvalidRequest(
            f"unknown object type: {unknown[0][:80]!r}", hint="one of " + ", ".join(_DF_SECTIONS)
        )
    if kinds:
        wanted = {member for kind in kinds for member in _DF_SECTIONS[kind]}
        document = {name: value for name, value in document.items() if name in wanted}
    return reply.json(document)


async def events(call: Call) -> Answer:
    """``GET /events``."""
    query = call.query
    since, until = query.timestamp("since"), query.timestamp("until")
    if since is not None and until is not None and until < since:
        raise InvalidRequest("`since` time cannot be after `until` time")
    stream = call.engine.system.events(since, until, query.filters())
    return Stream(lines(stream), at_once=True)


async def plugins(call: Call) -> Answer:
    """Drivers are part of the engine; there is nothing that could be plugged in."""
    return reply.json([])


async def plugin(call: Call) -> Answer:
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
