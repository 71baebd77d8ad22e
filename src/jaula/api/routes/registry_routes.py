"""Registries: login, push, search, inspect."""

from __future__ import annotations

import binascii
from typing import TypeVar

import msgspec

from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer, StreamResponse, json_lines
from jaula.api.http.router import Routes
from jaula.errors import InvalidRequest
from jaula.images.image_platform import decode_platform
from jaula.spec.api_documents import ManifestListAdd, RegistryAuth
from jaula.spec.decode import decode
from jaula.spec.layer_compression import LayerCompression, parse_compression

_Kind = TypeVar("_Kind")


def auth(request: Request) -> RegistryAuth | None:
    """Return the credentials of ``X-Registry-Auth``, None if it is absent or malformed.

    Docker takes a malformed one for no credentials, too, and old clients rely on it.
    """
    try:
        return decode_header(request, "X-Registry-Auth", RegistryAuth)
    except InvalidRequest:
        return None


def decode_header(request: Request, name: str, kind: type[_Kind]) -> _Kind | None:
    """Decode a header: JSON in URL-safe base64, with or without padding; None if it is absent.

    :raises InvalidRequest: when the header is malformed.
    """
    text = request.header(name.lower().encode("ascii"))
    if not text:
        return None
    try:
        padded = text.translate({ord("-"): "+", ord("_"): "/"}).rstrip("=") + "=="
        if data := binascii.a2b_base64(padded):
            return decode(data, kind)
    except (binascii.Error, ValueError, RecursionError, msgspec.DecodeError):
        pass
    raise InvalidRequest(f"invalid {name} header")


async def login(request: Request) -> Answer:
    """Check auth configuration: ``POST /auth``."""
    document = await request.document(RegistryAuth)
    return response.json(await request.engine.distribution.login(document))


async def push(request: Request) -> Answer:
    """Push an image: ``POST /images/{name...}/push``.

    The parameters ``compression``, ``compression-level`` and ``force-compression`` are jaula's.
    """
    await request.ignore_body()
    request.begin_transfer()
    progress = request.engine.distribution.push(
        request.name,
        request.query.text("tag"),
        auth(request),
        decode_platform(request.query.text("platform")),
        _compression(request),
    )
    return StreamResponse(json_lines(progress), error_chunk=response.progress_error)


def _compression(request: Request) -> LayerCompression | None:
    """Return the compression of a push, None for the default.

    A compression that is named is that of all layers, unless ``force-compression`` is false.

    :raises InvalidRequest: when it is not valid.
    """
    query = request.query
    kind, level = query.optional("compression"), query.optional("compression-level")
    force = query.flag("force-compression", default=bool(kind))
    if not kind and not level and not force:
        return None
    return parse_compression(kind or "gzip", level or None, force=force)


async def search(request: Request) -> Answer:
    """Search images: ``GET /images/search``."""
    query = request.query
    term = query.text("term")
    if not term:
        raise InvalidRequest("the parameter term is required")
    limit = query.integer("limit") or 0
    results = await request.engine.distribution.search(term, limit, query.filters(), auth(request))
    return response.json(results)


async def inspect(request: Request) -> Answer:
    """Get image information from the registry: ``GET /distribution/{name...}/json``."""
    return response.json(await request.engine.distribution.inspect(request.name, auth(request)))


async def manifest(request: Request) -> Answer:
    """Get the manifest of a name: ``GET /jaula/manifests/{name...}``. Not in Docker's API."""
    return response.json(await request.engine.distribution.manifest(request.name, auth(request)))


async def push_list(request: Request) -> Answer:
    """Push a list of manifests: ``PUT /jaula/manifests/{name...}``."""
    body = await request.document(ManifestListAdd)
    return response.json(
        await request.engine.distribution.push_list(request.name, body, auth(request))
    )


ROUTES: Routes = (
    ("POST", "/auth", login),
    ("GET", "/images/search", search),
    ("POST", "/images/{name...}/push", push),
    ("GET", "/distribution/{name...}/json", inspect),
    ("GET", "/jaula/manifests/{name...}", manifest),
    ("PUT", "/jaula/manifests/{name...}", push_list),
)
