"""The handlers of paths."""

from __future__ import annotations

import pytest

from jaula.api.http.http_errors import PageNotFound
from jaula.api.http.router import Router, Routes
from jaula.api.routes import (
    ROUTES,
    all_routes,
    container_routes,
    exec_routes,
    image_routes,
    network_routes,
    nouns,
    routes_of,
    swarm,
    system_routes,
)
from jaula.features.build import routes as build

ROUTER = Router(ROUTES, nouns(), routes_of)


@pytest.mark.parametrize(
    ("method", "path", "handler", "name"),
    [
        ("GET", "/containers/json", container_routes.list_, ""),
        ("GET", "/containers/json/json", container_routes.inspect, "json"),
        ("GET", "/containers/abc/json", container_routes.inspect, "abc"),
        ("DELETE", "/containers/abc", container_routes.remove, "abc"),
        ("POST", "/containers/create", container_routes.create, ""),
        ("GET", "/jaula/containers/abc/spec", container_routes.spec, "abc"),
        ("POST", "/exec/abc/start", exec_routes.start, "abc"),
        ("GET", "/images/json", image_routes.list_, ""),
        ("GET", "/images/get", image_routes.save, ""),
        ("GET", "/images/busybox/get", image_routes.save, "busybox"),
        ("GET", "/images/127.0.0.1:5001/a/b:1/json", image_routes.inspect, "127.0.0.1:5001/a/b:1"),
        ("GET", "/images/json/json", image_routes.inspect, "json"),
        ("DELETE", "/images/127.0.0.1:5001/x:1", image_routes.remove, "127.0.0.1:5001/x:1"),
        ("DELETE", "/images/x/json", image_routes.remove, "x/json"),
        ("POST", "/images/a/b/push", None, "a/b"),
        ("GET", "/networks", network_routes.list_, ""),
        ("POST", "/networks/n/connect", network_routes.connect, "n"),
        ("GET", "/plugins/a/b/json", system_routes.plugin, "a/b"),
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
        return (("GET", "/late/{id}", image_routes.inspect),)

    router = Router((), ("late", "jaula/late"), load)
    assert router.find("GET", "/late/a") == (image_routes.inspect, "a")
    assert router.find("GET", "/late/b") == (image_routes.inspect, "b")
    for path in ("/jaula/late/a", "/jaula/late/a", "/other/a", "/other"):
        with pytest.raises(PageNotFound):
            router.find("GET", path)
    assert loaded == ["late", "jaula/late"]
