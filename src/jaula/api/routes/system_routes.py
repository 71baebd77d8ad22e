"""The engine itself: ping, version, info, disk usage, events, plugins."""

from __future__ import annotations

from functools import partial

from jaula.api import compat
from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer, Response, StreamResponse, json_lines
from jaula.api.http.router import Routes
from jaula.errors import InvalidRequest, NotFound, Unsupported
from jaula.spec import log_drivers

_PING_HEADERS = (
    (b"Builder-Version", b"2"),
    (b"Cache-Control", b"no-cache, no-store, must-revalidate"),
    (b"Pragma", b"no-cache"),
    (b"Swarm", b"inactive"),
)

_PLUGIN_VERBS = ("enable", "disable", "push", "set", "upgrade")

_DF_SECTIONS = {
    "container": ("Containers", "ContainerUsage"),
    "image": ("Images", "LayersSize", "LayersReclaimable", "ImageUsage"),
    "volume": ("Volumes", "VolumeUsage"),
    "build-cache": ("BuildCache", "BuildCacheUsage"),
}

_EVENT_TYPES = {"application/x-ndjson": (1, 52), "application/json-seq": (1, 52),
                "application/jsonl": (1, 53)}  # fmt: skip
"""Media types of the events that a client can ask for, by the API version that brought them."""


async def ping(request: Request) -> Answer:
    """Ping: ``GET /_ping``."""
    await request.engine.system.ping()
    return Response(200, b"OK", response.TEXT, _PING_HEADERS)


async def ping_head(request: Request) -> Answer:
    """Ping: ``HEAD /_ping``."""
    await request.engine.system.ping()
    return Response(200, b"", response.TEXT, _PING_HEADERS)


async def version(request: Request) -> Answer:
    """Get version: ``GET /version``."""
    return response.json(request.engine.system.version())


async def info(request: Request) -> Answer:
    """Get system information: ``GET /info``."""
    return response.json(compat.info(await request.engine.system.info(), request.version))


async def disk_usage(request: Request) -> Answer:
    """Get data usage information: ``GET /system/df``.

    ``type`` limits the answer to the members of some kinds of object.
    """
    document = await request.engine.system.df()
    kinds = request.query.texts("type")
    unknown = [kind for kind in kinds if kind not in _DF_SECTIONS]
    if unknown:
        raise InvalidRequest(
            f"unknown object type: {unknown[0][:80]!r}",
            hint="must be one of " + ", ".join(_DF_SECTIONS),
        )
    if kinds:
        members = {member for kind in kinds for member in _DF_SECTIONS[kind]}
        document = {name: value for name, value in document.items() if name in members}
    verbose = request.query.flag("verbose")
    return response.long_json(compat.disk_usage(document, request.version, verbose=verbose), 3)


async def events(request: Request) -> Answer:
    """Monitor events: ``GET /events``, as JSON lines or as a JSON text sequence (RFC 7464)."""
    query = request.query
    since, until = query.timestamp("since"), query.timestamp("until")
    if since is not None and until is not None and until < since:
        raise InvalidRequest(
            f"`since` time ({query.text('since')[:40]}) cannot be after `until` time"
            f" ({query.text('until')[:40]})"
        )
    stream = request.engine.system.events(since, until, query.filters())
    media_type = _event_type(request)
    separator = b"\x1e" if media_type == "application/json-seq" else b""
    lines = json_lines(stream, partial(compat.event, version=request.version), separator)
    return StreamResponse(lines, media_type.encode("ascii"), at_once=True)


def _event_type(request: Request) -> str:
    """Return the first media type of ``Accept`` that the client's version has, or JSON."""
    for item in request.header(b"accept").split(","):
        name, _, parameters = item.partition(";")
        since = _EVENT_TYPES.get(name.strip().lower())
        if since is not None and request.version >= since and "q=0" not in parameters.split(";"):
            return name.strip().lower()
    return "application/json"


async def plugins(request: Request) -> Answer:
    """List plugins: ``GET /plugins``. All drivers are built in, so the list is empty."""
    return response.json([])


async def plugin(request: Request) -> Answer:
    """Answer for a plugin that is not there: ``GET /plugins/{name...}/json``."""
    await request.ignore_body()
    raise NotFound(f'plugin "{request.name[:80]}" not found')


async def install_plugin(request: Request) -> Answer:
    """Refuse to install a plugin: ``POST /plugins/pull``."""
    raise Unsupported(
        "this engine has no plugins: its drivers are built in",
        hint="volumes: type=nfs and other options of the driver local; networks: bridge, macvlan,"
        f" ipvlan; logs: {', '.join(log_drivers.SENDING)}",
    )


ROUTES: Routes = (
    ("GET", "/_ping", ping),
    ("HEAD", "/_ping", ping_head),
    ("GET", "/version", version),
    ("GET", "/info", info),
    ("GET", "/system/df", disk_usage),
    ("GET", "/events", events),
    ("GET", "/plugins", plugins),
    ("GET", "/plugins/{name...}/json", plugin),
    ("DELETE", "/plugins/{name...}", plugin),
    *(("POST", f"/plugins/{{name...}}/{verb}", plugin) for verb in _PLUGIN_VERBS),
    ("GET", "/plugins/privileges", install_plugin),
    ("POST", "/plugins/pull", install_plugin),
    ("POST", "/plugins/create", install_plugin),
)
