"""The services of the engine that are loaded by their first use."""

from __future__ import annotations

from functools import cached_property
from unittest.mock import MagicMock

import pytest

from jaula.engine.containers.containers import Containers
from jaula.engine.engine import Engine


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (owner, name)
        for owner in (Engine, Containers)
        for name, member in vars(owner).items()
        if isinstance(member, cached_property)
    ],
)
def test_a_service_is_loaded_by_its_first_use(owner: type, name: str) -> None:
    instance = owner.__new__(owner)
    for each in ("services", "containers", "execs", "exit_handler", "starter", "health"):
        setattr(instance, each, MagicMock())
    for each in ("end", "start_container", "remove"):
        setattr(instance, each, MagicMock())
    service = getattr(instance, name)
    assert type(service).__module__.startswith(("jaula.engine.", "jaula.features."))
    assert getattr(instance, name) is service
