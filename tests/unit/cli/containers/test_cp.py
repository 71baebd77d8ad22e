"""The source and target of ``jaula cp``."""

from __future__ import annotations

import pytest

from jaula.cli.cli_errors import CliError
from jaula.cli.containers.copy_target import (
    CopyEndpoint,
    RenamedMembers,
    resolve_target,
    split_argument,
)
from jaula.storage.tar.tar_entry import TarEntry

FILE = CopyEndpoint("f", exists=True, directory=False)
TREE = CopyEndpoint("d", exists=True, directory=True)
INSIDE = CopyEndpoint("d/.", exists=True, directory=True)


@pytest.mark.parametrize(
    ("source", "destination", "outcome"),
    [
        (FILE, CopyEndpoint("/there", exists=True, directory=True), ("/there", "")),
        (FILE, CopyEndpoint("/there", exists=True, directory=False), ("/", "there")),
        (FILE, CopyEndpoint("/a/new", exists=False, directory=False), ("/a", "new")),
        (FILE, CopyEndpoint("new", exists=False, directory=False), (".", "new")),
        (TREE, CopyEndpoint("/there", exists=True, directory=True), ("/there", "")),
        (TREE, CopyEndpoint("/a/new/", exists=False, directory=False), ("/a", "new")),
        (TREE, CopyEndpoint("/a/new/.", exists=False, directory=False), ("/a", "new")),
        (INSIDE, CopyEndpoint("/there", exists=True, directory=True), ("/there", "")),
        (INSIDE, CopyEndpoint("/a/new", exists=False, directory=False), ("/a", "new")),
        (FILE, CopyEndpoint(".", exists=True, directory=True), (".", "")),
    ],
)
def test_the_destination_decides_where_a_copy_goes(
    source: CopyEndpoint, destination: CopyEndpoint, outcome: tuple[str, str]
) -> None:
    assert resolve_target(source, destination) == outcome


@pytest.mark.parametrize(
    ("source", "destination", "text"),
    [
        (TREE, CopyEndpoint("/f", exists=True, directory=False), "cannot copy a directory"),
        (FILE, CopyEndpoint("/new/", exists=False, directory=False), "must exist"),
        (FILE, CopyEndpoint("/f/", exists=True, directory=False), "not a directory"),
    ],
)
def test_an_impossible_copy_is_refused(
    source: CopyEndpoint, destination: CopyEndpoint, text: str
) -> None:
    with pytest.raises(CliError, match=text):
        resolve_target(source, destination)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("web:/etc", ("web", "/etc")),
        ("/a:b", ("", "/a:b")),
        ("./a:b", ("", "./a:b")),
        ("plain", ("", "plain")),
        ("-", ("", "-")),
        ("web:", ("web", "")),
    ],
)
def test_a_colon_separates_container_and_path(text: str, parts: tuple[str, str]) -> None:
    assert split_argument(text) == parts


class _Archive:
    def __init__(self, *names: tuple[str, str]) -> None:
        self.entries = []
        for name, link in names:
            entry = TarEntry()
            entry.name, entry.link = name.encode(), link.encode()
            entry.type = ord("1" if link else "0")
            self.entries.append(entry)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.entries)


@pytest.mark.parametrize(
    ("old", "new", "names", "expected"),
    [
        ("d", "e", [("d", ""), ("d/x", "")], [(b"e", b""), (b"e/x", b"")]),
        ("d", "e", [("d/x", "d/y")], [(b"e/x", b"e/y")]),
        ("/", "all", [("/", ""), ("/etc", "")], [(b"all/", b""), (b"all/etc", b"")]),
        (".", "new", [("./", ""), ("./x", "")], [(b"new/", b""), (b"new/x", b"")]),
        ("d", "", [("d/x", "")], [(b"d/x", b"")]),
    ],
)
def test_entries_and_their_hard_links_are_renamed_together(
    old: str, new: str, names: list[tuple[str, str]], expected: list[tuple[bytes, bytes]]
) -> None:
    renamed = RenamedMembers(_Archive(*names), old, new)  # type: ignore[arg-type]
    assert [(e.name, e.link) for e in renamed] == expected
