"""Changes of containers that exist."""

from __future__ import annotations

from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer
from jaula.api.http.router import Routes
from jaula.features.edit.authz import edits_api
from jaula.spec.api_documents import ContainerEdit


async def editable(request: Request) -> Answer:
    """Return what can be edited of a container: ``GET /jaula/containers/{id}/edit``."""
    return response.json(request.engine.service(edits_api).editable(request.name))


async def edit(request: Request) -> Answer:
    """Change a container, also while it runs: ``POST /jaula/containers/{id}/edit``."""
    body = await request.document(ContainerEdit, required=True)
    warnings = await request.engine.service(edits_api).edit(request.name, body)
    return response.json({"Warnings": warnings})


ROUTES: Routes = (
    ("GET", "/jaula/containers/{id}/edit", editable),
    ("POST", "/jaula/containers/{id}/edit", edit),
)
