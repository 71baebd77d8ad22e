"""The keys of steps, and ``--cache-from``."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jaula.engine.builder import cache
from jaula.engine.builder.image_state import ImageState, Layer
from jaula.spec.image import LAYER_TAR, Descriptor, ImageConfig, Platform

DIGEST = "sha256:" + "0" * 64
STATE = ImageState(
    layers=(Layer(DIGEST, Descriptor(LAYER_TAR, DIGEST, 1)),),
    config=ImageConfig(user="u", working_dir="/w", labels={"a": "b"}),
    platform=Platform("amd64", "linux"),
)
RUN: dict[str, Any] = {
    "flags": (),
    "environment": ("A=b",),
    "mounted": (),
    "network": "",
    "hosts": (),
    "epoch": None,
}


def run(state: ImageState = STATE, command: tuple[str, ...] = ("c",), **changes: Any) -> str:
    return cache.run_key(state, command, **(RUN | changes))


def configured(**changes: Any) -> ImageState:
    config = msgspec.structs.replace(STATE.config, **changes)
    return msgspec.structs.replace(STATE, config=config)


@pytest.mark.parametrize(
    "changes",
    [
        {"flags": ("--mount=type=tmpfs,target=/x",)},
        {"environment": ("A=c",)},
        {"mounted": ("sha256:1",)},
        {"network": "none"},
        {"hosts": ("a:1.2.3.4",)},
        {"epoch": 1},
        {"state": configured(user="v")},
        {"state": configured(working_dir="/v")},
        {"state": msgspec.structs.replace(STATE, layers=())},
        {"command": ("c", "")},
        {"command": ("c\n",)},
    ],
)
def test_the_key_of_a_run_depends_on_what_the_program_can_see(changes: dict[str, Any]) -> None:
    assert run(**changes) != run()


@pytest.mark.parametrize(
    "state",
    [
        configured(labels={}),
        configured(cmd=("x",)),
        configured(exposed_ports={"80/tcp": {}}),
        msgspec.structs.replace(STATE, created="2020", author="a"),
    ],
)
def test_the_key_of_a_run_ignores_what_the_program_cannot_see(state: ImageState) -> None:
    assert run(state) == run()


def test_a_linked_copy_does_not_depend_on_the_layers_below() -> None:
    other = msgspec.structs.replace(STATE, layers=())
    for link, same in ((True, True), (False, False)):
        one, two = (
            cache.copy_key(state, "COPY a b", ["1"], link=link, epoch=None)
            for state in (STATE, other)
        )
        assert (one == two) is same


def test_keys_of_different_kinds_and_owners_differ() -> None:
    found = {
        cache.directory_key(STATE, "/x", None),
        cache.config_key(STATE, "/x"),
        cache.copy_key(STATE, "/x", [], link=False, epoch=None),
        cache.owner_key(run(), "0"),
        cache.owner_key(run(), "1000"),
        run(),
    }
    assert len(found) == 6


def test_a_step_is_found_in_the_history_of_an_image() -> None:
    state = (
        ImageState()
        .step("FROM", "1")
        .step("RUN a", "2", STATE.layers[0], comment=cache.key_comment("key"))
    )
    state = state.step("RUN b", "3", comment=cache.key_comment("nothing"))
    assert cache.find_in_images((state,), "key") == (STATE.layers[0], "2")
    assert cache.find_in_images((state,), "nothing") == (None, "3")
    assert cache.find_in_images((state,), "other") is None
    assert cache.find_in_images((), "key") is None
    without = msgspec.structs.replace(state, layers=())
    assert cache.find_in_images((without,), "key") is None
