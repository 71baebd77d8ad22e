"""References of pulls and pushes, and times of images in filters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from jaula.engine.images.images import matches_filters
from jaula.engine.images.registry_images import _parse_reference
from jaula.errors import InvalidRequest

TIMES = {
    "old": "2026-01-02T03:04:05.000000001Z",
    "new": "2026-01-02T03:04:05.000000002Z",
    "short": "2026-01-02T03:04:05Z",
}


def services() -> Any:
    """Return an engine whose images are :data:`TIMES`."""
    return SimpleNamespace(
        images=SimpleNamespace(resolve=lambda ref: SimpleNamespace(created=TIMES[ref]))
    )


@pytest.mark.parametrize(
    ("image", "filters", "expected"),
    [
        ("old", {"before": ["new"]}, True),
        ("new", {"before": ["new"]}, False),
        ("new", {"since": ["old"]}, True),
        ("old", {"since": ["old"]}, False),
        ("short", {"before": ["old"]}, True),
        ("old", {"until": ["2026-01-02T03:04:06Z"]}, True),
        ("old", {"until": ["2026-01-02T03:04:05Z"]}, False),
    ],
)
def test_times_are_compared_to_the_nanosecond(
    image: str, filters: dict[str, list[str]], expected: bool
) -> None:
    found: Any = SimpleNamespace(created=TIMES[image], names=())
    assert matches_filters(found, filters, services()) == expected


def test_dangling_is_a_truth_value() -> None:
    found: Any = SimpleNamespace(created="", names=("a:1",))
    assert not matches_filters(found, {"dangling": ["true"]}, services())
    assert matches_filters(found, {"dangling": ["0"]}, services())
    for values in (["x"], [], ["true", "false"]):
        with pytest.raises(InvalidRequest, match="invalid filter 'dangling="):
            matches_filters(found, {"dangling": values}, services())


@pytest.mark.parametrize(
    ("name", "tag", "reference"),
    [
        ("app", "2", "app:2"),
        ("app:1", "2", "app:2"),
        ("host:5000/app:1", "2", "host:5000/app:2"),
        ("app:1", "sha256:" + "a" * 64, "app@sha256:" + "a" * 64),
        ("app:1", "", "app:1"),
    ],
)
def test_the_parameter_tag_replaces_the_one_of_the_name(
    name: str, tag: str, reference: str
) -> None:
    assert str(_parse_reference(name, tag)[0]) == reference
