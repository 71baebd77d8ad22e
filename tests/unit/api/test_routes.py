"""The calls of each route to the engine, and its answers."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from jaula.api.http import http_request
from jaula.spec.decode import decode
from jaula.spec.image_documents import Platform
from unit.api.client import Served, served


@pytest.mark.parametrize(
    ("request_line", "call"),
    [
        ("POST /containers/a/stop?t=3&signal=INT", ("stop", "a", 3, "INT")),
        ("POST /containers/a/stop", ("stop", "a", None, None)),
        ("POST /containers/a/restart?t=-1", ("restart", "a", -1, None)),
        ("POST /containers/a/kill?signal=9", ("kill", "a", "9")),
        ("POST /containers/a/resize?h=40&w=100", ("resize", "a", 40, 100)),
        ("GET /containers/json?all=1&limit=-1", ("list", True, None, {}, False, False)),
        (
            "GET /containers/json?limit=2&size=1&filters={%22name%22:[%22x%22]}",
            ("list", False, 2, {"name": ["x"]}, True, False),
        ),
    ],
)
def test_a_query_reaches_the_engine(request_line: str, call: tuple[Any, ...]) -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        await client.ask("POST", "/containers/create?name=a", {})
        answer = await client.ask(*request_line.split(" ", 1))
        assert answer.status in (200, 204)
        assert server.engine.containers.calls[-1] == call

    served(test)


@pytest.mark.parametrize(
    "path",
    [
        "/containers/a/resize?h=1",
        "/containers/a/resize?h=x&w=1",
        "/containers/a/resize?h=65536&w=1",
        "/containers/a/stop?t=soon",
        "/images/create",
        "/images/create?fromSrc=http://example.com/x.tar",
        "/images/busybox/tag",
    ],
)
def test_a_query_with_invalid_values_is_rejected(path: str) -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        await client.ask("POST", "/containers/create?name=a", {})
        answer = await client.ask("POST", path)
        assert answer.status == 400
        assert answer.message

    served(test)


@pytest.mark.parametrize(
    ("method", "path", "status", "needle"),
    [
        ("GET", "/swarm", 503, "This node is not a swarm manager"),
        ("GET", "/nodes", 503, "This node is not a swarm manager"),
        ("GET", "/services?status=true", 503, "This node is not a swarm manager"),
        ("GET", "/tasks/x", 503, "This node is not a swarm manager"),
        ("POST", "/swarm/leave?force=1", 503, "This node is not part of a swarm"),
        ("POST", "/swarm/init", 501, "no swarm mode"),
        ("GET", "/images/search?term=", 400, "term is required"),
        ("GET", "/plugins/x/json", 404, 'plugin "x" not found'),
        ("GET", "/containers/a/archive?path=/", 404, "No such container"),
        ("GET", "/volumes/nosuch", 404, "no such volume"),
        ("GET", "/system/df?type=socks", 400, "unknown object type"),
        ("GET", "/events?since=2&until=1", 400, "`since`"),
    ],
)
def test_a_missing_object_is_reported_by_its_status_and_text(
    method: str, path: str, status: int, needle: str
) -> None:
    async def test(server: Served) -> None:
        answer = await (await server.client()).ask(method, path)
        assert answer.status == status
        assert needle in answer.message

    served(test)


@pytest.mark.parametrize(("size", "beside"), [(100, False), (100_000, True)])
def test_a_long_document_is_decoded_beside_the_event_loop(
    size: int, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = threading.current_thread()
    outside: list[bool] = []

    def recorded(data: bytes, kind: type[Any]) -> Any:
        outside.append(threading.current_thread() is not own)
        return decode(data, kind)

    monkeypatch.setattr(http_request, "decode", recorded)

    async def test(server: Served) -> None:
        client = await server.client()
        answer = await client.ask(
            "POST", "/containers/create?name=a", {"Labels": {"a": "b" * size}}
        )
        assert answer.status == 201
        answer = await client.ask("POST", "/containers/create", {"Labels": {"a": ["b" * size]}})
        assert (answer.status, answer.message) == (
            400,
            "invalid JSON: json: cannot unmarshal array into Go struct field Labels of type string",
        )

    served(test)
    assert outside == [beside, beside]


def test_long_documents_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document of empty objects takes 25 times its bytes until it is refused."""
    active: list[int] = []
    most: list[int] = []

    def recorded(data: bytes, kind: type[Any]) -> Any:
        active.append(1)
        most.append(len(active))
        time.sleep(0.02)  # in which another thread could begin
        active.pop()
        return decode(data, kind)

    monkeypatch.setattr(http_request, "decode", recorded)

    async def test(server: Served) -> None:
        clients = [await server.client() for _ in range(4)]
        body = {"Labels": {"a": "b" * 100_000}}
        answers = await asyncio.gather(
            *(c.ask("POST", f"/containers/create?name=a{n}", body) for n, c in enumerate(clients))
        )
        assert [answer.status for answer in answers] == [201] * 4

    served(test)
    assert most == [1, 1, 1, 1]


def test_the_rest_of_the_routes_answer() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        await client.ask("POST", "/containers/create?name=a", {})
        for method, path, status in [
            ("GET", "/plugins", 200),
            ("GET", "/info", 200),
            ("GET", "/containers/a/top?ps_args=-o%20pid", 200),
            ("GET", "/containers/a/changes", 200),
            ("GET", "/jaula/containers/a/spec", 200),
            ("POST", "/containers/a/rename?name=b", 204),
            ("POST", "/containers/prune", 200),
            ("POST", "/images/a/tag?repo=b&tag=c", 201),
            ("DELETE", "/images/a:1?force=1", 200),
            ("GET", "/images/json", 200),
            ("GET", "/images/a/history", 200),
            ("POST", "/images/prune", 200),
            ("GET", "/volumes", 200),
            ("DELETE", "/volumes/v?force=1", 204),
            ("POST", "/volumes/prune", 200),
            ("GET", "/networks", 200),
            ("GET", "/networks/bridge", 200),
            ("DELETE", "/networks/n", 204),
            ("POST", "/networks/prune", 200),
            ("POST", "/build/prune?filters=&keep-storage=0", 200),
            ("POST", "/exec/e1/resize?h=1&w=2", 200),
            ("GET", "/images/a/b/get", 200),
        ]:
            assert (await client.ask(method, path)).status == status, path
        for path, body, status in [
            ("/volumes/create", {"Name": "v"}, 201),
            ("/networks/create", {"Name": "n"}, 201),
            ("/networks/n/connect", {"Container": "b"}, 200),
            ("/networks/n/disconnect", {"Container": "b"}, 200),
            ("/containers/b/update", {"Memory": 5}, 200),
        ]:
            assert (await client.ask("POST", path, body)).status == status, path
        usage = await client.ask("GET", "/v1.45/system/df?type=image&type=volume")
        keys = ["BuildCache", "Containers", "Images", "LayersSize", "Volumes"]
        assert sorted(usage.json()) == keys
        assert usage.json()["Containers"] is None

    served(test)


def test_images_are_saved_by_several_names_and_imported_with_their_changes() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        saved = await client.ask("GET", "/images/get?names=a&names=b,c")
        assert saved.headers["content-type"] == "application/x-tar"
        assert server.engine.images.calls[-1] == ("save", "a", "b", "c")
        path = "/images/create?fromSrc=-&repo=imp&tag=1&message=m&changes=CMD+x&changes=ENV+a%3Db"
        path += "&platform=linux/s390x"
        assert (await client.ask("POST", path, b"tar")).status == 200
        assert server.engine.images.calls[-1] == (
            "import",
            "imp",
            "1",
            ("CMD x", "ENV a=b"),
            "m",
            Platform("s390x", "linux"),
            b"tar",
        )

    served(test)
