"""The entitlements of a RUN."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jaula.engine.relaxations import Privilege, Relaxation
from jaula.errors import NotAuthorized
from jaula.features.build.build_options import BuildOptions
from jaula.features.build.builder.build_image import step_options
from jaula.images.dockerfile.ast import Location, Network, Run, Security


def run(**fields: Any) -> Run:
    return msgspec.structs.replace(
        Run(location=Location(1, 1), source="RUN x", command=("x",), shell_form=True), **fields
    )


@pytest.mark.parametrize(
    ("fields", "allow", "privileges"),
    [
        ({}, (), []),
        ({"network": Network.NONE}, (), []),
        (
            {"network": Network.HOST},
            ("network.host",),
            [Privilege(Relaxation.HOST_NAMESPACE, "network")],
        ),
        (
            {"security": Security.INSECURE},
            ("security.insecure",),
            [Privilege(Relaxation.PRIVILEGED)],
        ),
    ],
)
def test_the_privileges_of_a_run_are_authorized(
    fields: dict[str, Any], allow: tuple[str, ...], privileges: list[Privilege]
) -> None:
    authorized: list[Privilege] = []
    host = step_options(run(**fields), BuildOptions(allow=allow), authorized.extend)
    assert authorized == privileges
    assert host.privileged is ("security" in fields)
    assert host.network_mode == ("" if "network" not in fields else str(fields["network"]))


@pytest.mark.parametrize("fields", [{"network": Network.HOST}, {"security": Security.INSECURE}])
def test_a_run_without_the_entitlement_is_denied_before_authorization(
    fields: dict[str, Any],
) -> None:
    with pytest.raises(NotAuthorized, match="--allow"):
        step_options(
            run(**fields), BuildOptions(allow=("other",)), lambda _: pytest.fail("authorized")
        )
