"""The kinds of resolved mounts."""

from __future__ import annotations

import pytest

from jaula.features.build.builder.mounts.kinds import SecretMount, absolute_target


@pytest.mark.parametrize(
    ("text", "working_dir", "target"),
    [("/a", "/w", "/a"), ("a", "/w", "/w/a"), ("a/../b", "", "/b"), ("../../x", "/w", "/x")],
)
def test_a_target_is_relative_to_the_working_directory(
    text: str, working_dir: str, target: str
) -> None:
    assert absolute_target(text, working_dir) == target


def test_the_repr_of_a_secret_hides_its_content() -> None:
    assert "value" not in repr(SecretMount(target="/s", content=b"value", variable="V"))
