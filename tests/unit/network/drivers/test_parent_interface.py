"""Names of parent interfaces."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.network.drivers.parent_interface import parse_vlan_name


def test_a_vlan_name_has_a_base_interface_and_a_tag() -> None:
    assert parse_vlan_name("eth0.10") == ("eth0", 10)
    assert parse_vlan_name("bond0.7.4094") == ("bond0.7", 4094)


@pytest.mark.parametrize(
    "name", ["eth0", "eth0.", ".10", "eth0.0", "eth0.4095", "eth0.1a", "eth0.²"]
)
def test_other_names_are_not_vlan_names(name: str) -> None:
    with pytest.raises(InvalidRequest, match="does not exist"):
        parse_vlan_name(name)
