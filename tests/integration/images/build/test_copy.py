"""COPY: sources, targets and owners, as in the Dockerfile reference."""

from __future__ import annotations

import os

import pytest

from harness.build_context import CopyContext, make
from jaula.errors import InvalidRequest, NotFound
from jaula.images.dockerfile.ast import Heredoc

FILE = "644 0:0 "


def test_a_file_gets_the_targets_name(copy_context: CopyContext) -> None:
    make(copy_context.context, {"a": "x"})
    assert copy_context.copy("a", to="/b") == {"b": FILE + "x"}


def test_a_trailing_slash_makes_the_target_a_directory(copy_context: CopyContext) -> None:
    make(copy_context.context, {"a": "x"})
    assert copy_context.copy("a", to="/d/") == {"d/": "755 0:0", "d/a": FILE + "x"}


@pytest.mark.parametrize("to", [".", "./", "sub/..", "../w"])
def test_a_relative_target_is_below_the_working_directory(
    copy_context: CopyContext, to: str
) -> None:
    make(copy_context.context, {"a": "x"})
    result = copy_context.copy("a", to=to, workdir="/w")
    assert result == ({"w/": "755 0:0", "w/a": FILE + "x"} if to != "../w" else {"w": FILE + "x"})


def test_an_existing_directory_is_copied_into(copy_context: CopyContext) -> None:
    make(copy_context.context, {"a": "x"})
    make(copy_context.root, {"d/": None})
    assert copy_context.copy("a", to="/d")["d/a"] == FILE + "x"


def test_a_directorys_content_is_copied_and_merged(copy_context: CopyContext) -> None:
    make(copy_context.context, {"src/a": "new", "src/sub/b": "x"})
    make(copy_context.root, {"d/a": "old", "d/c": "stays"})
    result = copy_context.copy("src", to="/d")
    assert result["d/a"] == FILE + "new"
    assert result["d/c"] == FILE + "stays"
    assert result["d/sub/b"] == FILE + "x"


@pytest.mark.parametrize("source", [".", "/", "./", "../../", ""])
def test_the_whole_context(copy_context: CopyContext, source: str) -> None:
    make(copy_context.context, {"a": "x", "s/b": "y"})
    assert set(copy_context.copy(source, to="/o/")) == {"o/", "o/a", "o/s/", "o/s/b"}


@pytest.mark.parametrize("source", ["/a", "../a", "./x/../a", "../../../a"])
def test_no_path_leaves_the_context(copy_context: CopyContext, source: str) -> None:
    make(copy_context.context, {"a": "inside"})
    make(copy_context.context.parent, {"a": "outside"})
    assert copy_context.copy(source, to="/b") == {"b": FILE + "inside"}


def test_links_in_a_context_are_followed_inside_of_it(copy_context: CopyContext) -> None:
    make(copy_context.context.parent, {"secret": "outside"})
    make(copy_context.context, {"secret": "inside", "l": "-> ../secret", "abs": "-> /secret"})
    assert copy_context.copy("l", "abs", to="/d/") == {
        "d/": "755 0:0",
        "d/l": FILE + "inside",
        "d/abs": FILE + "inside",
    }


def test_a_link_in_a_directory_stays_a_link(copy_context: CopyContext) -> None:
    make(copy_context.context, {"s/l": "-> /etc/passwd", "s/d": "-> ."})
    result = copy_context.copy("s", to="/o")
    assert (result["o/l"], result["o/d"]) == ("-> /etc/passwd", "-> .")


def test_a_link_to_a_directory_is_its_content(copy_context: CopyContext) -> None:
    make(copy_context.context, {"real/a": "x", "l": "-> real"})
    assert copy_context.copy("l", to="/o") == {"o/": "755 0:0", "o/a": FILE + "x"}


def test_modes_and_times_are_kept_and_owners_are_not(copy_context: CopyContext) -> None:
    make(copy_context.context, {"s/a": "x", "s/sub/b": ""})
    os.chown(copy_context.context / "s/a", 7, 8)
    os.chmod(copy_context.context / "s/a", 0o4751)
    os.chmod(copy_context.context / "s/sub", 0o2770)
    for path in ("s/a", "s/sub"):
        os.utime(copy_context.context / path, ns=(0, 1_234_567_890_123_456_789))
    result = copy_context.copy("s", to="/o")
    assert (result["o/a"], result["o/sub/"]) == ("4751 0:0 x", "2770 0:0")
    for path in ("o/a", "o/sub"):
        assert (copy_context.root / path).stat().st_mtime_ns == 1_234_567_890_123_456_789


def test_owners_are_a_stages_own(copy_context: CopyContext) -> None:
    make(copy_context.context, {"a": "x"})
    os.chown(copy_context.context / "a", 7, 70_000)
    assert copy_context.copy("a", to="/b", keeps_owners=True) == {"b": "644 7:70000 x"}


def test_chown_and_chmod_are_for_all_that_is_copied(copy_context: CopyContext) -> None:
    make(copy_context.context, {"s/a": "", "s/d/b": ""})
    result = copy_context.copy("s", to="/new/o", owner=(5, 6), chmod="u=rwX,go=")
    assert result == {
        "new/": "755 5:6",
        "new/o/": "755 5:6",
        "new/o/a": "600 5:6 ",
        "new/o/d/": "700 5:6",
        "new/o/d/b": "600 5:6 ",
    }


def test_hard_links_and_attributes_are_kept(copy_context: CopyContext) -> None:
    make(copy_context.context, {"s/a": "x"})
    os.link(copy_context.context / "s/a", copy_context.context / "s/b")
    os.setxattr(copy_context.context / "s/a", "user.note", b"\0\1")
    copy_context.copy("s", to="/o")
    assert (copy_context.root / "o/a").stat().st_ino == (copy_context.root / "o/b").stat().st_ino
    assert os.getxattr(copy_context.root / "o/b", "user.note") == b"\0\1"


def test_sockets_are_skipped_and_fifos_are_copied(copy_context: CopyContext) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(copy_context.context / "s"))
        os.mkfifo(copy_context.context / "f")
        assert set(copy_context.copy(".", to="/")) == {"f"}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.txt", {"a.txt", "b.txt"}),
        ("?.txt", {"a.txt", "b.txt"}),
        ("[!b].txt", {"b.txt"}),
        ("[^b].txt", {"a.txt"}),
        ("s/*.txt", {"c.txt"}),
        ("s*/*", {"c.txt", "e"}),
        ("*/d/e", {"e"}),
        ("arr[[]0]", {"arr[0]"}),
        ("\\*", {"*"}),
        ("nothing*", set()),
    ],
)
def test_wildcards(copy_context: CopyContext, pattern: str, expected: set[str]) -> None:
    make(copy_context.context, {"a.txt": "", "b.txt": "", "s/c.txt": "", "s/d/e": "", "arr[0]": ""})
    make(copy_context.context, {"*": ""})
    assert {
        name for name in copy_context.copy(pattern, to="/") if not name.endswith("/")
    } == expected


def test_a_pattern_is_followed_through_no_link(copy_context: CopyContext) -> None:
    make(copy_context.context, {"real/a": "x", "link": "-> real"})
    assert copy_context.copy("*/a", to="/o/") == {"o/": "755 0:0", "o/a": FILE + "x"}


def test_a_missing_source_is_named(copy_context: CopyContext) -> None:
    with pytest.raises(NotFound, match=r"'nope' is not in the build context.*\.dockerignore"):
        copy_context.copy("nope", to="/")


def test_a_symbolic_link_loop_is_refused(copy_context: CopyContext) -> None:
    make(copy_context.context, {"a": "-> b", "b": "-> a"})
    with pytest.raises(InvalidRequest, match="symbolic link loop"):
        copy_context.copy("a", to="/")


def test_more_than_one_file_needs_a_directory(copy_context: CopyContext) -> None:
    make(copy_context.context, {"a": "", "b": ""})
    with pytest.raises(InvalidRequest, match="cannot copy several files"):
        copy_context.copy("*", to="/x")
    make(copy_context.root, {"y/": None})
    assert {"y/a", "y/b"} <= set(copy_context.copy("*", to="/y"))


def test_a_directory_never_replaces_a_file_nor_the_reverse(copy_context: CopyContext) -> None:
    make(copy_context.context, {"s/x/a": "", "t/x": ""})
    make(copy_context.root, {"s/x": "file", "t/x/": None})
    with pytest.raises(InvalidRequest, match="cannot overwrite non-directory"):
        copy_context.copy("s", to="/s")
    with pytest.raises(InvalidRequest, match="cannot overwrite directory"):
        copy_context.copy("t", to="/t")


def test_a_file_in_place_of_a_directory_is_named(copy_context: CopyContext) -> None:
    make(copy_context.context, {"a": ""})
    make(copy_context.root, {"f": ""})
    with pytest.raises(InvalidRequest, match="in place of a directory"):
        copy_context.copy("a", to="/f/g/")


def test_a_here_document_is_a_file(copy_context: CopyContext) -> None:
    result = copy_context.copy(
        to="/etc/", heredocs=(Heredoc("motd", "hello\n", True),), chmod="640"
    )
    assert result["etc/motd"] == "640 0:0 hello\n"
    assert (
        copy_context.copy(to="/named", heredocs=(Heredoc("EOF", "x\n", True),))["named"]
        == FILE + "x\n"
    )


def test_parents_are_kept(copy_context: CopyContext) -> None:
    make(copy_context.context, {"x/a.txt": "1", "y/a.txt": "2", "y/b": ""})
    os.chmod(copy_context.context / "x", 0o711)
    result = copy_context.copy("./x/a.txt", "./y/a.txt", to="/p/", parents=True)
    assert result == {
        "p/": "755 0:0",
        "p/x/": "711 0:0",
        "p/x/a.txt": FILE + "1",
        "p/y/": "755 0:0",
        "p/y/a.txt": FILE + "2",
    }


def test_parents_begin_at_the_pivot_and_stars_cross_directories(copy_context: CopyContext) -> None:
    make(
        copy_context.context,
        {"src/a.txt": "", "src/x/b.txt": "", "src/x/y/c.txt": "", "src/x/d": ""},
    )
    result = copy_context.copy("src/./**/*.txt", to="/p/", parents=True)
    assert set(result) == {"p/", "p/a.txt", "p/x/", "p/x/b.txt", "p/x/y/", "p/x/y/c.txt"}
    with pytest.raises(NotFound):
        copy_context.copy("src/nope", to="/", parents=True)


def test_a_whole_directory_with_its_parents(copy_context: CopyContext) -> None:
    make(copy_context.context, {"a/b/c/d": "", "a/other": ""})
    assert set(copy_context.copy("a/b", to="/", parents=True)) == {
        "a/",
        "a/b/",
        "a/b/c/",
        "a/b/c/d",
    }


# -- a hostile root --------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/data/x", "/data/", "/data/deep/x", "/data"])
def test_links_of_the_root_are_followed_inside_of_it(
    copy_context: CopyContext, target: str
) -> None:
    outside = copy_context.root.parent / "outside"
    outside.mkdir()
    make(copy_context.context, {"x": "new"})
    for led in (str(outside), "../../../../../../.." + str(outside), "/inside"):
        link = copy_context.root / "data"
        link.unlink(missing_ok=True)
        link.symlink_to(led)
        copy_context.copy("x", to=target)
    assert list(outside.iterdir()) == []
    assert (
        any(path.is_file() for path in (copy_context.root / "inside").rglob("*"))
        or (copy_context.root / "inside").is_file()
    )


def test_a_link_at_the_target_stays_a_link(copy_context: CopyContext) -> None:
    make(copy_context.context, {"x": "new"})
    make(copy_context.root, {"l": "-> /etc/conf", "etc/conf": "old"})
    result = copy_context.copy("x", to="/l")
    assert result["l"] == "-> /etc/conf"
    assert result["etc/conf"] == FILE + "new"


def test_a_link_in_the_root_is_never_written_through(copy_context: CopyContext) -> None:
    make(copy_context.context, {"s/x": "new"})
    make(copy_context.root, {"d/x": "-> ../victim", "victim": "old"})
    result = copy_context.copy("s", to="/d")
    assert (result["d/x"], result["victim"]) == (FILE + "new", FILE + "old")


def test_a_circle_in_the_root_is_an_error(copy_context: CopyContext) -> None:
    make(copy_context.context, {"x": ""})
    make(copy_context.root, {"a": "-> b", "b": "-> a"})
    with pytest.raises(InvalidRequest, match="cannot copy to '/a"):
        copy_context.copy("x", to="/a")
    with pytest.raises(InvalidRequest, match="cannot copy to '/a"):
        copy_context.copy("x", to="/a/")


def test_links_swapped_during_a_copy_do_not_leave_the_root(copy_context: CopyContext) -> None:
    import threading

    outside = copy_context.root.parent / "outside"
    outside.mkdir()
    make(copy_context.context, {f"s/d{i}/f": "x" for i in range(20)})
    (copy_context.root / "t/real").mkdir(parents=True)
    stop = threading.Event()

    def swap() -> None:
        link = copy_context.root / "t/sub"
        while not stop.is_set():
            for change in (
                lambda: link.symlink_to(outside),
                link.unlink,
                link.mkdir,
                link.rmdir,
            ):
                try:
                    change()
                except OSError:
                    continue

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(150):
            try:
                copy_context.copy_unlisted("s", to="/t/sub")
            except InvalidRequest:
                continue
    finally:
        stop.set()
        thread.join()
    assert list(outside.iterdir()) == []


# -- digests ---------------------------------------------------------------------------------------


def test_the_digest_is_of_the_content_and_not_of_times_and_owners(
    copy_context: CopyContext,
) -> None:
    make(copy_context.context, {"s/a": "x", "s/l": "-> a"})
    before = copy_context.digest("s")
    os.utime(copy_context.context / "s/a", (0, 0))
    os.chown(copy_context.context / "s/a", 9, 9)
    assert copy_context.digest("s") == before


def test_the_digest_changes_with_each_thing_that_counts(copy_context: CopyContext) -> None:
    make(copy_context.context, {"s/a": "x", "s/b": "", "s/l": "-> a"})
    seen = {copy_context.digest("s")}

    def differs() -> None:
        result = copy_context.digest("s")
        assert result not in seen
        seen.add(result)

    (copy_context.context / "s/a").write_text("y")
    differs()
    (copy_context.context / "s/a").chmod(0o600)
    differs()
    (copy_context.context / "s/l").unlink()
    (copy_context.context / "s/l").symlink_to("b")
    differs()
    (copy_context.context / "s/b").rename(copy_context.context / "s/c")
    differs()
    (copy_context.context / "s/empty").mkdir()
    differs()
    os.setxattr(copy_context.context / "s/a", "user.x", b"1")
    differs()
    os.link(copy_context.context / "s/c", copy_context.context / "s/d")
    differs()


def test_content_that_moves_between_files_changes_the_digest(copy_context: CopyContext) -> None:
    make(copy_context.context, {"s/a": "xy", "s/b": "z", "t/a": "x", "t/b": "yz"})
    assert copy_context.digest("s") != copy_context.digest("t")
