"""Parse authentication challenges."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.images.registry.auth import www_authenticate


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ("Basic", [("basic", {})]),
        ('bearer realm="https://a/t",service="s",scope="repository:a:pull,push"',
         [("bearer", {"realm": "https://a/t", "service": "s",
                      "scope": "repository:a:pull,push"})]),
        ('Basic realm="x", Bearer realm="y", service=z',
         [("basic", {"realm": "x"}), ("bearer", {"realm": "y", "service": "z"})]),
        (r'Bearer realm="a\"b\\c"', [("bearer", {"realm": 'a"b\\c'})]),
        ('Bearer realm="a",realm="b"', [("bearer", {"realm": "a"})]),
        ("", []),
        ("=,=", []),
    ],
)  # fmt: skip
def test_challenges_are_read(text: str, found: list[tuple[str, dict[str, str]]]) -> None:
    assert [(c.scheme, c.parameters) for c in www_authenticate.parse([text])] == found


@given(st.text(alphabet=string.printable, max_size=300))
def test_no_challenge_breaks_the_reader(text: str) -> None:
    www_authenticate.choose(www_authenticate.parse([text, text]))


def test_a_token_is_better_than_a_password() -> None:
    found = www_authenticate.choose(www_authenticate.parse(['Basic realm="x"', 'Bearer realm="y"']))
    assert found is not None
    assert found.scheme == "bearer"
    assert www_authenticate.choose(www_authenticate.parse(["Digest realm=x"])) is None
