"""The handlers of paths."""

from __future__ import annotations

import pytest

from jaula.api.http.errors import PageNotFound
from jaula.api.http.router import Router, Routes
from jaula.api.routes import (
    ROUTES,
    all_routes,
    containers,
    execs,
    images,
    networks,
    nouns,
    routes_of,
    swarm,
    system,
)
from jaula.features.build import routes as build

ROUTER = Router(ROUTES, nouns(), routes_of)


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


def test_each_route_is_found_by_the_first_request_of_its_noun() -> None:
    whole = Router(all_routes())
    for method, template, _ in all_routes():
        path = template.replace("{", "x").replace("}", "").replace("...", "/y").replace("*", "z")
        expected = whole.find(method, path)
        assert Router(ROUTES, nouns(), routes_of).find(method, path) == expected, template


def test_the_routes_of_a_noun_are_loaded_once() -> None:
    loaded: list[str] = []

    def load(noun: str) -> Routes:
        loaded.append(noun)
        return (("GET", "/late/{id}", images.inspect),)

    router = Router((), ("late", "jaula/late"), load)
    assert router.find("GET", "/late/a") == (images.inspect, "a")
    assert router.find("GET", "/late/b") == (images.inspect, "b")
    for path in ("/jaula/late/a", "/jaula/late/a", "/other/a", "/other"):
        with pytest.raises(PageNotFound):
            router.find("GET", path)
    assert loaded == ["late", "jaula/late"]
