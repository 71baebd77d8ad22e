"""Views of isolation and usage of many containers, and the method. Docker has no such requests."""

from __future__ import annotations

from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer, Response, StreamResponse, json_lines
from jaula.api.http.router import Routes
from jaula.errors import InvalidRequest
from jaula.features.verify.authz import diagnostics_api
from jaula.spec.api_documents import ExecCreate, IsolationChange

_MAX_POINTS = 900  # of one container
_TIMEOUT = 120.0  # seconds of a command
_SCOPES = ("host", "engine", "images", "containers")
_PROFILES = ("cis", "jaula", "nsa-k8s")
_NDJSON = b"application/x-ndjson"


async def observe(request: Request) -> Answer:
    """Observe all containers: ``GET /jaula/observe``, as JSON lines.

    ``isolation`` has the layers of one container and the rows that do not hold; a new one follows
    each change. ``stats`` has a sample of all containers each second. ``removed`` ends a container.
    """
    return StreamResponse(json_lines(request.engine.service(diagnostics_api).observe()), _NDJSON)


async def verify(request: Request) -> Answer:
    """Verify a container: ``GET /jaula/containers/{id}/verify``.

    Each row has what was requested, what is in effect, the evidence and the verdict.
    """
    return response.json(await request.engine.service(diagnostics_api).verify(request.name))


async def processes(request: Request) -> Answer:
    """List the processes of the host, with the namespaces that change: ``GET /jaula/processes``.

    Callers without access to everything get those of containers that they may read, and ancestors.
    """
    return response.long_json(await request.engine.service(diagnostics_api).processes(), 2)


async def history(request: Request) -> Answer:
    """Get kept samples: ``GET /jaula/stats?containers=a&fields=cpu&points=300``."""
    query = request.query
    points = query.integer("points") or _MAX_POINTS
    if not 0 < points <= _MAX_POINTS:
        raise InvalidRequest(f"points must be between 1 and {_MAX_POINTS}")
    document = await request.engine.service(diagnostics_api).history(
        query.texts("containers"), query.texts("fields"), points
    )
    return response.long_json(document, 2)


async def explain(request: Request) -> Answer:
    """Explain what a command in a container is refused: ``POST /jaula/containers/{id}/why``.

    The body has ``Cmd`` and ``User``, as that of an exec. The answer is that of ``jaula why``.
    """
    body = await request.document(ExecCreate, required=True)
    if not body.cmd:
        raise InvalidRequest("the command to explain is required", hint='{"Cmd": ["ping", "host"]}')
    return _json(await request.engine.service(diagnostics_api).why(request.name, body, _TIMEOUT))


async def explain_exit(request: Request) -> Answer:
    """Explain why a container has ended: ``GET /jaula/containers/{id}/why``."""
    return _json(await request.engine.service(diagnostics_api).why(request.name, None, _TIMEOUT))


async def record(request: Request) -> Answer:
    """Record what a container does: ``POST /jaula/containers/{id}/record?seconds=10``.

    The answer is the file of ``jaula record``, when the time is over.
    """
    await request.ignore_body()
    seconds = request.query.integer("seconds") or 0
    return StreamResponse(
        request.engine.service(diagnostics_api).record(request.name, seconds), _NDJSON
    )


async def harden(request: Request) -> Answer:
    """Make a profile from the record in the body: ``POST /jaula/harden``. The answer is TOML."""
    profile = await request.engine.service(diagnostics_api).harden(request.archive(), _TIMEOUT)
    return Response(200, profile, response.TEXT)


async def audit(request: Request) -> Answer:
    """Audit host, engine, images and containers: ``GET /jaula/audit?scope=containers``."""
    scopes = request.query.texts("scope")
    profile = request.query.text("profile") or _PROFILES[0]
    for name, value, known in (
        *(("scope", scope, _SCOPES) for scope in scopes),
        ("profile", profile, _PROFILES),
    ):
        if value not in known:
            raise InvalidRequest(
                f"unknown {name}: {value[:80]!r}", hint="must be one of " + ", ".join(known)
            )
    return _json(await request.engine.service(diagnostics_api).audit(scopes, profile, _TIMEOUT))


async def isolation_changed(request: Request) -> Answer:
    """Emit the event ``isolation-changed`` of a container. For root and administrators."""
    change = await request.document(IsolationChange, required=True)
    request.engine.service(diagnostics_api).isolation_changed(request.name, change)
    return response.NO_CONTENT


def _json(data: bytes) -> Response:
    return Response(200, data, response.JSON)


ROUTES: Routes = (
    ("GET", "/jaula/observe", observe),
    ("GET", "/jaula/containers/{id}/verify", verify),
    ("POST", "/jaula/containers/{id}/isolation-changed", isolation_changed),
    ("GET", "/jaula/processes", processes),
    ("GET", "/jaula/stats", history),
    ("POST", "/jaula/containers/{id}/why", explain),
    ("GET", "/jaula/containers/{id}/why", explain_exit),
    ("POST", "/jaula/containers/{id}/record", record),
    ("POST", "/jaula/harden", harden),
    ("GET", "/jaula/audit", audit),
)
