"""What a link is: its text, its lines, and who has it."""

from __future__ import annotations

from typing import Any

import pytest

from jaula.engine.networks import endpoints as network_endpoints
from jaula.engine.networks import links
from jaula.engine.networks.links import Link
from jaula.errors import InvalidRequest
from jaula.spec.api import ContainerCreate, HostConfig
from jaula.spec.api_networks import EndpointSettings
from jaula.spec.endpoint import Endpoint
from jaula.state.records import ContainerRecord


def record(*endpoints: Endpoint, **host: Any) -> ContainerRecord:
    body = ContainerCreate(image="busybox", host_config=HostConfig(**host))
    first = endpoints[0] if endpoints else None
    return ContainerRecord(
        *("ab" * 32, "web", 1, body, "sha256:00"), endpoint=first, more_endpoints=endpoints[1:]
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
    assert links.parse(text) == link


@pytest.mark.parametrize("text", ["", ":db", "store:", "a:b:c"])
def test_a_link_without_a_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="bad format for links"):
        links.parse(text)


def test_links_are_found_by_their_alias() -> None:
    texts = ("store:db", "/store:/web/db2", "db")
    assert links.called(texts, "db") == ("store:db", "db")
    assert links.called(texts, "store") == ()


def test_a_link_on_the_default_network_is_no_name_on_others() -> None:
    settings = EndpointSettings(links=("cache:fast",))
    assert network_endpoints.linked(record(links=("store:db",)), settings) == {"fast": "cache"}
    own = record(links=("store:db",), network_mode="shop")
    assert network_endpoints.linked(own, settings) == {"db": "store", "fast": "cache"}


def test_the_address_is_that_on_a_network_of_both() -> None:
    store = record(endpoint("shop", "10.1.0.2"), endpoint("bridge", "10.0.0.2"))
    assert links.address_on(links.networks(record()), store) == "10.0.0.2"
    assert links.address_on({"other"}, store) == ""
    assert links.address_on({"bridge"}, record()) == ""
