"""Trust in images, which Docker's API does not have: signatures, rules, lists of packages."""

from __future__ import annotations

from jaula.api import reply
from jaula.api.call import Call
from jaula.api.reply import Answer
from jaula.api.router import Routes
from jaula.api.routes.distribution import auth
from jaula.spec.api import SignatureAdd


async def policy(call: Call) -> Answer:
    """``GET /jaula/policy/images?name=NAME``."""
    return reply.json(call.engine.trust.policy(call.query.text("name")))


async def signatures(call: Call) -> Answer:
    """``GET /jaula/signatures/{name...}``."""
    return reply.json(await call.engine.trust.signatures(call.name, auth(call)))


async def sign(call: Call) -> Answer:
    """``POST /jaula/signatures/{name...}``."""
    body = await call.document(SignatureAdd)
    return reply.json(await call.engine.trust.sign(call.name, body, auth(call)))


async def sbom(call: Call) -> Answer:
    """``GET /jaula/sbom/{name...}?form=FORM``."""
    return reply.json(await call.engine.trust.sbom(call.name, call.query.text("form") or "spdx"))


ROUTES: Routes = (
    ("GET", "/jaula/policy/images", policy),
    ("GET", "/jaula/signatures/{name...}", signatures),
    ("POST", "/jaula/signatures/{name...}", sign),
    ("GET", "/jaula/sbom/{name...}", sbom),
)
