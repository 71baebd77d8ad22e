"""Migration of containers between engines. Docker has no such requests."""

from __future__ import annotations

from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer, HijackResponse, StreamResponse, json_lines
from jaula.api.http.router import HEADERS, Routes
from jaula.errors import InvalidRequest, JaulaError
from jaula.features.migration.authz import migrations_api
from jaula.spec.api_documents import ContainerMigrate, GroupMigrate


async def migrate(request: Request) -> Answer:
    """Move a container to another engine: ``POST /jaula/containers/{id}/migrate``.

    The answer has one document a line: the steps, and the result at the end.
    """
    body = await request.document(ContainerMigrate, required=True)
    if not body.to and not body.resume:
        raise InvalidRequest("the target of a migration is required", hint="To: tcp://HOST:2376")
    steps = request.engine.service(migrations_api).migrate(request.name, body)
    return StreamResponse(json_lines(steps), error_chunk=response.progress_error)


async def migrate_group(request: Request) -> Answer:
    """Move several containers to another engine as one: ``POST /jaula/migrate``.

    ``Containers`` are names or ids; in their place ``Project`` selects the running containers of a
    compose project, and ``Pod`` those of a pod with its sandbox, by name or id. The answer is that
    of one container, with the member ``Name`` in each document.
    """
    body = await request.document(GroupMigrate, required=True)
    if not body.to:
        raise InvalidRequest("the target of a migration is required", hint="To: tcp://HOST:2376")
    if sum(map(bool, (body.containers, body.project, body.pod))) != 1:
        raise InvalidRequest("exactly one of Containers, Project and Pod is required")
    steps = request.engine.service(migrations_api).migrate_group(body)
    return StreamResponse(json_lines(steps), error_chunk=response.progress_error)


async def compare_hosts(request: Request) -> Answer:
    """Compare this host with the one of another engine: ``GET /jaula/migrations/hosts?to=ADDRESS``.

    ``ToThere`` and ``ToHere`` are the checks that a move in that direction has to pass.
    """
    to = request.query.text("to")
    if not to:
        raise InvalidRequest("the other engine is required", hint="to=tcp://HOST:2376")
    return response.json(await request.engine.service(migrations_api).compare_hosts(to))


async def accept(request: Request) -> Answer:
    """Receive a container from another engine: ``POST /jaula/migrations``.

    The connection leaves HTTP: see :mod:`jaula.spec.migration`.
    """
    from jaula.spec.migration import PROTOCOL

    await request.ignore_body()
    if request.header(b"upgrade") != PROTOCOL:
        raise InvalidRequest(
            f"this request is for other engines, with Upgrade: {PROTOCOL}",
            hint="jaula container migrate --to",
        )
    migrations = request.engine.service(migrations_api)
    migrations.require_peer()
    lines = [b"HTTP/1.1 101 UPGRADED", b"Connection: Upgrade", b"Upgrade: " + PROTOCOL.encode()]
    lines += [name + b": " + value for name, value in HEADERS]
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    return HijackResponse(
        response.OCTETS, migrations.accept, _no_chunk, head=head, until_close=True
    )


def _no_chunk(_: JaulaError) -> bytes:
    return b""  # the peer has been told in the protocol


ROUTES: Routes = (
    ("POST", "/jaula/containers/{id}/migrate", migrate),
    ("POST", "/jaula/migrate", migrate_group),
    ("POST", "/jaula/migrations", accept),
    ("GET", "/jaula/migrations/hosts", compare_hosts),
)
