"""``COPY --exclude``."""

from __future__ import annotations

from harness.build_context import CopyContext, make


def test_files_are_excluded_by_name_and_by_path(copy_context: CopyContext) -> None:
    make(
        copy_context.context,
        {"hom.txt": "", "hom.md": "", "home.go": "", "hom/x.txt": "", "hom/y": ""},
    )
    result = copy_context.copy("hom*", to="/d/", excludes=("*.txt", "*.md"))
    assert set(result) == {"d/", "d/home.go", "d/y"}


def test_a_directory_is_excluded_with_its_content(copy_context: CopyContext) -> None:
    make(copy_context.context, {"s/node_modules/a/b": "", "s/app": "", "s/x/node_modules/c": ""})
    result = copy_context.copy("s", to="/o", excludes=("node_modules", "s/x"))
    assert set(result) == {"o/", "o/app"}
    result = copy_context.copy("s", to="/p", excludes=("**/node_modules",))
    assert {name for name in result if name.startswith("p/")} == {"p/", "p/app", "p/x/"}


def test_an_exception_brings_its_directories(copy_context: CopyContext) -> None:
    make(copy_context.context, {"s/a/b/keep": "1", "s/a/b/drop": "", "s/a/c/drop": ""})
    result = copy_context.copy("s", to="/", excludes=("a", "!a/b/keep"))
    assert set(result) == {"a/", "a/b/", "a/b/keep"}


def test_the_first_of_two_hard_links_can_be_excluded(copy_context: CopyContext) -> None:
    import os

    make(copy_context.context, {"s/a": "x"})
    os.link(copy_context.context / "s/a", copy_context.context / "s/b")
    assert copy_context.copy("s", to="/", excludes=("a",)) == {"b": "644 0:0 x"}
