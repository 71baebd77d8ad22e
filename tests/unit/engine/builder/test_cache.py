"""The keys of steps, and ``--cache-from``."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from jaula.errors import StepFailed
from jaula.features.build.builder import step_cache
from jaula.features.build.builder.image_state import ImageState, Layer, SourceDateEpoch
from jaula.images.dockerfile.ast import Location, Run
from jaula.spec.image_documents import LAYER_TAR, Descriptor, ImageConfig, Platform

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
    return step_cache.run_key(state, command, **(RUN | changes))


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


def test_the_default_network_has_one_name() -> None:
    assert run(network="default") == run(network="")


def test_a_linked_copy_does_not_depend_on_the_layers_below() -> None:
    other = msgspec.structs.replace(STATE, layers=())
    for link, same in ((True, True), (False, False)):
        one, two = (
            step_cache.copy_key(state, "COPY a b", ["1"], link=link, epoch=None)
            for state in (STATE, other)
        )
        assert (one == two) is same


def test_keys_of_different_kinds_and_owners_differ() -> None:
    found = {
        step_cache.directory_key(STATE, "/x", None),
        step_cache.config_key(STATE, "/x"),
        step_cache.copy_key(STATE, "/x", [], link=False, epoch=None),
        step_cache.owner_key(run(), "0"),
        step_cache.owner_key(run(), "1000"),
        run(),
    }
    assert len(found) == 6


def test_a_change_is_found_after_the_same_steps_only() -> None:
    base = ImageState().step("FROM", "1")
    image = base.step("ENV a=b", "2").step("LABEL c", "3").step("RUN x", "4", STATE.layers[0])
    after = base.step("ENV a=b", "2")
    assert step_cache.find_change_in_image(image, base, "ENV a=b") == (None, "2")
    assert step_cache.find_change_in_image(image, after, "LABEL c") == (None, "3")
    assert step_cache.find_change_in_image(image, after, "LABEL d") is None
    assert step_cache.find_change_in_image(image, base, "LABEL c") is None
    assert step_cache.find_change_in_image(image, base.step("ENV a=b", "9"), "LABEL c") is None
    assert step_cache.find_change_in_image(image, after.step("LABEL c", "3"), "RUN x") is None
    assert step_cache.find_change_in_image(image, image, "RUN x") is None


def test_a_step_is_found_in_the_history_of_an_image() -> None:
    state = (
        ImageState()
        .step("FROM", "1")
        .step("RUN a", "2", STATE.layers[0], comment=step_cache.key_comment("key"))
    )
    state = state.step("RUN b", "3", comment=step_cache.key_comment("nothing"))
    assert step_cache.find_in_image(state, "key") == (STATE.layers[0], "2")
    assert step_cache.find_in_image(state, "nothing") == (None, "3")
    assert step_cache.find_in_image(state, "other") is None
    without = msgspec.structs.replace(state, layers=())
    assert step_cache.find_in_image(without, "key") is None


class Steps:
    """A store of steps in memory."""

    def __init__(self) -> None:
        self.steps: dict[str, Any] = {}

    def find(self, key: str, keep: Any) -> Any:
        return self.steps.get(key)

    def put(self, key: str, step: Any) -> None:
        self.steps[key] = step


def lookup(steps: Steps, made: dict[str, Any], *, no_cache: bool = False) -> step_cache.CacheLookup:
    async def from_images(key: str) -> None:
        return None

    return step_cache.CacheLookup(
        steps,  # type: ignore[arg-type]
        owner="me",
        clock=SourceDateEpoch({}),
        no_cache=no_cache,
        images_only=False,
        from_images=from_images,
        keep=lambda layers: None,
        layer_size=lambda diff_id: 0,
        sync=lambda: None,
        made=made,
    )


INSTRUCTION = Run(location=Location(1, 1), source="RUN x", command=("x",), shell_form=True)


@pytest.mark.parametrize("no_cache", [False, True])
def test_platforms_of_a_build_share_the_step_that_one_of_them_makes(no_cache: bool) -> None:
    calls: list[int] = []

    async def make() -> Layer | None:
        calls.append(1)
        await asyncio.sleep(0)
        return STATE.layers[0]

    async def both() -> list[bool]:
        steps, made = Steps(), dict[str, Any]()
        lookups = [lookup(steps, made, no_cache=no_cache) for _ in range(3)]
        work = [each.get_or_make("key", INSTRUCTION, make) for each in lookups[:2]]
        results = await asyncio.gather(*work)
        results.append(await lookups[2].get_or_make("key", INSTRUCTION, make))  # after its end
        assert all(layer == STATE.layers[0] for layer, _ in results)
        return [each.cached for each in lookups]

    assert asyncio.run(both()) == [False, True, True]
    assert calls == [1]


def test_a_step_that_fails_fails_for_all_platforms_and_is_made_again_later() -> None:
    fails = [True]

    async def make() -> Layer | None:
        await asyncio.sleep(0)
        if fails:
            raise StepFailed("no", 3)
        return None

    async def both() -> None:
        steps, made = Steps(), dict[str, Any]()
        work = [lookup(steps, made).get_or_make("key", INSTRUCTION, make) for _ in range(2)]
        results = await asyncio.gather(*work, return_exceptions=True)
        assert [type(result) for result in results] == [StepFailed, StepFailed]
        fails.clear()
        assert (await lookup(steps, made).get_or_make("key", INSTRUCTION, make))[0] is None

    asyncio.run(both())


def test_a_step_whose_maker_is_cancelled_is_not_waited_for_forever() -> None:
    async def forever() -> Layer | None:
        await asyncio.Event().wait()
        return None

    async def both() -> None:
        steps, made = Steps(), dict[str, Any]()
        tasks = [
            asyncio.ensure_future(lookup(steps, made).get_or_make("key", INSTRUCTION, forever))
            for _ in range(2)
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks[0].cancel()
        done, _ = await asyncio.wait(tasks, timeout=5)
        assert len(done) == 2 and made == {}

    asyncio.run(both())
