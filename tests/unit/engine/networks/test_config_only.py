"""Config-only networks, and networks that take their settings."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jaula.engine.networks import config_only, network_inspect
from jaula.errors import JaulaError, NotAuthorized, NotFound
from jaula.spec.api_networks import IPAM, ConfigReference, IPAMPool, NetworkCreate
from jaula.spec.network_record import NetworkRecord, Pool

ID = "ab" * 32
POOL = IPAMPool(
    subnet="10.1.0.0/24", ip_range="10.1.0.64/26", auxiliary_addresses={"a": "10.1.0.9"}
)
FROM: dict[str, Any] = {"config_from": ConfigReference(network="plan")}


def body(**fields: Any) -> NetworkCreate:
    return NetworkCreate(name="shop", **fields)


def plan(**fields: Any) -> NetworkRecord:
    return config_only.config_record(body(config_only=True, **fields), ID)


def test_settings_are_stored_as_requested() -> None:
    made = plan(
        driver="macvlan",
        ipam=IPAM(config=(POOL, IPAMPool(subnet="fd00::/64", gateway="fd00::9"))),
        enable_ipv6=True,
        options={"parent": "eth0"},
        labels={"a": "b"},
    )
    assert (made.driver, made.bridge, made.parent, made.config_only) == ("null", "", "", True)
    assert made.pools == (
        Pool("10.1.0.0/24", "", "10.1.0.64/26", {"a": "10.1.0.9"}),
        Pool("fd00::/64", "fd00::9"),
    )
    shown = network_inspect.document(made)
    assert (shown["Driver"], shown["ConfigOnly"], shown["ConfigFrom"]) == (
        "null",
        True,
        {"Network": ""},
    )
    assert shown["IPAM"]["Config"][1] == {"Subnet": "fd00::/64", "Gateway": "fd00::9"}
    assert "Gateway" not in shown["IPAM"]["Config"][0]
    assert network_inspect.document(plan())["IPAM"]["Config"] is None


@pytest.mark.parametrize(
    "pools",
    [
        (IPAMPool(subnet="nonsense"),),
        (IPAMPool(gateway="10.1.0.1"),),
        (IPAMPool(subnet="10.1.0.0/24", gateway="10.2.0.1"),),
        (POOL, IPAMPool(subnet="10.2.0.0/24")),
        (IPAMPool(subnet="10.1.0.0/24", ip_range="x"),),
    ],
)
def test_subnets_that_cannot_be_are_refused_at_once(pools: tuple[IPAMPool, ...]) -> None:
    with pytest.raises(JaulaError):
        plan(ipam=IPAM(config=pools))


@pytest.mark.parametrize(
    "fields", [{"ingress": True}, {"internal": True}, {"attachable": True}, {"scope": "local"}]
)
def test_settings_are_of_a_network_and_not_of_its_operator(fields: dict[str, Any]) -> None:
    config_only.check(body(**fields))
    with pytest.raises(NotAuthorized, match="only contain network specific fields"):
        config_only.check(body(config_only=True, **fields))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"ipam": IPAM(config=(POOL,))}, "user specified configurations"),
        ({"ipam": IPAM(driver="other")}, "user specified configurations"),
        ({"ipam": IPAM(options={"a": "b"})}, "user specified configurations"),
        ({"enable_ipv6": True}, "user specified configurations"),
        ({"labels": {"a": "b"}}, "user specified configurations"),
        ({"options": {"a": "b"}}, "network driver options"),
        ({"config_only": True}, "cannot depend on another"),
    ],
)
def test_config_from_excludes_settings_of_ones_own(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(NotAuthorized, match=words):
        config_only.check(body(**FROM, **fields))
    config_only.check(body(**FROM, internal=True, attachable=True, scope="local"))
    config_only.check(body(**FROM, ipam=IPAM(driver="default")))


def test_a_network_takes_all_of_them() -> None:
    found = plan(
        ipam=IPAM(config=(POOL,)), enable_ipv6=True, options={"mtu": "9"}, labels={"a": "b"}
    )
    whole = config_only.apply_config(body(**FROM, driver="ipvlan", internal=True), found)
    assert (whole.enable_ipv6, whole.options, whole.labels) == (True, {"mtu": "9"}, {"a": "b"})
    assert whole.ipam == IPAM(config=(POOL,))
    assert (whole.driver, whole.internal, whole.name) == ("ipvlan", True, "shop")


@pytest.mark.parametrize("found", [None, NetworkRecord("plan", ID, 1, "br-1")])
def test_a_missing_config_only_network_is_not_found(found: NetworkRecord | None) -> None:
    with pytest.raises(NotFound, match='configuration network "plan" does not exist'):
        config_only.apply_config(body(**FROM), found)


def test_records_older_than_config_only_are_networks() -> None:
    old = b'{"name":"shop","id":"ab","created":1,"bridge":"br-1"}'
    network = msgspec.json.decode(old, type=NetworkRecord)
    assert (network.config_only, network.config_from) == (False, "")
