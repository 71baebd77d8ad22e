"""``.dockerignore``: the paths that Docker 26.1 excludes; comments explain differences."""

from __future__ import annotations

import time

import pytest

from jaula.errors import InvalidRequest
from jaula.features.build.files.dockerignore import Dockerignore, files

FILES = (
    "a", "b.md", "README.md", "foo", "foobar", "barfoo", "x/a", "x/b.md", "x/foo", "x/README.md",
    "x/y/a", "x/y/foo", "x/y/z/b.md", "foo2/a", "foo2/b/c.pyc", "c.pyc", "ab", "a*b", "[x]", "x y",
    ".git/HEAD", "dir/.git/config", ".env", "x/barfoo",
)  # fmt: skip


def left_out(text: str) -> set[str]:
    ignore = Dockerignore.read(text)
    return {path for path in FILES if ignore.excludes_path(path)}


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("", set()),
        ("foo", {"foo"}),
        ("/foo", {"foo"}),
        ("./x/../foo/", {"foo"}),
        (" foo \r\n", {"foo"}),
        ("\ufefffoo", {"foo"}),
        ("# foo\n#a", set()),
        (" # foo", set()),
        ("../foo\n.\n/", set()),
        ("foo*", {"foo", "foobar", "foo2/a", "foo2/b/c.pyc"}),
        ("fo?", {"foo"}),
        ("x", {f for f in FILES if f.startswith("x/")}),
        ("x/*\n!x/y", {"x/a", "x/b.md", "x/foo", "x/README.md", "x/barfoo"}),
        ("x/**", {f for f in FILES if f.startswith("x/")}),
        ("x/**/foo", {"x/foo", "x/y/foo"}),
        ("x**a", {"x/a", "x/y/a"}),
        ("**/foo", {"foo", "x/foo", "x/y/foo"}),
        ("**foo", {"foo", "barfoo", "x/foo", "x/y/foo", "x/barfoo"}),
        ("foo**", {"foo", "foobar", "foo2/a", "foo2/b/c.pyc"}),
        ("*.md", {"b.md", "README.md"}),
        ("**/*.md\n!README.md", {"b.md", "x/b.md", "x/README.md", "x/y/z/b.md"}),
        ("**/*.md\n!**/README.md", {"b.md", "x/b.md", "x/y/z/b.md"}),
        ("*/*.pyc", set()),
        ("**/*.pyc", {"c.pyc", "foo2/b/c.pyc"}),
        ("**/.git", {".git/HEAD", "dir/.git/config"}),
        (".*", {".git/HEAD", ".env"}),
        ("**", set(FILES)),
        ("*\n!a", set(FILES) - {"a"}),
        ("!a\na", {"a"}),
        ("a\n! a", set()),
        ("\\[x\\]", {"[x]"}),
        ("[[]x]", {"[x]"}),
        ("[a-c]", {"a"}),
        ("[^b]", {f for f in FILES if f == "a" or f.startswith("x/")}),
        ("[^b-z]b", {"ab"}),
        ("a\\*b", {"a*b"}),
        ("a[*]b", {"a*b"}),  # Docker leaves nothing out: its star means something in a class
        # an exception that changes nothing where it stands does not count below either
        ("x/y\n!x", {"x/y/a", "x/y/foo", "x/y/z/b.md"}),
        # Docker's old client does not look into foo2; BuildKit does
        ("*\n!**/*.pyc", set(FILES) - {"c.pyc", "foo2/b/c.pyc"}),
    ],
)
def test_patterns_exclude_the_same_paths_as_docker(text: str, out: set[str]) -> None:
    assert left_out(text) == out


@pytest.mark.parametrize("pattern", ["!", "! ", "[", "[a", "[]a]", "[a-]", "[-a]", "a\\", "x/[^]"])
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidRequest, match="pattern"):
        Dockerignore.read(pattern)


@pytest.mark.parametrize(
    ("text", "directory", "may"),
    [
        ("x", "x", False),
        ("x\n!x/y", "x", True),
        ("x\n!x/y", "z", False),
        ("x\n!x/y/a", "x/y", True),
        ("x\n!x/*/a", "x", True),
        ("x\n!x/*/a", "z", False),
        ("*\n!**/a", "x", True),
        ("*\n!*.md", "x", True),
    ],
)
def test_a_directory_that_may_hold_an_exception_has_to_be_walked(
    text: str, directory: str, may: bool
) -> None:
    assert Dockerignore.read(text).may_contain_exception(directory) is may


def test_the_dockerfile_can_be_an_exception() -> None:
    ignore = Dockerignore.read("*\n!src")
    assert ignore.excludes_path("d[1]/Dockerfile")
    kept = ignore.keeping("d[1]/Dockerfile", ".dockerignore", "src/a")
    assert [kept.excludes_path(p) for p in ("d[1]/Dockerfile", ".dockerignore", "src/a", "x")] == [
        False, False, False, True,
    ]  # fmt: skip


def test_nothing_is_ignored_without_patterns() -> None:
    assert not Dockerignore.read("# nothing\n\n")
    assert Dockerignore.read("a")


def test_the_file_of_the_dockerfile_takes_precedence() -> None:
    assert files("docker/app.Dockerfile") == ("docker/app.Dockerfile.dockerignore", ".dockerignore")


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 2000 + "b", "a" * 4000),
        ("**/a" * 500, "a/" * 2000 + "b"),
        ("?" * 4096, "a" * 4096),
        ("[a-z]" * 500 + "*" * 1000, "b" * 4096),
    ],
)
def test_every_pattern_is_matched_quickly(pattern: str, path: str) -> None:
    begin = time.process_time()
    Dockerignore([pattern]).excludes_path(path)
    assert time.process_time() - begin < 3


def test_bounds() -> None:
    with pytest.raises(InvalidRequest, match="more than 10000 patterns"):
        Dockerignore("a" for _ in range(10_001))
    with pytest.raises(InvalidRequest, match="a pattern has 5000 characters"):
        Dockerignore(["a" * 5000])
