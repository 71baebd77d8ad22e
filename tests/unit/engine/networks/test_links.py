"""What a link is: its text, its lines, and who has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.engine.containers.resolved_request import resolve
from jaula.engine.model.container import Container
from jaula.engine.model.container_store import ContainerStore
from jaula.engine.networks import container_links
from jaula.engine.networks import endpoints as network_endpoints
from jaula.errors import InvalidRequest, NotFound
from jaula.spec.api_documents import ContainerCreate, HostConfig
from jaula.spec.api_networks import EndpointSettings
from jaula.spec.endpoint_record import Endpoint
from jaula.state.container_records import ContainerRecord, Link
from jaula.state.database import Database


def record(*endpoints: Endpoint, **host: Any) -> ContainerRecord:
    body = ContainerCreate(image="busybox", host_config=HostConfig(**host))
    first = endpoints[0] if endpoints else None
    return ContainerRecord(
        *("ab" * 32, "web", 1, body, "sha256:00"),
        endpoint=first,
        more_endpoints=endpoints[1:],
        resolved_request=resolve(body),
    )


def endpoint(network: str, ipv4: str) -> Endpoint:
    return Endpoint(network, "e", "c", "store", ipv4, 24, "", "", "")


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("store", Link("store", "store")),
        ("store:db", Link("store", "db")),
        ("/store:/web/db", Link("store", "db")),
    ],
)
def test_a_link_is_read_as_the_client_or_inspect_writes_it(text: str, link: Link) -> None:
    assert container_links.parse(text) == link


@pytest.mark.parametrize("text", ["", ":db", "store:", "a:b:c"])
def test_a_link_without_a_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="bad format for links"):
        container_links.parse(text)


def test_a_link_is_removed_from_the_body_and_the_resolved_request(
    tmp_path: Path, open_database: Callable[[Path], Database]
) -> None:
    registry = ContainerStore(open_database(tmp_path / "db"))
    made = record(links=("store:db", "/store:/web/db2", "db", "other"))
    registry.reserve(made.name, made.id)
    container = Container(made)
    registry.add(container)
    services = SimpleNamespace(container_store=registry)
    for name in ("web/db", "/web/db2"):
        assert container_links.link_parent(services, name) is container  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        container_links.link_parent(services, "web/store")  # type: ignore[arg-type]
    config = SimpleNamespace(paths=SimpleNamespace(container=lambda id: tmp_path / id))
    services.config = config
    container_links.remove_link(services, "web/db")  # type: ignore[arg-type]
    assert container.record.body.host_config.links == ("/store:/web/db2", "other")
    assert container.record.resolved.links == (Link("store", "db2"), Link("other", "other"))


def test_a_link_on_the_default_network_is_no_alias_on_other_networks() -> None:
    settings = EndpointSettings(links=("cache:fast",))
    assert network_endpoints.link_aliases(record(links=("store:db",)), settings) == {
        "fast": "cache"
    }
    own = record(links=("store:db",), network_mode="shop")
    assert network_endpoints.link_aliases(own, settings) == {"db": "store", "fast": "cache"}


def test_the_address_is_that_on_a_network_of_both() -> None:
    store = record(endpoint("shop", "10.1.0.2"), endpoint("bridge", "10.0.0.2"))
    assert container_links.address_on(network_endpoints.settings_of(record()), store) == "10.0.0.2"
    assert container_links.address_on({"other"}, store) == ""
    assert container_links.address_on({"bridge"}, record()) == ""
