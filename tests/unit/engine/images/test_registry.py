"""Errors of an engine without a route to Docker Hub say what else can be done."""

from __future__ import annotations

import pytest

from jaula.engine.images.registry_images import _HubHint
from jaula.images import reference
from jaula.images.registry.registry_errors import Unreachable


def hint(name: str, *, push: bool) -> str | None:
    with (
        pytest.raises(Unreachable) as caught,
        _HubHint(reference.parse(name), push=push),
    ):
        raise Unreachable("no such host")
    return caught.value.hint


@pytest.mark.parametrize(
    ("name", "recipe"), [("busybox", "busybox"), ("debian:13", "debian"), ("me/app", "busybox")]
)
def test_an_image_that_cannot_be_pulled_can_be_built(name: str, recipe: str) -> None:
    assert f"'jaula image bootstrap {recipe}'" in (hint(name, push=False) or "")


def test_an_image_that_cannot_be_pushed_can_have_the_name_of_another_registry() -> None:
    found = hint("team/app:1", push=True) or ""
    assert "'jaula tag team/app:1 REGISTRY/app'" in found
    assert "bootstrap" not in found


@pytest.mark.parametrize("push", [True, False])
def test_another_registry_has_no_hint(push: bool) -> None:
    assert hint("registry.example/app", push=push) is None
