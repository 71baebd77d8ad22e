"""Containers: life cycle, inspection, limits."""

from __future__ import annotations

import msgspec

from jaula.api import compat
from jaula.api.http import response
from jaula.api.http.http_request import Query, Request
from jaula.api.http.response import Answer, Response
from jaula.api.http.router import Routes
from jaula.errors import InvalidRequest, NotFound
from jaula.spec.api_documents import (
    ContainerCreate,
    ContainerCreateBody,
    ContainerUpdate,
)
from jaula.spec.api_params import CommitOptions

_NO_CONTAINER_MAC = (1, 52)  # Config.MacAddress
_IPC_PRIVATE_SINCE = (1, 40)  # as the default of IpcMode
_STOP_SIGNAL_SINCE = (1, 42)
_ENDPOINTS_SINCE = (1, 44)  # more than one endpoint at create
_MAX_EMPTY_BODY = 7  # bytes; too few for a JSON object with a member


async def create(request: Request) -> Answer:
    """Create a container: ``POST /containers/create``."""
    body = (await request.document(ContainerCreateBody, required=True)).without_old_fields()
    if body.mac_address and request.version >= _NO_CONTAINER_MAC:
        raise InvalidRequest(
            "container-wide MAC address no longer supported; use endpoint-specific MAC address"
            " instead"
        )
    if request.version < _ENDPOINTS_SINCE:
        _check_endpoints(body)
    if request.version < _IPC_PRIVATE_SINCE and not body.host_config.ipc_mode:
        host = msgspec.structs.replace(body.host_config, ipc_mode="shareable")
        body = msgspec.structs.replace(body, host_config=host)
    query = request.query
    created = await request.engine.containers.create(
        body, query.optional("name"), query.optional("platform")
    )
    return response.json({"Id": created.id, "Warnings": created.warnings}, 201)


def _check_endpoints(body: ContainerCreate) -> None:
    """Check what an old API version cannot express.

    :raises InvalidRequest: when the request has several endpoints, or a MAC address without a
        network of its own.
    """
    names = sorted(body.networking_config.endpoints_config)
    if len(names) > 1:
        raise InvalidRequest(
            f"Container cannot be created with multiple network endpoints: {', '.join(names)}"
        )
    mode = body.host_config.network_mode
    if body.mac_address and (mode == "host" or mode.startswith("container:")):
        raise InvalidRequest("conflicting options: mac-address and the network mode")


async def list_(request: Request) -> Answer:
    """List containers: ``GET /containers/json``."""
    query = request.query
    limit = query.integer("limit")
    if limit is not None and limit <= 0:
        limit = None
    documents = await request.engine.containers.list(
        all=query.flag("all"),
        limit=limit,
        filters=query.filters(),
        size=query.flag("size"),
        pods=query.flag("pods"),
    )
    return response.long_json(compat.containers(documents, request.version))


async def inspect(request: Request) -> Answer:
    """Inspect a container: ``GET /containers/{id}/json``."""
    size = request.query.flag("size")
    document = await request.engine.containers.inspect(request.name, size=size)
    return response.json(compat.container(document, request.version))


async def start(request: Request) -> Answer:
    """Start a container: ``POST /containers/{id}/start``."""
    if await request.body_size() > _MAX_EMPTY_BODY:
        raise InvalidRequest(
            "starting container with non-empty request body was deprecated since API v1.22 and"
            " removed in v1.24"
        )
    await request.engine.containers.start(
        request.name,
        checkpoint=request.query.text("checkpoint"),
        checkpoint_dir=request.query.text("checkpoint-dir"),
    )
    return response.NO_CONTENT


def _stop_signal(request: Request) -> str | None:
    return request.query.optional("signal") if request.version >= _STOP_SIGNAL_SINCE else None


async def stop(request: Request) -> Answer:
    """Stop a container: ``POST /containers/{id}/stop``."""
    await request.engine.containers.stop(
        request.name, request.query.integer("t"), _stop_signal(request)
    )
    return response.NO_CONTENT


async def restart(request: Request) -> Answer:
    """Restart a container: ``POST /containers/{id}/restart``."""
    await request.engine.containers.restart(
        request.name, request.query.integer("t"), _stop_signal(request)
    )
    return response.NO_CONTENT


async def kill(request: Request) -> Answer:
    """Kill a container: ``POST /containers/{id}/kill``."""
    try:
        await request.engine.containers.kill(request.name, request.query.optional("signal"))
    except (NotFound, InvalidRequest) as error:  # Docker's text, which scripts match
        raise type(error)(f"cannot kill container: {request.name}: {error.message}") from None
    return response.NO_CONTENT


async def pause(request: Request) -> Answer:
    """Pause a container: ``POST /containers/{id}/pause``."""
    await request.engine.containers.pause(request.name)
    return response.NO_CONTENT


async def unpause(request: Request) -> Answer:
    """Unpause a container: ``POST /containers/{id}/unpause``."""
    await request.engine.containers.unpause(request.name)
    return response.NO_CONTENT


async def rename(request: Request) -> Answer:
    """Rename a container: ``POST /containers/{id}/rename``."""
    await request.engine.containers.rename(request.name, request.query.text("name"))
    return response.NO_CONTENT


async def remove(request: Request) -> Answer:
    """Remove a container, or with ``link`` a link: ``DELETE /containers/{id}``."""
    query = request.query
    if query.flag("link"):
        await request.engine.containers.remove_link(request.name)
        return response.NO_CONTENT
    await request.engine.containers.remove(
        request.name, force=query.flag("force"), volumes=query.flag("v")
    )
    return response.NO_CONTENT


async def top(request: Request) -> Answer:
    """List processes running inside a container: ``GET /containers/{id}/top``."""
    return response.json(
        await request.engine.containers.top(request.name, request.query.text("ps_args"))
    )


async def changes(request: Request) -> Answer:
    """Get changes on a container's filesystem: ``GET /containers/{id}/changes``."""
    return response.long_json(await request.engine.containers.changes(request.name) or None)


async def update(request: Request) -> Answer:
    """Update a container: ``POST /containers/{id}/update``."""
    body = await request.document(ContainerUpdate)
    return response.json({"Warnings": await request.engine.containers.update(request.name, body)})


def console_size(query: Query) -> tuple[int, int]:
    """Return height and width of a terminal in characters; the kernel has 16 bits for each.

    :raises InvalidRequest: when one is missing or too large.
    """
    height, width = query.integer("h"), query.integer("w")
    if height is None or width is None:
        raise InvalidRequest("the size of a terminal needs both h and w")
    if not (0 <= height < 1 << 16 and 0 <= width < 1 << 16):
        raise InvalidRequest(f"the size of a terminal must be below 65536: got {height} by {width}")
    return height, width


async def resize(request: Request) -> Answer:
    """Resize a container TTY: ``POST /containers/{id}/resize``."""
    height, width = console_size(request.query)
    await request.engine.containers.resize(request.name, height, width)
    return response.OK


async def prune(request: Request) -> Answer:
    """Delete stopped containers: ``POST /containers/prune``."""
    return response.json(await request.engine.containers.prune(request.query.filters()))


async def commit(request: Request) -> Answer:
    """Create a new image from a container: ``POST /commit``."""
    query = request.query
    ref = query.text("container")
    if not ref:
        raise InvalidRequest('invalid name or ID supplied: ""', hint="add ?container=NAME")
    body = await request.document(ContainerCreate)
    options = CommitOptions(
        repo=query.text("repo"),
        tag=query.text("tag"),
        author=query.text("author"),
        comment=query.text("comment"),
        pause=query.flag("pause", True),
        changes=tuple(line for text in query.texts("changes") for line in text.splitlines()),
        config=body if body != ContainerCreate() else None,
    )
    return response.json({"Id": await request.engine.containers.commit(ref, options)}, 201)


async def spec(request: Request) -> Answer:
    """Get the OCI spec of a container, as the runtime received it."""
    return Response(200, request.engine.containers.spec(request.name), response.JSON)


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
    ("DELETE", "/containers/{name...}", remove),  # a link: /CONTAINER/ALIAS
    ("GET", "/jaula/containers/{id}/spec", spec),
)
