"""Secrets and configs, with the documents of a swarm but without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer
from jaula.api.http.router import Routes
from jaula.features.secrets.authz import configs_api, secrets_api
from jaula.spec.api_documents import SecretSpec

if TYPE_CHECKING:
    from jaula.features.secrets.authz import SecretsApi


def _secrets(request: Request) -> SecretsApi:
    return request.engine.service(secrets_api)


def _configs(request: Request) -> SecretsApi:
    return request.engine.service(configs_api)


def _routes(noun: str) -> Routes:
    choose = _configs if noun == "configs" else _secrets

    async def list_(request: Request) -> Answer:
        return response.long_json(choose(request).list(request.query.filters()))

    async def create(request: Request) -> Answer:
        """Create one.

        ``replace`` is this engine's own: the id of the one with that name, which is removed when
        the new one is stored.
        """
        body = await request.document(SecretSpec, required=True)
        id = await choose(request).create(body, request.query.text("replace"))
        return response.json({"ID": id}, 201)

    async def inspect(request: Request) -> Answer:
        return response.json(choose(request).inspect(request.name))

    async def update(request: Request) -> Answer:
        version = request.query.integer("version") or 0
        await choose(request).update(request.name, version, await request.document(SecretSpec))
        return response.OK

    async def remove(request: Request) -> Answer:
        await choose(request).remove(request.name)
        return response.NO_CONTENT

    return (
        ("GET", f"/{noun}", list_),
        ("POST", f"/{noun}/create", create),
        ("GET", f"/{noun}/{{id}}", inspect),
        ("DELETE", f"/{noun}/{{id}}", remove),
        ("POST", f"/{noun}/{{id}}/update", update),
    )


ROUTES: Routes = (*_routes("secrets"), *_routes("configs"))
