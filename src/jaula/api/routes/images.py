"""Images: their description, names, archives, and where they come from."""

from __future__ import annotations

from jaula.api import compat
from jaula.api.http import response
from jaula.api.http.json_stream import lines
from jaula.api.http.request import Request
from jaula.api.http.response import Answer, StreamResponse
from jaula.api.router import Routes
from jaula.api.routes import registry
from jaula.errors import InvalidRequest

_MAX_NAMES = 1024


async def list_(call: Request) -> Answer:
    """``GET /images/json``."""
    query = call.query
    documents = call.engine.images.list(
        all=query.flag("all"), filters=query.filters(), digests=query.flag("digests")
    )
    return response.json(compat.images(documents, call.version))


async def inspect(call: Request) -> Answer:
    """``GET /images/{name...}/json``."""
    return response.json(compat.image(call.engine.images.inspect(call.name), call.version))


async def history(call: Request) -> Answer:
    """``GET /images/{name...}/history``."""
    return response.json(call.engine.images.history(call.name))


async def tag(call: Request) -> Answer:
    """``POST /images/{name...}/tag``."""
    repository = call.query.text("repo")
    if not repository:
        raise InvalidRequest("a new name needs a repository (repo)")
    await call.engine.images.tag(call.name, repository, call.query.text("tag"))
    return response.CREATED


async def remove(call: Request) -> Answer:
    """``DELETE /images/{name...}``."""
    query = call.query
    removed = await call.engine.images.remove(
        call.name, force=query.flag("force"), noprune=query.flag("noprune")
    )
    return response.json(removed)


async def prune(call: Request) -> Answer:
    """``POST /images/prune``."""
    return response.json(await call.engine.images.prune(call.query.filters()))


async def load(call: Request) -> Answer:
    """``POST /images/load``."""
    progress = call.engine.images.load(call.body(), quiet=call.query.flag("quiet"))
    return StreamResponse(lines(progress), last_words=response.progress_error)


async def save(call: Request) -> Answer:
    """``/images/get?names=a&names=b,c`` and ``/images/{name}/get``."""
    names = [call.name] if call.name else []
    for value in call.query.texts("names"):
        names += [name for name in value.split(",") if name]
    if not names:
        raise InvalidRequest("no image was named, nothing to save")
    if len(names) > _MAX_NAMES:
        raise InvalidRequest(f"{len(names)} images were named, {_MAX_NAMES} is the limit")
    return StreamResponse(call.engine.images.save(names), response.TAR)


async def create(call: Request) -> Answer:
    """``fromImage`` pulls from a registry, ``fromSrc=-`` imports the body, a root file system."""
    query, images = call.query, call.engine.images
    name, source = query.text("fromImage"), query.text("fromSrc")
    if name:
        await call.ignore_body()
        progress = call.engine.distribution.pull(
            name, query.text("tag"), query.optional("platform"), registry.auth(call)
        )
    elif source == "-":
        repository, changes = query.text("repo"), query.texts("changes")
        progress = images.import_(
            call.body(), repository, query.text("tag"), changes, query.text("message")
        )
    elif source:
        raise InvalidRequest(
            "the engine does not fetch archives from URLs", hint="fetch it and send it as the body"
        )
    else:
        raise InvalidRequest("one of fromImage and fromSrc is needed")
    return StreamResponse(lines(progress), last_words=response.progress_error)


ROUTES: Routes = (
    ("GET", "/images/json", list_),
    ("POST", "/images/prune", prune),
    ("POST", "/images/load", load),
    ("POST", "/images/create", create),
    ("GET", "/images/get", save),
    ("GET", "/images/{name...}/get", save),
    ("GET", "/images/{name...}/json", inspect),
    ("GET", "/images/{name...}/history", history),
    ("POST", "/images/{name...}/tag", tag),
    ("DELETE", "/images/{name...}", remove),
)
