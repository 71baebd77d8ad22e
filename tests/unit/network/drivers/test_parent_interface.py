"""Interfaces of the host that networks lie on, by their names."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.network.drivers.parent_interface import parse_vlan_name


def test_a_name_with_a_tag_says_on_what_it_is_made() -> None:
    assert parse_vlan_name("eth0.10") == ("eth0", 10)
    assert parse_vlan_name("bond0.7.4094") == ("bond0.7", 4094)


@pytest.mark.parametrize(
    "name", ["eth0", "eth0.", ".10", "eth0.0", "eth0.4095", "eth0.1a", "eth0.²"]
)
def test_other_names_say_nothing(name: str) -> None:
    with pytest.raises(InvalidRequest, match="does not exist"):
        parse_vlan_name(name)
