"""Which networks a request means, and what a container is called on them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jaula.engine.containers.resolved_request import resolve
from jaula.engine.networks import endpoints as network_endpoints
from jaula.engine.networks.dns_server import RATE, QueryQuota
from jaula.errors import InvalidRequest, NotFound
from jaula.spec.api_documents import ContainerCreate, HostConfig
from jaula.spec.api_networks import EndpointIPAMConfig, EndpointSettings, NetworkingConfig
from jaula.spec.endpoint_record import Endpoint
from jaula.spec.network_record import NetworkRecord, Pool
from jaula.state.container_records import ContainerRecord

KNOWN = {"bridge": "bridge", "host": "host", "none": "none", "shop": "shop", "ab12": "shop"}
WEB = EndpointSettings(aliases=("www",))


def find(ref: str) -> str:
    if ref not in KNOWN:
        raise NotFound(f"network {ref} not found")
    return KNOWN[ref]


def body(mode: str, **endpoints: EndpointSettings) -> ContainerCreate:
    return ContainerCreate(
        host_config=HostConfig(network_mode=mode),
        networking_config=NetworkingConfig(endpoints_config=endpoints),
    )


@pytest.mark.parametrize("mode", ["", "default", "bridge"])
def test_without_a_word_it_is_the_default_network(mode: str) -> None:
    assert network_endpoints.select_networks(body(mode), find) == {"bridge": EndpointSettings()}
    requested = {"default": WEB}
    assert network_endpoints.select_networks(body(mode, **requested), find) == {"bridge": WEB}


def test_the_mode_comes_first_and_may_be_an_id() -> None:
    found = network_endpoints.select_networks(
        body("ab12", bridge=EndpointSettings(), ab12=WEB), find
    )
    assert list(found.items()) == [("shop", WEB), ("bridge", EndpointSettings())]
    assert network_endpoints.select_networks(body("shop"), find) == {"shop": EndpointSettings()}


def test_endpoints_without_a_mode_are_the_only_networks() -> None:
    assert network_endpoints.select_networks(body("default", shop=WEB), find) == {"shop": WEB}


@pytest.mark.parametrize("mode", ["host", "none", "container:x"])
def test_modes_that_share_have_no_network(mode: str) -> None:
    assert network_endpoints.select_networks(body(mode), find) == {}
    with pytest.raises(InvalidRequest, match="conflicting options"):
        network_endpoints.select_networks(body(mode, shop=WEB), find)


def test_the_hosts_own_entry_is_no_network() -> None:
    assert network_endpoints.select_networks(body("host", host=EndpointSettings()), find) == {}


def test_an_unknown_network_is_an_error() -> None:
    with pytest.raises(NotFound, match="network nope not found"):
        network_endpoints.select_networks(body("nope"), find)


def record(mode: str = "", **fields: object) -> ContainerRecord:
    values: dict[str, object] = {"id": "c" * 64, "name": "web", "created": 0, "image": ""}
    values |= {"body": body(mode), "hostname": "pc", **fields}
    values["resolved_request"] = resolve(body(mode))
    return ContainerRecord(**values)  # type: ignore[arg-type]


def test_records_from_before_are_on_the_default_network() -> None:
    assert list(network_endpoints.settings_of(record())) == ["bridge"]
    assert network_endpoints.settings_of(record("host")) == {}
    assert network_endpoints.settings_of(record(networks={})) == {}


def test_a_container_is_called_by_name_alias_id_and_host_name() -> None:
    assert network_endpoints.dns_names(record(), WEB) == ("web", "www", "c" * 12, "pc")


def at(**addresses: Any) -> EndpointSettings:
    return EndpointSettings(ipam_config=EndpointIPAMConfig(**addresses))


NETWORK = NetworkRecord("shop", "a" * 64, 0, "br-x")
ASKED = NetworkRecord(
    *("shop", "a" * 64, 0, "br-x"),
    pools=(Pool("10.0.0.0/24", "10.0.0.9"), Pool("fd00::/64", "fd00::9")),
    asked_pools=True,
)


@pytest.mark.parametrize(
    ("name", "network", "settings"),
    [
        ("host", None, EndpointSettings()),
        ("none", None, EndpointSettings()),
        ("bridge", None, WEB),
        ("shop", NETWORK, EndpointSettings(links=("a:",))),
        (
            "shop",
            NETWORK,
            EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address="10.0.0.1")),
        ),
        ("shop", ASKED, EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address="x"))),
        ("shop", ASKED, EndpointSettings(ipam_config=EndpointIPAMConfig(ipv6_address="10.0.0.1"))),
        ("shop", ASKED, EndpointSettings(mac_address="zz")),
    ],
)
def test_settings_that_a_network_does_not_support_are_refused(
    name: str, network: NetworkRecord | None, settings: EndpointSettings
) -> None:
    with pytest.raises(InvalidRequest):
        network_endpoints.check(name, network, settings)


NO_SUBNET = (
    "user specified IP address is supported only when connecting to networks with user configured"
    " subnets"
)


@pytest.mark.parametrize(
    ("network", "addresses", "expected"),
    [
        (NETWORK, {"ipv4_address": "10.0.0.1"}, f"invalid endpoint settings:\n{NO_SUBNET}"),
        (
            ASKED,
            {"ipv4_address": "fd00::1", "ipv6_address": "::"},
            (
                "invalid endpoint settings:\n* invalid IPv4 address: fd00::1\n"
                "* invalid IPv6 address: ::\n"
                "* no configured subnet or ip-range contain the IP address fd00::1\n"
                "* no configured subnet or ip-range contain the IP address ::"
            ),
        ),
        (
            ASKED,
            {"ipv4_address": "10.0.1.1"},
            (
                "invalid endpoint settings:\n"
                "no configured subnet or ip-range contain the IP address 10.0.1.1"
            ),
        ),
        (
            ASKED,
            {"link_local_ips": ("x",)},
            "invalid endpoint settings:\ninvalid link-local IP address: x",
        ),
        (ASKED, {"link_local_ips": ("10.0.0.1",)}, "invalid link local IP address: 10.0.0.1"),
    ],
)
def test_every_error_of_the_addresses_is_reported_in_dockers_words(
    network: NetworkRecord, addresses: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        network_endpoints.check("shop", network, at(**addresses))
    assert caught.value.message == expected
    with pytest.raises(InvalidRequest) as caught:
        network_endpoints.check("shop", network, at(**addresses), new=True)
    assert caught.value.message.endswith(expected)
    named = caught.value.message.startswith("invalid config for network shop: ")
    assert named == ("invalid endpoint settings" in expected)


def test_links_are_aliases_of_one_container_for_another() -> None:
    settings = EndpointSettings(links=("shop-db-1:DB", "/cache:/me/fast", f"{'ab' * 32}:id", "me"))
    network_endpoints.check("shop", NETWORK, settings)
    assert network_endpoints.link_aliases(record(), settings) == {
        "db": "shop-db-1",
        "fast": "cache",
        "id": "abababababab",
        "me": "me",
    }


def test_supported_settings_are_accepted() -> None:
    requested = EndpointIPAMConfig(ipv4_address="10.0.0.1", ipv6_address="fd00::1")
    network_endpoints.check("shop", ASKED, EndpointSettings(ipam_config=requested, aliases=("a",)))


def test_interfaces_are_numbered_without_gaps() -> None:
    assert network_endpoints.free_interface([]) == "eth0"
    assert network_endpoints.free_interface(["eth0", "eth2"]) == "eth1"


def endpoint(network: str, families: str = "4", **fields: Any) -> Endpoint:
    """Return an endpoint with a gateway of each address family in ``families``."""
    four, six = "4" in families, "6" in families
    return Endpoint(
        network, f"id of {network}", "c", "c", "10.0.0.2" if four else "", 24,
        "10.0.0.1" if four else "", "02:42:0a:00:00:02", "jl0",
        ipv6="fd00::2" if six else "", gateway6="fd00::1" if six else "", **fields,
    )  # fmt: skip


INTERNAL = msgspec.structs.replace(endpoint("a"), gateway="", internal=True)


@pytest.mark.parametrize(
    ("endpoints", "priorities", "expected"),
    [
        ([], {}, ("", "")),
        ([INTERNAL], {"a": 9}, ("", "")),
        ([endpoint("shop"), endpoint("b"), INTERNAL], {}, ("b", "")),
        ([endpoint("shop"), endpoint("b"), INTERNAL], {"shop": 1, "a": 9}, ("shop", "")),
        ([endpoint("b"), endpoint("shop")], {"b": -1}, ("shop", "")),
        ([endpoint("a"), endpoint("b", "46")], {}, ("b", "b")),
        ([endpoint("a"), endpoint("b", "46")], {"a": 1}, ("a", "b")),
        ([endpoint("a", "6"), endpoint("b")], {}, ("b", "a")),
        ([endpoint("a", "46"), endpoint("b", "6")], {"b": 1}, ("a", "b")),
        ([endpoint("a", "6")], {}, ("", "a")),
    ],
)
def test_each_address_family_has_the_gateway_that_is_first_in_dockers_order(
    endpoints: list[Endpoint], priorities: dict[str, int], expected: tuple[str, str]
) -> None:
    settings = {name: EndpointSettings(gw_priority=value) for name, value in priorities.items()}
    for order in (endpoints, endpoints[::-1]):
        found = network_endpoints.gateways(order, settings)
        assert tuple(e.network if e else "" for e in found) == expected


def test_an_interface_whose_addresses_are_on_link_is_a_gateway() -> None:
    routed = msgspec.structs.replace(endpoint("wire"), gateway="", on_link=True)
    assert network_endpoints.gateways([routed], {}).ids == ("id of wire", "")


def test_questions_beyond_the_rate_wait_for_the_next_moment() -> None:
    allowance = QueryQuota()
    allowed = RATE // 10
    assert all(allowance.take(5.0) == 0.0 for _ in range(allowed))
    assert 0 < allowance.take(5.05) <= 0.1
    assert allowance.take(5.1) == 0.0
