"""Clients' paths and the files that they resolve to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jaula.errors import InvalidRequest, NotFound
from jaula.storage import path_resolve
from jaula.storage.path_resolve import PathRequest, parse_path


@pytest.mark.parametrize(
    ("text", "expected", "name"),
    [
        ("/etc", PathRequest("/etc"), "etc"),
        ("etc", PathRequest("/etc"), "etc"),
        ("/etc/", PathRequest("/etc", "/"), "etc"),
        ("/etc/.", PathRequest("/etc", "/."), "."),
        (".", PathRequest("/", "/."), "."),
        ("/", PathRequest("/"), "/"),
        ("//", PathRequest("/"), "/"),
        ("/../../etc/shadow", PathRequest("/etc/shadow"), "shadow"),
        ("a/../../b", PathRequest("/b"), "b"),
    ],
)
def test_a_path_is_read_as_docker_reads_it(text: str, expected: PathRequest, name: str) -> None:
    assert parse_path(text) == expected
    assert expected.name == name


@pytest.mark.parametrize("text", ["", "a\0b"])
def test_an_invalid_path_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_path(text)


@pytest.mark.parametrize(
    ("mode", "number"),
    [
        (0o100644, 0o644),
        (0o104755, 1 << 23 | 0o755),
        (0o102755, 1 << 22 | 0o755),
        (0o041777, 1 << 31 | 1 << 20 | 0o777),
        (0o120777, 1 << 27 | 0o777),
        (0o020666, 1 << 26 | 1 << 21 | 0o666),
        (0o060660, 1 << 26 | 0o660),
        (0o010644, 1 << 25 | 0o644),
        (0o140755, 1 << 24 | 0o755),
    ],
)
def test_modes_have_the_numbers_of_go(mode: int, number: int) -> None:
    assert path_resolve.go_mode(mode) == number


@pytest.fixture
def root(tmp_path: Path) -> int:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "file").write_text("hello")
    (tmp_path / "link").symlink_to("/dir/file")
    (tmp_path / "out").symlink_to("../../../../etc")
    (tmp_path / "nowhere").symlink_to("missing/file")
    (tmp_path / "dirlink").symlink_to("dir")
    return os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)


def look(root: int, text: str) -> path_resolve.PathStat:
    what = parse_path(text)
    place = path_resolve.open_for_client(root, what, "c")
    try:
        return path_resolve.stat_path(root, place, what)
    finally:
        os.close(place)


def test_the_last_component_is_followed_only_on_request(root: int) -> None:
    described = look(root, "/link")
    assert described.mode & 1 << 27
    assert described.linkTarget == "/dir/file"
    assert look(root, "/dirlink").linkTarget == "/dir"
    assert look(root, "/dirlink/").mode & 1 << 31
    assert look(root, "/dirlink/file").size == 5
    assert look(root, "/nowhere").linkTarget == "/missing/file"


def test_links_stay_below_the_root(root: int) -> None:
    with pytest.raises(NotFound):
        look(root, "/out/passwd")
    assert look(root, "/out").linkTarget == "/etc"


@pytest.mark.parametrize("text", ["/missing", "/dir/file/x", "/dir/file/."])
def test_an_error_names_the_missing_file(root: int, text: str) -> None:
    with pytest.raises(NotFound, match=r"Could not find the file /.* in container c"):
        look(root, text)
