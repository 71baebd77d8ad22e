"""All routes of the API, one module per noun.

The ``ROUTES`` of a module is a table of method, template and handler. A new noun is a new module
and its name in this file: in ``ROUTES`` if each container needs it, and otherwise in ``BY_NOUN``. A
module there is imported by the first request whose path has one of its nouns.
"""

from __future__ import annotations

from importlib import import_module

from jaula import feature
from jaula.api.http.router import Routes
from jaula.api.routes import (
    archive_routes,
    container_routes,
    exec_routes,
    stream_routes,
    system_routes,
    websockets,
)

ROUTES: Routes = (
    *system_routes.ROUTES,
    *container_routes.ROUTES,
    *archive_routes.ROUTES,
    *stream_routes.ROUTES,
    *websockets.ROUTES,
    *exec_routes.ROUTES,
)

BY_NOUN: dict[str, tuple[str, ...]] = {
    "auth": ("registry_routes",),
    "distribution": ("registry_routes",),
    "images": ("image_routes", "registry_routes"),
    "jaula/images": ("fsck_routes",),
    "jaula/manifests": ("registry_routes",),
    "jaula/system": ("fsck_routes",),
    "jaula/volumes": ("volume_routes",),
    "networks": ("network_routes",),
    "nodes": ("swarm",),
    "services": ("swarm",),
    "swarm": ("swarm",),
    "tasks": ("swarm",),
    "volumes": ("volume_routes",),
}
"""Modules by the nouns of their routes."""

WITHOUT_FEATURE: dict[str, str] = {"build": "build_cache"}
"""The module that answers for a noun if no feature does: clients prune all nouns at once."""


def nouns() -> set[str]:
    """Return the nouns whose modules are imported by their first request."""
    of_features = (noun for each in feature.features() for noun in each.routes)
    return {*BY_NOUN, *WITHOUT_FEATURE, *of_features}


def routes_of(noun: str) -> Routes:
    """Import the modules of a noun, and return all of their routes."""
    return _routes(_modules(noun))


def all_routes() -> Routes:
    """Import all modules, and return their routes."""
    return (*ROUTES, *_routes(sorted({module for noun in nouns() for module in _modules(noun)})))


def _modules(noun: str) -> list[str]:
    """Return the modules of a noun: those of this package, then those of features."""
    modules = [f"{__name__}.{name}" for name in BY_NOUN.get(noun, ())]
    for each in feature.features():
        modules += map(each.module, each.routes.get(noun, ()))
    if not modules and noun in WITHOUT_FEATURE:
        modules = [f"{__name__}.{WITHOUT_FEATURE[noun]}"]
    return modules


def _routes(modules: list[str]) -> Routes:
    return tuple(route for name in modules for route in import_module(name).ROUTES)
