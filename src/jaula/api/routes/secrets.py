"""Secrets and configs, in the form of a swarm's; no swarm is needed."""

from __future__ import annotations

from jaula.api.backend import Secrets
from jaula.api.http import response
from jaula.api.http.request import Request
from jaula.api.http.response import Answer
from jaula.api.router import Routes
from jaula.spec.api import SecretSpec


def _secrets(call: Request) -> Secrets:
    return call.engine.secrets


def _configs(call: Request) -> Secrets:
    return call.engine.configs


def _routes(noun: str) -> Routes:
    choose = _configs if noun == "configs" else _secrets

    async def list_(call: Request) -> Answer:
        return response.json(choose(call).list(call.query.filters()))

    async def create(call: Request) -> Answer:
        body = await call.document(SecretSpec, required=True)
        return response.json({"ID": await choose(call).create(body)}, 201)

    async def inspect(call: Request) -> Answer:
        return response.json(choose(call).inspect(call.name))

    async def update(call: Request) -> Answer:
        version = call.query.integer("version") or 0
        await choose(call).update(call.name, version, await call.document(SecretSpec))
        return response.OK

    async def remove(call: Request) -> Answer:
        await choose(call).remove(call.name)
        return response.NO_CONTENT

    return (
        ("GET", f"/{noun}", list_),
        ("POST", f"/{noun}/create", create),
        ("GET", f"/{noun}/{{id}}", inspect),
        ("DELETE", f"/{noun}/{{id}}", remove),
        ("POST", f"/{noun}/{{id}}/update", update),
    )


ROUTES: Routes = (*_routes("secrets"), *_routes("configs"))
