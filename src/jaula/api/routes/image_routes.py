"""Images: inspection, tags, archives, pull and import."""

from __future__ import annotations

from jaula.api import compat
from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer, StreamResponse, json_lines
from jaula.api.http.router import Routes
from jaula.api.routes import registry_routes
from jaula.errors import InvalidRequest
from jaula.images.image_platform import decode_platform, parse_platform
from jaula.spec.image_documents import Platform

_MAX_NAMES = 1024  # of one archive
_MAX_PLATFORMS = 64


async def list_(request: Request) -> Answer:
    """List images: ``GET /images/json``."""
    query = request.query
    documents = await request.engine.images.list(
        all=query.flag("all"),
        filters=query.filters(),
        digests=query.flag("digests"),
        manifests=query.flag("manifests"),
        identity=query.flag("identity"),
    )
    return response.long_json(compat.listed_images(documents, request.version))


async def inspect(request: Request) -> Answer:
    """Inspect an image: ``GET /images/{name...}/json``."""
    query = request.query
    platform, manifests = _platform(request), query.flag("manifests")
    if platform is not None and manifests:
        raise InvalidRequest(
            "conflicting options: manifests and platform options cannot both be set"
        )
    document = request.engine.images.inspect(
        request.name,
        platform,
        manifests=manifests,
        identity=request.version >= compat.IMAGE_IDENTITY_SINCE,
    )
    return response.json(compat.image(document, request.version))


async def attestations(request: Request) -> Answer:
    """Get the attestations of an image: ``GET /images/{name...}/attestations``."""
    query = request.query
    if len(query.texts("platform")) > 1:
        raise InvalidRequest("only one platform is supported")
    documents = await request.engine.images.attestations(
        request.name, _platform(request), query.texts("type"), statement=query.flag("statement")
    )
    return response.json(documents)


def _platform(request: Request) -> Platform | None:
    """Return the platform in JSON of a request, None without one."""
    return decode_platform(request.query.text("platform"))


def _platforms(texts: list[str]) -> list[Platform]:
    """Return the platforms of a parameter that may be repeated."""
    if len(texts) > _MAX_PLATFORMS:
        raise InvalidRequest(f"{len(texts)} platforms exceed the limit of {_MAX_PLATFORMS}")
    return [platform for platform in map(decode_platform, texts) if platform is not None]


async def history(request: Request) -> Answer:
    """Get the history of an image: ``GET /images/{name...}/history``."""
    return response.json(request.engine.images.history(request.name, _platform(request)))


async def tag(request: Request) -> Answer:
    """Tag an image: ``POST /images/{name...}/tag``."""
    repository = request.query.text("repo")
    if not repository:
        raise InvalidRequest("the parameter repo (repository) is required")
    await request.engine.images.tag(request.name, repository, request.query.text("tag"))
    return response.CREATED


async def remove(request: Request) -> Answer:
    """Remove an image: ``DELETE /images/{name...}``.

    With ``unnamed``, only while it has no name.
    """
    query = request.query
    removed = await request.engine.images.remove(
        request.name,
        force=query.flag("force"),
        noprune=query.flag("noprune"),
        platforms=_platforms(query.texts("platforms")),
        unnamed=query.flag("unnamed"),
    )
    return response.json(removed)


async def prune(request: Request) -> Answer:
    """Delete unused images: ``POST /images/prune``."""
    return response.json(await request.engine.images.prune(request.query.filters()))


async def load(request: Request) -> Answer:
    """Import images: ``POST /images/load``."""
    query = request.query
    platforms = _platforms(query.texts("platform"))
    progress = request.engine.images.load(
        request.archive(), quiet=query.flag("quiet"), platforms=platforms
    )
    return StreamResponse(json_lines(progress), error_chunk=response.progress_error)


async def save(request: Request) -> Answer:
    """Export images: ``GET /images/get?names=a&names=b,c`` and ``GET /images/{name}/get``."""
    names = [request.name] if request.name else []
    for value in request.query.texts("names"):
        names += [name for name in value.split(",") if name]
    if not names:
        raise InvalidRequest("the name of an image is required")
    if len(names) > _MAX_NAMES:
        raise InvalidRequest(f"{len(names)} images exceed the limit of {_MAX_NAMES}")
    platforms = _platforms(request.query.texts("platform"))
    request.begin_transfer()
    return StreamResponse(request.engine.images.save(names, platforms), response.TAR)


async def create(request: Request) -> Answer:
    """Create an image: ``POST /images/create``.

    ``fromImage`` pulls from a registry. ``fromSrc=-`` imports the body, a root file system.
    """
    query, images = request.query, request.engine.images
    name, source = query.text("fromImage"), query.text("fromSrc")
    if name:
        await request.ignore_body()
        request.begin_transfer()
        progress = request.engine.distribution.pull(
            name, query.text("tag"), query.optional("platform"), registry_routes.auth(request)
        )
    elif source == "-":
        repository, changes = query.text("repo"), query.texts("changes")
        progress = images.import_(
            request.archive(),
            repository,
            query.text("tag"),
            changes,
            query.text("message"),
            parse_platform(query.text("platform")),
        )
    elif source:
        raise InvalidRequest(
            "the engine does not fetch archives from URLs", hint="fetch it and send it as the body"
        )
    else:
        raise InvalidRequest("one of fromImage and fromSrc is required")
    return StreamResponse(json_lines(progress), error_chunk=response.progress_error)


ROUTES: Routes = (
    ("GET", "/images/json", list_),
    ("POST", "/images/prune", prune),
    ("POST", "/images/load", load),
    ("POST", "/images/create", create),
    ("GET", "/images/get", save),
    ("GET", "/images/{name...}/get", save),
    ("GET", "/images/{name...}/json", inspect),
    ("GET", "/images/{name...}/history", history),
    ("GET", "/images/{name...}/attestations", attestations),
    ("POST", "/images/{name...}/tag", tag),
    ("DELETE", "/images/{name...}", remove),
)
