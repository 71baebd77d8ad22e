"""Decisions of a build: its time, what a RUN may have, which steps images lend."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jaula.engine.builder.build import step_options
from jaula.engine.builder.cache import find_in_images, key_comment
from jaula.engine.builder.image_state import ImageState, Layer, SourceDateEpoch
from jaula.engine.builder.mounts.kinds import SecretMount, absolute_target
from jaula.engine.relaxations import Privilege, Relaxation
from jaula.errors import InvalidRequest, NotAuthorized
from jaula.images.build.dockerfile.ast import Location, Network, Run, Security
from jaula.spec.build import BuildOptions
from jaula.spec.image import LAYER_TAR, Descriptor

DIGEST = "sha256:" + "1" * 64
LAYER = Layer(DIGEST, Descriptor(LAYER_TAR, DIGEST, 1))


def test_a_fixed_time_is_the_only_one() -> None:
    clock = SourceDateEpoch({"SOURCE_DATE_EPOCH": "1700000000"})
    assert clock.now() == clock.date_of("2020-01-01T00:00:00Z") == "2023-11-14T22:13:20Z"
    assert clock.newest == 1_700_000_000 * 10**9
    free = SourceDateEpoch({"SOURCE_DATE_EPOCH": None})
    assert free.newest is None
    assert free.date_of("2020-01-01T00:00:00Z") == "2020-01-01T00:00:00Z"


@pytest.mark.parametrize("text", ["now", "-1", "1.5", "1" * 12, "\u0661"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        SourceDateEpoch({"SOURCE_DATE_EPOCH": text})


def run(**fields: Any) -> Run:
    return msgspec.structs.replace(
        Run(place=Location(1, 1), source="RUN x", command=("x",), shell_form=True), **fields
    )


@pytest.mark.parametrize(
    ("fields", "allow", "asks"),
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
def test_what_a_run_asks_for_is_judged(
    fields: dict[str, Any], allow: tuple[str, ...], asks: list[Privilege]
) -> None:
    judged: list[Privilege] = []
    host = step_options(run(**fields), BuildOptions(allow=allow), judged.extend)
    assert judged == asks
    assert host.privileged is ("security" in fields)
    assert host.network_mode == ("" if "network" not in fields else str(fields["network"]))


@pytest.mark.parametrize("fields", [{"network": Network.HOST}, {"security": Security.INSECURE}])
def test_what_the_build_does_not_allow_is_not_even_judged(fields: dict[str, Any]) -> None:
    with pytest.raises(NotAuthorized, match="--allow"):
        step_options(
            run(**fields), BuildOptions(allow=("other",)), lambda asks: pytest.fail("judged")
        )


def test_an_image_lends_the_layer_of_its_own_step() -> None:
    state = ImageState().step("FROM", "1").step("RUN a", "2", LAYER, comment=key_comment("key"))
    state = state.step("RUN b", "3", comment=key_comment("nothing"))
    assert find_in_images((state,), "key") == (LAYER, "2")
    assert find_in_images((state,), "nothing") == (None, "3")
    assert find_in_images((state,), "other") is None
    assert find_in_images((), "key") is None
    without = msgspec.structs.replace(state, layers=())
    assert find_in_images((without,), "key") is None


@pytest.mark.parametrize(
    ("text", "working_dir", "target"),
    [("/a", "/w", "/a"), ("a", "/w", "/w/a"), ("a/../b", "", "/b"), ("../../x", "/w", "/x")],
)
def test_a_target_is_relative_to_the_working_directory(
    text: str, working_dir: str, target: str
) -> None:
    assert absolute_target(text, working_dir) == target


def test_a_secret_is_never_shown() -> None:
    assert "value" not in repr(SecretMount(target="/s", content=b"value", variable="V"))
