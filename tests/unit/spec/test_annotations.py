"""jaula's annotations: Landlock rules and bind roots."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.spec.annotations import (
    PathRule,
    PortRule,
    Ruleset,
    decode_bind_roots,
    decode_ruleset,
    encode_bind_roots,
    encode_ruleset,
    path_below,
)


def test_rules_survive_the_annotation() -> None:
    rules = Ruleset(
        0xFFFF, 3, 1, (PathRule("/", 13), PathRule("/data", 0xFFFF)), (PortRule(443, 2),), True
    )
    assert decode_ruleset(encode_ruleset(rules)) == rules


def test_a_small_ruleset_is_a_short_text() -> None:
    text = encode_ruleset(Ruleset(8191, paths=(PathRule("/", 8191),)))
    assert text == '{"handledAccessFs":8191,"paths":[{"path":"/","access":8191}]}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"handledAccessFs":0}',
        '{"handledAccessFs":-1}',
        '{"handledAccessFs":18446744073709551616}',
        '{"handledAccessFs":1,"unknown":2}',
        '{"handledAccessFs":"1"}',
        '{"handledAccessFs":1,"paths":[{"path":"data","access":1}]}',
        '{"handledAccessFs":1,"paths":[{"path":"/a\\u0000b","access":1}]}',
        '{"handledAccessFs":1,"paths":[{"path":"/","access":2}]}',
        '{"handledAccessNet":1,"ports":[{"port":65536,"access":1}]}',
        '{"handledAccessNet":1,"ports":[{"port":-1,"access":1}]}',
        '{"handledAccessNet":1,"ports":[{"port":80,"access":2}]}',
    ],
)
def test_an_invalid_annotation_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"io\.jaula\.landlock"):
        decode_ruleset(text)


def test_bind_roots_round_trip() -> None:
    roots = {"/srv/a": "/srv", "/srv/b c": "/srv"}
    assert decode_bind_roots(encode_bind_roots(roots)) == roots
    assert decode_bind_roots("") == {}
    with pytest.raises(InvalidRequest, match="without its directory"):
        decode_bind_roots("/srv/a")


def test_a_path_is_below_a_directory_by_components() -> None:
    assert path_below("/srv/a/b", "/srv/") == "a/b"
    assert path_below("/srv", "/srv") == ""
    assert path_below("/srvice", "/srv") is None
