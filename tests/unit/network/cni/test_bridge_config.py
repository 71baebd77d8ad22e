"""The configuration of a single node."""

from __future__ import annotations

import json

import pytest

from jaula.errors import InvalidRequest
from jaula.features.kubernetes.cni.bridge_config import bridge_conflist
from jaula.features.kubernetes.cni.cni_config import parse_list


def test_both_families_have_a_range_and_a_default_route() -> None:
    document = json.loads(bridge_conflist(["10.88.0.0/16", "fd00:88::/64"]))
    ipam = document["plugins"][0]["ipam"]
    assert ipam["ranges"] == [[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd00:88::/64"}]]
    assert ipam["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    network = parse_list(json.dumps(document).encode(), "x")
    assert [plugin.type for plugin in network.plugins] == ["bridge", "portmap"]
    assert network.plugins[1].capabilities == {"portMappings"}


@pytest.mark.parametrize("cidr", ["10.0.0.0/8", "fd00::/64", "10.0.0.0/29"])
def test_one_family_has_one_route(cidr: str) -> None:
    ipam = json.loads(bridge_conflist([cidr]))["plugins"][0]["ipam"]
    assert ipam["ranges"] == [[{"subnet": cidr}]]
    assert len(ipam["routes"]) == 1


@pytest.mark.parametrize(
    ("cidrs", "reason"),
    [
        ([], "must be one IPv4 subnet"),
        (["10.0.0.0/8", "10.1.0.0/16"], "must be one IPv4 subnet"),
        (["10.0.0.0/8", "fd00::/64", "fd01::/64"], "must be one IPv4 subnet"),
        (["x"], "invalid pod CIDR 'x'"),
        (["10.0.0.1/8"], "host bits set"),
        (["10.0.0.0/30"], "too small: at most /29"),
        (["fd00::/126"], "too small: at most /125"),
    ],
)
def test_an_unusable_subnet_is_one_error(cidrs: list[str], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        bridge_conflist(cidrs)


def test_a_name_is_checked() -> None:
    with pytest.raises(InvalidRequest, match=r"name '\.\./x'"):
        bridge_conflist(["10.0.0.0/8"], name="../x")
