"""Containers: their life, their description, their limits."""

from __future__ import annotations

from typing import Any

import msgspec

from jaula.api.http import response
from jaula.api.http.query import Query
from jaula.api.http.request import Request
from jaula.api.http.response import Answer, Response
from jaula.api.router import Routes
from jaula.errors import InvalidRequest, NotFound, Unsupported
from jaula.spec.api import ContainerCreate, ContainerUpdate
from jaula.spec.api_params import CommitOptions

_DNS_NAMES_APART = (1, 45)
_IPC_PRIVATE_SINCE = (1, 40)  # what a container's IPC namespace is where nothing was asked for
_STOP_SIGNAL_SINCE = (1, 42)
_NO_OBJECT = 7  # bytes that hold no JSON object with a member


async def create(call: Request) -> Answer:
    """``POST /containers/create``."""
    body = await call.document(ContainerCreate, required=True)
    if call.version < _IPC_PRIVATE_SINCE and not body.host_config.ipc_mode:
        host = msgspec.structs.replace(body.host_config, ipc_mode="shareable")
        body = msgspec.structs.replace(body, host_config=host)
    query = call.query
    created = await call.engine.containers.create(
        body, query.optional("name"), query.optional("platform")
    )
    return response.json({"Id": created.id, "Warnings": created.warnings}, 201)


async def list_(call: Request) -> Answer:
    """``GET /containers/json``."""
    query = call.query
    limit = query.integer("limit")
    if limit is not None and limit <= 0:
        limit = None
    documents = call.engine.containers.list(
        all=query.flag("all"), limit=limit, filters=query.filters(), size=query.flag("size")
    )
    return response.json(documents)


async def inspect(call: Request) -> Answer:
    """``GET /containers/{id}/json``."""
    document = call.engine.containers.inspect(call.name, size=call.query.flag("size"))
    if call.version < _DNS_NAMES_APART:
        _alias_of_id(document)
    return response.json(document)


def _alias_of_id(document: dict[str, Any]) -> None:
    """Add the short id to the aliases, where it was before ``DNSNames`` came."""
    for endpoint in document["NetworkSettings"]["Networks"].values():
        if endpoint["Aliases"] is not None:
            endpoint["Aliases"].append(document["Id"][:12])


async def start(call: Request) -> Answer:
    """``POST /containers/{id}/start``."""
    if call.query.text("checkpoint"):
        raise Unsupported("starting from a checkpoint is not possible with this engine")
    if await call.body_size() > _NO_OBJECT:
        raise InvalidRequest(
            "starting container with non-empty request body was deprecated since API v1.22 and"
            " removed in v1.24"
        )
    await call.engine.containers.start(call.name)
    return response.NO_CONTENT


def _stop_signal(call: Request) -> str | None:
    return call.query.optional("signal") if call.version >= _STOP_SIGNAL_SINCE else None


async def stop(call: Request) -> Answer:
    """``POST /containers/{id}/stop``."""
    await call.engine.containers.stop(call.name, call.query.integer("t"), _stop_signal(call))
    return response.NO_CONTENT


async def restart(call: Request) -> Answer:
    """``POST /containers/{id}/restart``."""
    await call.engine.containers.restart(call.name, call.query.integer("t"), _stop_signal(call))
    return response.NO_CONTENT


async def kill(call: Request) -> Answer:
    """``POST /containers/{id}/kill``."""
    try:
        await call.engine.containers.kill(call.name, call.query.optional("signal"))
    except (NotFound, InvalidRequest) as error:  # Docker's words, which scripts match
        raise type(error)(f"cannot kill container: {call.name}: {error.message}") from None
    return response.NO_CONTENT


async def pause(call: Request) -> Answer:
    """``POST /containers/{id}/pause``."""
    await call.engine.containers.pause(call.name)
    return response.NO_CONTENT


async def unpause(call: Request) -> Answer:
    """``POST /containers/{id}/unpause``."""
    await call.engine.containers.unpause(call.name)
    return response.NO_CONTENT


async def rename(call: Request) -> Answer:
    """``POST /containers/{id}/rename``."""
    await call.engine.containers.rename(call.name, call.query.text("name"))
    return response.NO_CONTENT


async def remove(call: Request) -> Answer:
    """``DELETE /containers/{id}``; with ``link`` the name is that of a link."""
    query = call.query
    if query.flag("link"):
        await call.engine.containers.remove_link(call.name)
        return response.NO_CONTENT
    await call.engine.containers.remove(
        call.name, force=query.flag("force"), volumes=query.flag("v")
    )
    return response.NO_CONTENT


async def top(call: Request) -> Answer:
    """``GET /containers/{id}/top``."""
    return response.json(await call.engine.containers.top(call.name, call.query.text("ps_args")))


async def changes(call: Request) -> Answer:
    """``GET /containers/{id}/changes``."""
    return response.json(await call.engine.containers.changes(call.name))


async def update(call: Request) -> Answer:
    """``POST /containers/{id}/update``."""
    body = await call.document(ContainerUpdate)
    return response.json({"Warnings": await call.engine.containers.update(call.name, body)})


def console(query: Query) -> tuple[int, int]:
    """Height and width of a terminal in characters; both are 16 bits for the kernel."""
    height, width = query.integer("h"), query.integer("w")
    if height is None or width is None:
        raise InvalidRequest("a size of a terminal needs both h and w")
    if not (0 <= height < 1 << 16 and 0 <= width < 1 << 16):
        raise InvalidRequest(f"a terminal of {height} by {width} characters is not possible")
    return height, width


async def resize(call: Request) -> Answer:
    """``POST /containers/{id}/resize``."""
    height, width = console(call.query)
    await call.engine.containers.resize(call.name, height, width)
    return response.OK


async def prune(call: Request) -> Answer:
    """``POST /containers/prune``."""
    return response.json(await call.engine.containers.prune(call.query.filters()))


async def commit(call: Request) -> Answer:
    """``POST /commit``."""
    query = call.query
    ref = query.text("container")
    if not ref:
        raise InvalidRequest("a container is needed", hint="give ?container=NAME")
    body = await call.document(ContainerCreate)
    options = CommitOptions(
        repo=query.text("repo"),
        tag=query.text("tag"),
        author=query.text("author"),
        comment=query.text("comment"),
        pause=query.flag("pause", True),
        changes=tuple(line for text in query.texts("changes") for line in text.splitlines()),
        config=body if body != ContainerCreate() else None,
    )
    return response.json({"Id": await call.engine.containers.commit(ref, options)}, 201)


async def checkpoints(call: Request) -> Answer:
    """``/containers/{id}/checkpoints``: Docker has them as an experiment, with CRIU."""
    await call.ignore_body()
    raise Unsupported("checkpoints are not possible with this engine")


async def spec(call: Request) -> Answer:
    """The OCI document that the runtime was given."""
    return Response(200, call.engine.containers.spec(call.name), response.JSON)


ROUTES: Routes = (
    ("POST", "/containers/create", create),
    ("GET", "/containers/json", list_),
    ("POST", "/containers/prune", prune),
    ("GET", "/containers/{id}/json", inspect),
    ("POST", "/containers/{id}/start", start),
    ("POST", "/containers/{id}/stop", stop),
    ("POST", "/containers/{id}/restart", restart),
    ("POST", "/containers/{id}/kill", kill),
    ("POST", "/containers/{id}/pause", pause),
    ("POST", "/containers/{id}/unpause", unpause),
    ("POST", "/containers/{id}/rename", rename),
    ("POST", "/containers/{id}/update", update),
    ("POST", "/containers/{id}/resize", resize),
    ("POST", "/commit", commit),
    ("GET", "/containers/{id}/top", top),
    ("GET", "/containers/{id}/changes", changes),
    ("DELETE", "/containers/{id}", remove),
    ("DELETE", "/containers/{name...}", remove),  # of a link: /CONTAINER/ALIAS
    ("GET", "/containers/{id}/checkpoints", checkpoints),
    ("POST", "/containers/{id}/checkpoints", checkpoints),
    ("GET", "/jaula/containers/{id}/spec", spec),
)
