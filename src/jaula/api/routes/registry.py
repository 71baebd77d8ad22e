"""Registries: logging in, pushing, searching, and looking at what a name means there."""

from __future__ import annotations

import binascii

import msgspec

from jaula.api.http import response
from jaula.api.http.json_stream import lines
from jaula.api.http.request import Request
from jaula.api.http.response import Answer, StreamResponse
from jaula.api.router import Routes
from jaula.errors import InvalidRequest
from jaula.spec.api import ManifestListAdd, RegistryAuth


def auth(call: Request) -> RegistryAuth | None:
    """``X-Registry-Auth``: a JSON document in URL-safe base 64, with or without padding."""
    text = call.header(b"x-registry-auth")
    if not text:
        return None
    try:
        padded = text.translate({ord("-"): "+", ord("_"): "/"}).rstrip("=") + "=="
        return msgspec.json.decode(binascii.a2b_base64(padded), type=RegistryAuth)
    except (binascii.Error, ValueError, RecursionError, msgspec.DecodeError):
        raise InvalidRequest("invalid X-Registry-Auth header") from None


async def login(call: Request) -> Answer:
    """``POST /auth``."""
    document = await call.document(RegistryAuth)
    return response.json(await call.engine.distribution.login(document))


async def push(call: Request) -> Answer:
    """``POST /images/{name...}/push``."""
    await call.ignore_body()
    progress = call.engine.distribution.push(call.name, call.query.text("tag"), auth(call))
    return StreamResponse(lines(progress), last_words=response.progress_error)


async def search(call: Request) -> Answer:
    """``GET /images/search``."""
    query = call.query
    term = query.text("term")
    if not term:
        raise InvalidRequest("a term to search for is needed")
    limit = query.integer("limit") or 0
    found = await call.engine.distribution.search(term, limit, query.filters(), auth(call))
    return response.json(found)


async def inspect(call: Request) -> Answer:
    """``GET /distribution/{name...}/json``."""
    return response.json(await call.engine.distribution.inspect(call.name, auth(call)))


async def manifest(call: Request) -> Answer:
    """``GET /jaula/manifests/{name...}``: the document itself, which Docker's API does not have."""
    return response.json(await call.engine.distribution.manifest(call.name, auth(call)))


async def push_list(call: Request) -> Answer:
    """``PUT /jaula/manifests/{name...}``."""
    body = await call.document(ManifestListAdd)
    return response.json(await call.engine.distribution.push_list(call.name, body, auth(call)))


ROUTES: Routes = (
    ("POST", "/auth", login),
    ("GET", "/images/search", search),
    ("POST", "/images/{name...}/push", push),
    ("GET", "/distribution/{name...}/json", inspect),
    ("GET", "/jaula/manifests/{name...}", manifest),
    ("PUT", "/jaula/manifests/{name...}", push_list),
)
