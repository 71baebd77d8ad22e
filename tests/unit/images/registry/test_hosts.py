"""The servers of a registry, and the keys of their credentials."""

from __future__ import annotations

import pytest

from jaula.config import RegistryConfig
from jaula.errors import InvalidRequest
from jaula.images.registry.registry_hosts import Hosts, credentials_key, domain_of


@pytest.mark.parametrize(
    ("server", "domain", "key"),
    [
        ("", "docker.io", "https://index.docker.io/v1/"),
        ("https://index.docker.io/v1/", "docker.io", "https://index.docker.io/v1/"),
        ("registry-1.docker.io", "docker.io", "https://index.docker.io/v1/"),
        ("quay.io", "quay.io", "quay.io"),
        ("https://quay.io/v2/", "quay.io", "quay.io"),
        ("127.0.0.1:5000", "127.0.0.1:5000", "127.0.0.1:5000"),
    ],
)
def test_which_registry_is_meant(server: str, domain: str, key: str) -> None:
    from jaula.cli.images import registry_auth

    assert domain_of(server) == domain
    assert credentials_key(domain) == key
    assert registry_auth.key(server) == key  # the client has its own, to import nothing


@pytest.mark.parametrize(
    ("image", "domain"),
    [("busybox", "docker.io"), ("a/b", "docker.io"), ("localhost/a", "localhost"),
     ("q.io/a/b:1", "q.io"), ("h:5000/a@sha256:1", "h:5000"), ("docker.io/a", "docker.io")],
)  # fmt: skip
def test_the_client_knows_an_images_registry(image: str, domain: str) -> None:
    from jaula.cli.images import registry_auth

    assert registry_auth.domain(image) == domain


def test_docker_hub_has_its_own_host_and_mirrors_come_first() -> None:
    hosts = Hosts(RegistryConfig(mirrors=("https://m.example.com", "http://127.0.0.1:5000")))
    names = [(e.name, e.mirror) for e in hosts.endpoints("docker.io")]
    assert names == [
        ("m.example.com", True),
        ("127.0.0.1:5000", True),
        ("registry-1.docker.io", False),
    ]
    assert [e.name for e in hosts.endpoints("quay.io")] == ["quay.io"]


@pytest.mark.parametrize(
    "config",
    [
        {"mirrors": ("http://m.example.com",)},
        {"mirrors": ("https://m/path",)},
        {"mirrors": ("ftp://m",)},
        {"realms": ("x",)},
    ],
)
def test_settings_that_cannot_be_are_refused(config: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(InvalidRequest):
        Hosts(RegistryConfig(**config)).endpoints("docker.io")  # type: ignore[arg-type]
