"""Addresses of repositories."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.features.build.files.remote.git_url import GitUrl, is_git, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://h/u/r.git", GitUrl("https://h/u/r.git")),
        ("https://h/u/r.git#v1", GitUrl("https://h/u/r.git", "v1")),
        ("https://h/u/r.git#v1:docs/x", GitUrl("https://h/u/r.git", "v1", "docs/x")),
        ("https://h/u/r.git#:docs", GitUrl("https://h/u/r.git", "", "docs")),
        ("https://h/r.git#m:../../etc", GitUrl("https://h/r.git", "m", "etc")),
        ("git@h:u/r.git#b", GitUrl("git@h:u/r.git", "b")),
        ("ssh://git@h:22/r.git", GitUrl("ssh://git@h:22/r.git")),
        ("git://h/r", GitUrl("git://h/r")),
        (
            "https://h/r.git?branch=main&subdir=a&commit=ab12",
            GitUrl("https://h/r.git", "main", "a", "ab12"),
        ),
    ],
)
def test_an_address_is_read(text: str, expected: GitUrl) -> None:
    assert is_git(text)
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["file", "a.git", "/srv/r.git", "file:///srv/r.git", "https://h/r", "https://h/r.git.txt"],
)
def test_other_addresses_are_not_repositories(text: str) -> None:
    assert not is_git(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://h/r.git#--upload-pack=x",
        "https://h/r.git#a..b",
        "https://h/r.git#a b",
        "https://-oProxyCommand=x/r.git",
        "ssh://-oProxyCommand=x/r",
        "ssh://git@-x/r",
        "https://h/r.git?x=y",
        "https://h/r.git?commit=zz",
        "file:///srv/r.git",
        "ext::sh -c id",
        "git://h/a\nb",
        "https://h/r\u00e9.git",
    ],
)
def test_ambiguous_addresses_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(text)
