"""Trust in images, which Docker's API does not have: signatures, rules, lists of packages."""

from __future__ import annotations

from jaula.api.http import response
from jaula.api.http.request import Request
from jaula.api.http.response import Answer
from jaula.api.router import Routes
from jaula.api.routes.registry import auth
from jaula.spec.api import SignatureAdd


async def policy(call: Request) -> Answer:
    """``GET /jaula/policy/images?name=NAME``."""
    return response.json(call.engine.trust.policy(call.query.text("name")))


async def signatures(call: Request) -> Answer:
    """``GET /jaula/signatures/{name...}``."""
    return response.json(await call.engine.trust.signatures(call.name, auth(call)))


async def sign(call: Request) -> Answer:
    """``POST /jaula/signatures/{name...}``."""
    body = await call.document(SignatureAdd)
    return response.json(await call.engine.trust.sign(call.name, body, auth(call)))


async def sbom(call: Request) -> Answer:
    """``GET /jaula/sbom/{name...}?form=FORM``."""
    return response.json(await call.engine.trust.sbom(call.name, call.query.text("form") or "spdx"))


ROUTES: Routes = (
    ("GET", "/jaula/policy/images", policy),
    ("GET", "/jaula/signatures/{name...}", signatures),
    ("POST", "/jaula/signatures/{name...}", sign),
    ("GET", "/jaula/sbom/{name...}", sbom),
)
