"""All routes of the API, one module per noun.

The ``ROUTES`` of a module is a table of method, template and handler. A new noun is a new module
and its name in this file: in ``ROUTES`` if each container needs it, and otherwise in ``BY_NOUN``. A
module there is imported by the first request whose path has one of its nouns.
"""

from __future__ import annotations

from importlib import import_module

from jaula.api.http.router import Routes
from jaula.api.routes import archive, containers, execs, streams, system, websockets

ROUTES: Routes = (
    *system.ROUTES,
    *containers.ROUTES,
    *archive.ROUTES,
    *streams.ROUTES,
    *websockets.ROUTES,
    *execs.ROUTES,
)

BY_NOUN: dict[str, tuple[str, ...]] = {
    "": ("build",),
    "auth": ("registry",),
    "build": ("build",),
    "configs": ("secrets",),
    "distribution": ("registry",),
    "grpc": ("build",),
    "images": ("images", "registry"),
    "jaula/audit": ("diagnostics",),
    "jaula/builds": ("build",),
    "jaula/containers": ("diagnostics", "migrations"),
    "jaula/harden": ("diagnostics",),
    "jaula/images": ("fsck",),
    "jaula/manifests": ("registry",),
    "jaula/migrate": ("migrations",),
    "jaula/migrations": ("migrations",),
    "jaula/observe": ("diagnostics",),
    "jaula/policy": ("trust",),
    "jaula/processes": ("diagnostics",),
    "jaula/sbom": ("trust",),
    "jaula/signatures": ("trust",),
    "jaula/stats": ("diagnostics",),
    "jaula/system": ("fsck",),
    "jaula/volumes": ("volumes",),
    "jaula/web": ("web",),
    "metrics": ("metrics",),
    "networks": ("networks",),
    "nodes": ("swarm",),
    "secrets": ("secrets",),
    "services": ("swarm",),
    "session": ("build",),
    "swarm": ("swarm",),
    "tasks": ("swarm",),
    "volumes": ("volumes",),
}
"""Modules by the nouns of their routes."""


def routes_of(noun: str) -> Routes:
    """Import the modules of a noun, and return all of their routes."""
    names = BY_NOUN.get(noun, ())
    return tuple(route for name in names for route in _module_routes(name))


def all_routes() -> Routes:
    """Import all modules, and return their routes."""
    names = sorted({name for names in BY_NOUN.values() for name in names})
    return (*ROUTES, *(route for name in names for route in _module_routes(name)))


def _module_routes(name: str) -> Routes:
    routes: Routes = import_module(f"jaula.api.routes.{name}").ROUTES
    return routes
