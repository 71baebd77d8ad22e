"""Settings of the web view."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.features.web import web_config
from jaula.features.web.web_config import WebConfig

FULL = b"""
listen = "127.0.0.1:9000"
hosts = ["view.example"]
session-hours = 2
[tls]
cert = "/c"
key = "/k"
client-ca = "/ca"
[oidc]
issuer = "https://login.example"
client-id = "jaula"
[oidc.users]
"alice@example.com" = "alice"
"""


def test_a_file_is_read() -> None:
    read = web_config.parse(FULL, "web.toml")
    assert read.tls is not None
    assert read.tls.client_ca == "/ca"
    assert read.oidc is not None
    assert read.oidc.users == {"alice@example.com": "alice"}
    assert read.oidc.claim == "email"
    assert read.session_hours == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"listen = 1", "listen"),
        (b"unknown = 1", "unknown"),
        (b"session-hours = 0", "greater than 0"),
        (b"[tls]\ncert='/c'", "key"),
        (b"[oidc]\nissuer='http://login.example'\nclient-id='a'\nusers={}", "https"),
        (b"[oidc]\nissuer='https://l'\nclient-id='a'\nusers={}\nscopes=['email']", "openid"),
        (b"\xff", "utf-8"),
        (b"[", "web.toml"),
    ],
)
def test_a_file_that_is_not_valid_is_refused_with_its_path(text: bytes, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem) as caught:
        web_config.parse(text, "web.toml")
    assert "web.toml" in str(caught.value)


@pytest.mark.parametrize("listen", ["0.0.0.0:8320", "192.0.2.1:8320", "[::]:8320"])
def test_an_address_that_others_reach_needs_tls(listen: str) -> None:
    with pytest.raises(InvalidRequest, match="without TLS"):
        web_config.check(WebConfig(listen=listen))
    web_config.check(WebConfig(listen=listen, tls=web_config.TlsFiles("c", "k")))


@pytest.mark.parametrize("listen", ["8320", "host:1", "127.0.0.1:", "127.0.0.1:70000", "1:x"])
def test_an_address_that_is_not_valid_is_refused(listen: str) -> None:
    with pytest.raises(InvalidRequest):
        web_config.address_of(listen)


def test_browsers_may_use_the_address_and_the_names_of_the_settings() -> None:
    hosts = web_config.allowed_hosts(WebConfig(hosts=("view.example",)), "http://127.0.0.1:8320")
    assert hosts == {
        *("127.0.0.1:8320", "localhost:8320"),
        *("view.example", "view.example:8320"),
    }
    assert "localhost:443" not in web_config.allowed_hosts(WebConfig(), "https://view.example")
