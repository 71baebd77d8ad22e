"""Image trust, which Docker's API does not have: signatures, policy, lists of packages."""

from __future__ import annotations

from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer
from jaula.api.http.router import Routes
from jaula.api.routes.registry_routes import auth
from jaula.features.trust.authz import trust_api
from jaula.spec.api_documents import SignatureAdd


async def policy(request: Request) -> Answer:
    """Get the image policy: ``GET /jaula/policy/images?name=NAME``."""
    return response.json(request.engine.service(trust_api).policy(request.query.text("name")))


async def signatures(request: Request) -> Answer:
    """List the signatures of an image: ``GET /jaula/signatures/{name...}``."""
    return response.json(
        await request.engine.service(trust_api).signatures(request.name, auth(request))
    )


async def sign(request: Request) -> Answer:
    """Add a signature to an image: ``POST /jaula/signatures/{name...}``."""
    body = await request.document(SignatureAdd)
    return response.json(
        await request.engine.service(trust_api).sign(request.name, body, auth(request))
    )


async def sbom(request: Request) -> Answer:
    """Get the packages of an image: ``GET /jaula/sbom/{name...}?form=FORM``."""
    return response.json(
        await request.engine.service(trust_api).sbom(
            request.name, request.query.text("form") or "spdx"
        )
    )


ROUTES: Routes = (
    ("GET", "/jaula/policy/images", policy),
    ("GET", "/jaula/signatures/{name...}", signatures),
    ("POST", "/jaula/signatures/{name...}", sign),
    ("GET", "/jaula/sbom/{name...}", sbom),
)
