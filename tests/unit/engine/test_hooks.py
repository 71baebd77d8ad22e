"""The hooks of features: their points exist, their functions too, and a plain request calls few."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jaula import feature
from jaula.config import EngineConfig
from jaula.engine.hooks import Hooks
from jaula.spec.api_documents import ContainerCreate, HostConfig
from jaula.state.container_records import ContainerRecord

OF_ENGINE = (
    *("listen", "restoring", "restored", "network_opened"),
    *("engine_started", "engine_stopping"),
    *("user_named", "owned", "build_cache", "tls_streams"),
)
"""Points that are not about a container."""
OF_RECORD = (
    *("checkpoint_opened", "start_requested", "container_inspected"),
    *("processes_found", "exit_recorded", "container_restored"),
)
"""Points that are asked with the record of a container."""
REGISTERED = [(each, hook) for each in feature.features() for hook in each.hooks]

RECORD = ContainerRecord(
    id="a" * 64, name="plain", image="", layers=(), created=0, body=ContainerCreate()
)


@pytest.mark.parametrize(
    ("owner", "hook"), REGISTERED, ids=[f"{f.name}-{h.point}" for f, h in REGISTERED]
)
def test_a_hook_is_a_point_and_its_function_takes_what_the_point_gives(
    owner: feature.Feature, hook: feature.Hook
) -> None:
    point = getattr(Hooks, hook.point)
    given = len(inspect.signature(point).parameters) - 1
    taken = inspect.signature(owner.function(hook.function))
    taken.bind(*range(given))  # raises TypeError
    assert inspect.iscoroutinefunction(point) == inspect.iscoroutinefunction(
        owner.function(hook.function)
    )


@pytest.mark.parametrize(
    "point", [name for name, member in vars(Hooks).items() if not name.startswith("_")]
)
def test_each_point_has_a_contract_and_a_feature_that_uses_it(point: str) -> None:
    assert inspect.getdoc(getattr(Hooks, point))
    assert any(hook.point == point for _, hook in REGISTERED)


def test_a_plain_request_asks_for_no_feature() -> None:
    asked = [
        (owner.name, hook.point)
        for owner, hook in REGISTERED
        if hook.asks is not None
        and hook.point not in OF_ENGINE
        and hook.asks(RECORD if hook.point in OF_RECORD else HostConfig())
    ]
    assert asked == []


def test_an_engine_with_its_defaults_starts_few_features() -> None:
    config = EngineConfig()
    started = [
        owner.name
        for owner, hook in REGISTERED
        if hook.point == "engine_started" and (hook.asks is None or hook.asks(config))
    ]
    assert started == ["why"]


def test_without_features_no_point_does_anything() -> None:
    hooks = Hooks()
    assert list(hooks._registered("spec_built", HostConfig())) == []


def test_the_protocols_of_tls_are_those_that_the_feature_serves() -> None:
    named = {name for each in feature.features() for name in each.tls_protocols}
    assert named == set(Hooks(feature.features()).tls_streams(cast("Any", SimpleNamespace(
        services=SimpleNamespace(config=EngineConfig())
    ))))  # fmt: skip


def test_pods_come_before_migrations_and_so_end_after_them() -> None:
    ended = [owner.name for owner, hook in REGISTERED if hook.point == "engine_stopping"]
    assert ended.index("kubernetes") < ended.index("migration")  # which uses the pods
