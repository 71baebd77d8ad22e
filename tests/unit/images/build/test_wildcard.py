"""Patterns of COPY, compared with Go's filepath.Match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.features.build.files.wildcard import is_pattern, paths, plain


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("abc", "abc", True),
        ("*", "abc", True),
        ("*c", "abc", True),
        ("a*", "a", True),
        ("a*/b", "abc/b", True),
        ("a*/b", "a/c/b", False),
        ("*", "a/b", False),
        ("a?c", "a/c", False),
        ("a[^a]c", "a/c", False),
        ("ab[c]", "abc", True),
        ("ab[b-d]", "abc", True),
        ("ab[e-g]", "abc", False),
        ("ab[^c]", "abc", False),
        ("ab[^e-g]", "abc", True),
        ("a\\*b", "a*b", True),
        ("a\\*b", "ab", False),
        ("a[]]c", None, None),
        ("[\\]a]", "]", True),
        ("[\\-]", "-", True),
        ("[x\\-]", "-", True),
        ("[\\-x]", "a", False),
        ("[]a]", None, None),
        ("[-]", None, None),
        ("[x-]", None, None),
        ("[a-", None, None),
        ("a[", None, None),
        ("[", None, None),
        ("a\\", None, None),
        ("[z-a]", "m", False),
        ("arr[[]0].txt", "arr[0].txt", True),
        ("*.t?t", "ä.tät", True),
        ("*", "line\nbreak", True),
        ("**", "a/b", False),
    ],
)
def test_a_pattern_matches_as_in_go(pattern: str, path: str | None, matches: bool | None) -> None:
    if path is None:
        with pytest.raises(InvalidRequest, match="is malformed"):
            paths(tuple(pattern.split("/")))
        return
    assert bool(paths(tuple(pattern.split("/"))).fullmatch(path)) is matches


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("src/**/*.txt", "src/a.txt", True),
        ("src/**/*.txt", "src/x/y/c.txt", True),
        ("src/**/*.txt", "other/src/c.txt", False),
        ("**/b", "b", True),
        ("**/b", "a/b", True),
        ("**/b", "ab", False),
        ("a/**", "a/x/y", True),
        ("a/**", "a", False),
        ("**", "a/b", True),
    ],
)
def test_two_stars_match_any_depth_only_with_parents(
    pattern: str, path: str, matches: bool
) -> None:
    assert bool(paths(tuple(pattern.split("/")), deep=True).fullmatch(path)) is matches


def test_a_backslash_escapes_a_wildcard() -> None:
    assert not is_pattern("a\\*b\\[c")
    assert plain("a\\*b\\[c") == "a*b[c"
    assert is_pattern("a\\\\*")


@given(
    st.text(alphabet="ab*?[]^-\\/é\n", max_size=24), st.text(alphabet="ab[]^-\\é\n", max_size=12)
)
def test_any_pattern_is_accepted_or_refused(pattern: str, name: str) -> None:
    try:
        result = paths(tuple(pattern.split("/")), deep=True)
    except InvalidRequest:
        return
    result.fullmatch(name)


@given(st.text(min_size=1, max_size=20).filter(lambda text: "/" not in text))
def test_a_name_with_everything_escaped_is_itself(name: str) -> None:
    escaped = "".join(f"\\{letter}" for letter in name)
    assert paths((escaped,)).fullmatch(name)
    assert plain(escaped) == name


@pytest.mark.timeout(20)
def test_every_pattern_is_matched_quickly() -> None:
    assert not paths(("*a" * 100 + "b",)).fullmatch("a" * 255)
    assert not paths(("**", "a") * 200 + ("b",), deep=True).fullmatch("a/" * 2000 + "c")
    assert paths(("*a" * 100,)).fullmatch("a" * 255)
    assert paths(("**", "a", "**", "b"), deep=True).fullmatch("x/a/a/y/a/b/b")
