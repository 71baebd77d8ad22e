"""The address of a target."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.spec.migration_target import parse_target


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://b.example", ("b.example", 2376)),
        ("tcp://b.example:99", ("b.example", 99)),
        ("10.0.0.1:2376", ("10.0.0.1", 2376)),
        ("tcp://[fd00::1]:2377", ("fd00::1", 2377)),
        ("tcp://[fd00::1]", ("fd00::1", 2376)),
    ],
)
def test_targets(text: str, expected: tuple[str, int]) -> None:
    assert parse_target(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp://",
        "http://b:1",
        "b:0",
        "b:65536",
        "b:x",
        "tcp://b/x:1",
        "a b:1",
        "u@b:1",
        "b\r\n:1",
    ],
)
def test_what_is_not_a_target(text: str) -> None:
    with pytest.raises(InvalidRequest, match="not an address"):
        parse_target(text)
