"""Platforms and manifests of images in requests, and the versions that brought their members."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from jaula.api import compat
from jaula.api.http import http_session, router
from unit.api.client import Served, served

ARM = quote(json.dumps({"os": "linux", "architecture": "arm64", "variant": "v8"}))
AMD = quote(json.dumps({"architecture": "amd64"}))


@pytest.fixture
def newest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept the versions of Docker 29."""
    for module in (router, http_session):
        monkeypatch.setattr(module, "MAXIMUM", (1, 55))


@pytest.mark.parametrize(
    ("method", "path", "call"),
    [
        ("DELETE", f"/images/a:1?platforms={ARM}&platforms={AMD}",
         ("remove", "a:1", "linux/arm64/v8", "linux/amd64")),
        ("DELETE", "/images/a:1", ("remove", "a:1")),
        ("GET", f"/images/a:1/get?platform={ARM}&platform={AMD}",
         ("save", "a:1", "linux/arm64/v8", "linux/amd64")),
        ("GET", f"/images/get?names=a,b&platform={ARM}", ("save", "a", "b", "linux/arm64/v8")),
        ("POST", f"/images/load?platform={ARM}&platform={AMD}",
         ("load", "linux/arm64/v8", "linux/amd64")),
        ("GET", "/images/json", ("list", False, False)),
        ("GET", "/images/json?manifests=1", ("list", True, False)),
        ("GET", "/images/json?identity=1", ("list", False, True)),
    ],
)  # fmt: skip
def test_the_platforms_of_a_request_reach_the_engine(
    method: str, path: str, call: tuple[Any, ...]
) -> None:
    async def test(server: Served) -> None:
        body = b"" if method == "POST" else None
        answer = await (await server.client()).ask(method, path, body)
        assert answer.status == 200, answer.body
        assert server.engine.images.calls[-1] == call

    served(test)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/images/a/json?platform=linux/arm64", "failed to parse platform"),
        ("/images/a/history?platform=[]", "failed to parse platform"),
        ('/images/a/json?platform={"architecture":"a%20b"}', "invalid component"),
        (f"/images/a/json?platform={ARM}&manifests=1", "conflicting options"),
        (f"/images/a/attestations?platform={ARM}&platform={AMD}", "only one platform"),
        ("/images/a/get?" + "&".join(f"platform={AMD}" for _ in range(65)), "the limit of 64"),
    ],
)
def test_an_invalid_platform_is_refused(path: str, message: str) -> None:
    async def test(server: Served) -> None:
        answer = await (await server.client()).ask("GET", path.replace('"', "%22"))
        assert answer.status == 400
        assert message in answer.message

    served(test)


def test_one_platform_is_inspected() -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        for path in (f"/images/a/b/json?platform={ARM}", f"/images/a/b/history?platform={ARM}"):
            document = (await client.ask("GET", path)).json()
            document = document[0] if isinstance(document, list) else document
            assert (document["Id"], document["Platform"]) == ("a/b", "linux/arm64/v8")
        document = (await client.ask("GET", "/images/a/b/json?manifests=1")).json()
        assert document["Manifests"] == []
        path = f"/images/a/b/attestations?platform={ARM}&type=x&type=y&statement=1"
        assert (await client.ask("GET", path)).json() == [
            {"For": "a/b", "Platform": "linux/arm64/v8", "Types": ["x", "y"], "Statement": True}
        ]

    served(test)


def test_members_appear_from_the_version_that_brought_them(newest: None) -> None:
    async def test(server: Served) -> None:
        client = await server.client()
        for version, members in (
            ("v1.44", set()),
            ("v1.47", set()),
            ("v1.48", {"Descriptor"}),
            ("v1.52", {"Descriptor"}),
            ("v1.53", {"Descriptor", "Identity"}),
            ("v1.55", {"Descriptor", "Identity"}),
        ):
            document = (await client.ask("GET", f"/{version}/images/a/json")).json()
            assert document.keys() & {"Descriptor", "Identity"} == members, version
            (listed,) = (await client.ask("GET", f"/{version}/images/json")).json()
            assert ("Descriptor" in listed) == ("Descriptor" in members), version

    served(test)


def test_a_document_is_not_changed_for_a_version() -> None:
    document = {"Size": 1, "Descriptor": {}, "Config": {}}
    assert "Descriptor" not in compat.image(document, (1, 47))
    assert compat.images([document], (1, 48)) == [document]
    assert document == {"Size": 1, "Descriptor": {}, "Config": {}}
