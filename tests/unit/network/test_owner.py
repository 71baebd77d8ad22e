"""The engine that a link belongs to."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.network.drivers.bridge import check_bridge_name
from jaula.network.owner import LinkOwner

OWN, ALIVE, GONE = "jaula engine a", "jaula engine b", "jaula engine c"


@pytest.mark.parametrize(
    ("alias", "other", "may_mark", "may_delete"),
    [
        ("", "", True, True),
        (OWN, "", False, True),
        (ALIVE, "b", True, False),
        (GONE, "", True, True),
        ("uplink of the rack", "", False, False),
    ],
)
def test_an_alias_tells_the_owner(alias: str, other: str, may_mark: bool, may_delete: bool) -> None:
    owner = LinkOwner("a", lambda engine: engine == "b")
    assert owner.mark == OWN
    assert owner.other(alias) == other
    assert (owner.may_mark(alias), owner.may_delete(alias)) == (may_mark, may_delete)


@pytest.mark.parametrize("name", ["jaula_x", "jaula_", "x_egress", "jaula0_listen", "_egress"])
def test_a_name_of_another_bridges_tables_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="bridge name"):
        check_bridge_name(name)


@pytest.mark.parametrize("name", ["jaula0", "br-0123456789ab", "egress", "x_egress0", "docker0"])
def test_other_names_are_accepted(name: str) -> None:
    assert check_bridge_name(name) == name
