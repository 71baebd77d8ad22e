"""Host, Origin and Fetch Metadata of requests."""

from __future__ import annotations

import pytest

from jaula.features.web.http_checks import POLICY, refusal

HOSTS = frozenset({"127.0.0.1:8320", "localhost:8320"})
OWN = frozenset({"http://127.0.0.1:8320", "http://localhost:8320"})
HOST, ORIGIN = (b"host", b"127.0.0.1:8320"), (b"origin", b"http://127.0.0.1:8320")


def refused(kind: str, method: str, *headers: tuple[bytes, bytes]) -> str:
    found = refusal(kind, method, dict(headers), HOSTS, OWN)
    return "" if found is None else f"{found.status} {found.reason}"


def test_a_page_of_the_view_may_do_everything() -> None:
    assert refused("http", "GET", HOST) == ""
    assert refused("http", "POST", HOST, ORIGIN, (b"sec-fetch-site", b"same-origin")) == ""
    assert refused("websocket", "GET", HOST, ORIGIN) == ""
    assert refused("http", "GET", (b"host", b"LOCALHOST:8320")) == ""


@pytest.mark.parametrize("host", [b"evil.example:8320", b"127.0.0.1", b"", b"127.0.0.1:8321"])
def test_another_name_is_refused_so_that_dns_cannot_be_rebound(host: bytes) -> None:
    assert refused("http", "GET", (b"host", host)).startswith("421 this name")


def test_a_request_without_a_host_is_refused() -> None:
    assert refused("http", "GET") != ""


@pytest.mark.parametrize(
    "origin", [b"http://evil.example", b"null", b"https://127.0.0.1:8320", b"http://127.0.0.1:80"]
)
@pytest.mark.parametrize(("kind", "method"), [("http", "POST"), ("websocket", "GET")])
def test_a_page_of_another_origin_is_refused(kind: str, method: str, origin: bytes) -> None:
    assert "403 a page of another origin" in refused(kind, method, HOST, (b"origin", origin))
    assert refused("http", "GET", HOST, (b"origin", origin)) != ""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_change_needs_an_origin(method: str) -> None:
    assert refused("http", method, HOST) != ""


def test_fetch_metadata_of_another_site_is_refused() -> None:
    assert "site" in refused("http", "POST", HOST, ORIGIN, (b"sec-fetch-site", b"same-site"))


def test_the_policy_of_pages_has_no_inline_and_no_other_source() -> None:
    assert "unsafe" not in POLICY
    assert "http" not in POLICY.replace("'none'", "")
    assert "default-src 'none'" in POLICY
    assert "frame-ancestors 'none'" in POLICY
