"""The transport of a repository: pinned addresses, proxies, the ssh agent."""

from __future__ import annotations

import socket

import pytest

from jaula.errors import InvalidRequest, Unavailable
from jaula.features.build.files.remote.git_transport import GitTransports, authorization_of
from jaula.images.registry.http.proxy_choice import Proxies

NONE = Proxies("", "", "")


def looked_up(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    def answer(host: str, port: int, **options: object) -> list[object]:
        if not address:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def settings(url: str, *, agent: bool = False, host_network: bool = False) -> str:
    return " ".join(GitTransports(NONE, host_network=host_network, agent=agent).to(url).settings)


def test_git_uses_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up(monkeypatch, "192.0.2.7")
    reported = settings("https://h.example/u/r.git")
    assert "http.curloptResolve=h.example:443:192.0.2.7" in reported
    assert "http.followRedirects=false" in reported
    reported = settings("git@h.example:u/r.git")
    assert "-oHostName=192.0.2.7 -oHostKeyAlias=h.example" in reported
    assert "url.git://192.0.2.7:9418/.insteadOf=git://h.example/" in settings("git://h.example/r")


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "0.0.0.0"])
@pytest.mark.parametrize("url", ["https://h/r.git", "ssh://git@h/r", "git@h:r", "git://h/r"])
def test_addresses_of_the_host_itself_are_refused(
    monkeypatch: pytest.MonkeyPatch, url: str, address: str
) -> None:
    looked_up(monkeypatch, address)
    with pytest.raises(InvalidRequest, match="an address of the host itself"):
        settings(url)
    assert address not in settings(url, host_network=True)


def test_a_name_without_an_address_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up(monkeypatch, "")
    with pytest.raises(Unavailable, match="Name or service not known"):
        settings("https://h/r.git")


def test_a_proxy_resolves_names_and_its_password_is_not_in_the_arguments() -> None:
    proxies = Proxies("", "http://user:p%40ss@proxy:3128", "")
    route = GitTransports(proxies, host_network=False, agent=False).to("https://h.example/r.git")
    assert route.variables == {"https_proxy": "http://user:p%40ss@proxy:3128"}
    assert "p@ss" not in " ".join(route.settings) and "p%40ss" not in " ".join(route.settings)


def test_the_agent_is_for_ssh_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up(monkeypatch, "192.0.2.7")
    routes = GitTransports(NONE, host_network=False, agent=True)
    assert routes.to("ssh://git@h/r").variables == {"SSH_AUTH_SOCK": "/tmp/agent"}
    assert not routes.to("https://h/r.git").variables


@pytest.mark.parametrize(
    ("url", "scope"),
    [
        ("https://git.example.org/a/b.git", "https://git.example.org/a/b.git"),
        ("https://github.com/a/b.git", "https://github.com/"),
        ("https://github.com.evil.org/a.git", "https://github.com.evil.org/a.git"),
        ("http://u@h:8080/a.git", "http://u@h:8080/a.git"),
        ("git@github.com:a/b.git", ""),
        ("ssh://h/a.git", ""),
        ("git://h/a.git", ""),
    ],
)
def test_a_token_has_a_scope(url: str, scope: str) -> None:
    made = authorization_of(url, {"GIT_AUTH_TOKEN": b"t"}.get)
    assert made.get("GIT_CONFIG_KEY_0", "") == (f"http.{scope}.extraheader" if scope else "")
    assert authorization_of(url, lambda id: None) == {}


@pytest.mark.parametrize("data", [b"a\nb", b"\xff", b"a\0b"])
def test_a_token_that_no_header_can_carry_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="is not a token"):
        authorization_of("https://h/a.git", {"GIT_AUTH_TOKEN": data}.get)
