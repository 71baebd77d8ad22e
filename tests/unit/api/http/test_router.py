"""The handlers of paths."""

from __future__ import annotations

import pytest

from jaula.api.http.errors import PageNotFound
from jaula.api.http.router import Router
from jaula.api.routes import ROUTES, build, containers, execs, images, networks, swarm, system

ROUTER = Router(ROUTES)


@pytest.mark.parametrize(
    ("method", "path", "handler", "name"),
    [
        ("GET", "/containers/json", containers.list_, ""),
        ("GET", "/containers/json/json", containers.inspect, "json"),
        ("GET", "/containers/abc/json", containers.inspect, "abc"),
        ("DELETE", "/containers/abc", containers.remove, "abc"),
        ("POST", "/containers/create", containers.create, ""),
        ("GET", "/jaula/containers/abc/spec", containers.spec, "abc"),
        ("POST", "/exec/abc/start", execs.start, "abc"),
        ("GET", "/images/json", images.list_, ""),
        ("GET", "/images/get", images.save, ""),
        ("GET", "/images/busybox/get", images.save, "busybox"),
        ("GET", "/images/127.0.0.1:5001/a/b:1/json", images.inspect, "127.0.0.1:5001/a/b:1"),
        ("GET", "/images/json/json", images.inspect, "json"),
        ("DELETE", "/images/127.0.0.1:5001/x:1", images.remove, "127.0.0.1:5001/x:1"),
        ("DELETE", "/images/x/json", images.remove, "x/json"),
        ("POST", "/images/a/b/push", None, "a/b"),
        ("GET", "/networks", networks.list_, ""),
        ("POST", "/networks/n/connect", networks.connect, "n"),
        ("GET", "/plugins/a/b/json", system.plugin, "a/b"),
        ("GET", "/nodes", swarm.manager, ""),
        ("POST", "/services/create", swarm.manager, "create"),
        ("POST", "/build/prune", build.prune, ""),
    ],
)
def test_a_path_has_its_handler(method: str, path: str, handler: object, name: str) -> None:
    found, variable = ROUTER.find(method, path)
    assert variable == name
    if handler is not None:
        assert found is handler


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/"),
        ("GET", "containers/json"),
        ("GET", "/containers"),
        ("GET", "/containers/"),
        ("GET", "/containers//json"),
        ("GET", "/containers/a/b/json"),
        ("GET", "/containers/a/json/"),
        ("PUT", "/containers/a/json"),
        ("GET", "/images/"),
        ("GET", "/images/a/nosuch"),
        ("DELETE", "/images/"),
        ("GET", "/jaula"),
        ("GET", "/jaula/containers/a"),
        ("GET", "/grpc"),
        ("GET", "/session"),
    ],
)
def test_other_paths_have_no_handler(method: str, path: str) -> None:
    with pytest.raises(PageNotFound):
        ROUTER.find(method, path)


def test_every_route_is_unique() -> None:
    keys = [(method, template) for method, template, _ in ROUTES]
    assert len(keys) == len(set(keys))
