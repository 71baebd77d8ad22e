"""What `cp` copies where."""

from __future__ import annotations

import pytest

from jaula.cli.copying import End, Renamed, decide, split
from jaula.cli.failure import Failure
from jaula.storage.tar.entry import TarEntry

FILE = End("f", exists=True, directory=False)
TREE = End("d", exists=True, directory=True)
INSIDE = End("d/.", exists=True, directory=True)


@pytest.mark.parametrize(
    ("source", "destination", "outcome"),
    [
        (FILE, End("/there", exists=True, directory=True), ("/there", "")),
        (FILE, End("/there", exists=True, directory=False), ("/", "there")),
        (FILE, End("/a/new", exists=False, directory=False), ("/a", "new")),
        (FILE, End("new", exists=False, directory=False), (".", "new")),
        (TREE, End("/there", exists=True, directory=True), ("/there", "")),
        (TREE, End("/a/new/", exists=False, directory=False), ("/a", "new")),
        (TREE, End("/a/new/.", exists=False, directory=False), ("/a", "new")),
        (INSIDE, End("/there", exists=True, directory=True), ("/there", "")),
        (INSIDE, End("/a/new", exists=False, directory=False), ("/a", "new")),
        (FILE, End(".", exists=True, directory=True), (".", "")),
    ],
)
def test_the_destination_decides_where_a_copy_goes(
    source: End, destination: End, outcome: tuple[str, str]
) -> None:
    assert decide(source, destination) == outcome


@pytest.mark.parametrize(
    ("source", "destination", "text"),
    [
        (TREE, End("/f", exists=True, directory=False), "cannot copy a directory"),
        (FILE, End("/new/", exists=False, directory=False), "must exist"),
        (FILE, End("/f/", exists=True, directory=False), "not a directory"),
    ],
)
def test_what_does_not_fit_is_refused(source: End, destination: End, text: str) -> None:
    with pytest.raises(Failure, match=text):
        decide(source, destination)


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
def test_a_colon_parts_container_and_path(text: str, parts: tuple[str, str]) -> None:
    assert split(text) == parts


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
    renamed = Renamed(_Archive(*names), old, new)  # type: ignore[arg-type]
    assert [(e.name, e.link) for e in renamed] == expected
