"""From a request to a network's record."""

from __future__ import annotations

from typing import Any

import pytest

from jaula.engine.networks import create_network, network_inspect
from jaula.errors import InvalidRequest, JaulaError
from jaula.spec.api_networks import IPAM, ConfigReference, NetworkCreate

ID = "ab" * 32
PAST = "io.jaula.publish_past_firewall"
BINDING = "com.docker.network.bridge.host_binding_ipv4"


def body(**fields: Any) -> NetworkCreate:
    return NetworkCreate(name="shop", **fields)


def test_a_bridge_is_named_after_the_network_and_follows_the_engines_settings() -> None:
    made = create_network.network(body(), ID)
    assert (made.driver, made.bridge, made.parent) == ("bridge", "br-abababababab", "")
    assert (made.past_firewall, made.host_binding) == (None, "")
    relaxed = network_inspect.document(made, past_firewall=True)
    assert relaxed["Options"] == {PAST: "true"}
    assert network_inspect.document(made)["Options"] == {}


def test_options_of_the_network_override_the_engines() -> None:
    options = {PAST: "false", BINDING: "127.0.0.1"}
    made = create_network.network(body(options=options), ID)
    assert (made.past_firewall, made.host_binding) == (False, "127.0.0.1")
    assert network_inspect.document(made, past_firewall=True)["Options"] == options


IPV4, IPV6 = "com.docker.network.enable_ipv4", "com.docker.network.enable_ipv6"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (True, False, {})),
        ({"enable_ipv4": False, "enable_ipv6": True}, (False, True, {})),
        ({"options": {IPV4: "0", IPV6: "T"}}, (False, True, {IPV4: "0", IPV6: "T"})),
        ({"enable_ipv6": False, "options": {IPV6: "true"}}, (True, False, {})),
        ({"driver": "macvlan", "enable_ipv4": False}, (False, False, {})),
    ],
)
def test_the_member_decides_an_address_family_before_the_option(
    fields: dict[str, Any], expected: tuple[bool, bool, dict[str, str]]
) -> None:
    decided = create_network.with_families(body(**fields))
    made = create_network.network(decided, ID)
    assert (made.ipv4, made.ipv6, made.driver_options) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"enable_ipv4": False}, "IPv4 or IPv6 must be enabled"),
        ({"options": {IPV4: "f"}}, "IPv4 or IPv6 must be enabled"),
        ({"options": {IPV6: ""}}, f'driver-opt "{IPV6}" is not a valid bool'),
        ({"options": {IPV4: "0x0"}}, f'driver-opt "{IPV4}" is not a valid bool'),
    ],
)
def test_a_bridge_without_address_and_odd_truth_values_are_refused(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        create_network.with_families(body(**fields))
    assert caught.value.message == message


def test_macvlan_and_ipvlan_lie_on_a_parent() -> None:
    options = {"parent": "eth0.10", "macvlan_mode": "private"}
    made = create_network.network(body(driver="macvlan", options=options), ID)
    assert (made.driver, made.parent, made.mode) == ("macvlan", "eth0.10", "private")
    assert (made.bridge, made.internal) == ("", False)
    other = create_network.network(body(driver="ipvlan", options={"parent": "eth0"}), ID)
    assert (other.mode, other.flag) == ("l2", "bridge")
    assert PAST not in network_inspect.document(made, past_firewall=True)["Options"]


def test_without_a_parent_they_are_internal() -> None:
    made = create_network.network(body(driver="macvlan"), ID)
    assert (made.parent, made.internal) == ("dm-abababababab", True)


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("macvlan", {"parent": "a/b"}),
        ("macvlan", {"parent": "sixteen_letters_"}),
        ("macvlan", {"parent": ".."}),
        ("macvlan", {"macvlan_mode": "l2"}),
        ("ipvlan", {"ipvlan_mode": "bridge"}),
        ("ipvlan", {"ipvlan_flag": "passthru"}),
        ("bridge", {PAST: "perhaps"}),
        ("bridge", {BINDING: "::1"}),
    ],
)
def test_an_option_that_cannot_be_is_refused(driver: str, options: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        create_network.network(body(driver=driver, options=options), ID)


def test_unsupported_kinds_of_networks_are_refused() -> None:
    create_network.check(body(driver="macvlan"))
    for fields in ({"ingress": True}, {"driver": "overlay"}, {"scope": "swarm"}):
        with pytest.raises(JaulaError, match=r"swarm|Ingress"):
            create_network.check(body(**fields))
    with pytest.raises(JaulaError, match='plugin "nosuch" not found'):
        create_network.check(body(driver="nosuch"))


def test_settings_are_of_no_driver() -> None:
    for driver in ("", "macvlan", "host", "nosuch"):
        create_network.check(body(driver=driver, config_only=True))
    for fields in ({"driver": "overlay"}, {"name": "\n"}, {"ipam": IPAM(driver="nosuch")}):
        with pytest.raises(JaulaError):
            create_network.check(NetworkCreate(**{"name": "plan", "config_only": True} | fields))


def test_a_network_names_its_config_only_network() -> None:
    for driver in ("bridge", "macvlan", "ipvlan"):
        made = create_network.network(
            body(
                driver=driver,
                config_from=ConfigReference(network="plan"),
                options={"parent": "eth0"},
            ),
            ID,
        )
        assert made.config_from == "plan"
        assert network_inspect.document(made)["ConfigFrom"] == {"Network": "plan"}
    assert create_network.network(body(config_from=ConfigReference()), ID).config_from == ""
