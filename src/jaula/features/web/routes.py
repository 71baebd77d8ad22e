"""The web view: its registration, links that log a user in, and the caller's own rights."""

from __future__ import annotations

from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer
from jaula.api.http.router import Routes
from jaula.features.web.authz import web_api
from jaula.spec.api_documents import WebLogin, WebServer


async def register(request: Request) -> Answer:
    """Register a web view: ``PUT /jaula/web/server``. For administrators only."""
    body = await request.document(WebServer, required=True)
    request.engine.service(web_api).register(body.url)
    return response.NO_CONTENT


async def link(request: Request) -> Answer:
    """Make a link to the web view that logs the caller in once: ``POST /jaula/web/links``.

    The body is not read, so that a caller who may only read gets a link too.
    """
    return response.json(request.engine.service(web_api).create_link(), 201)


async def login(request: Request) -> Answer:
    """Return the user of a link: ``POST /jaula/web/logins``. For administrators only."""
    body = await request.document(WebLogin, required=True)
    return response.json(request.engine.service(web_api).redeem(body.code))


async def whoami(request: Request) -> Answer:
    """Return who the caller is for the policy: ``GET /jaula/web/whoami``."""
    return response.json(request.engine.service(web_api).whoami())


ROUTES: Routes = (
    ("PUT", "/jaula/web/server", register),
    ("POST", "/jaula/web/links", link),
    ("POST", "/jaula/web/logins", login),
    ("GET", "/jaula/web/whoami", whoami),
)
