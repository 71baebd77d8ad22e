"""Reports of ``record --drift``."""

from __future__ import annotations

from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer
from jaula.api.http.router import Routes
from jaula.features.record.authz import drifts_api
from jaula.spec.api_documents import Drift


async def drift(request: Request) -> Answer:
    """Emit the event ``drift`` of a container. For root and administrators."""
    report = await request.document(Drift, required=True)
    request.engine.service(drifts_api).report(request.name, report)
    return response.NO_CONTENT


ROUTES: Routes = (("POST", "/jaula/containers/{id}/drift", drift),)
