"""The documentation site: every page has a place, every diagram a drawing, every link a page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.engine import PROJECT

sys.path.append(str(PROJECT / "packaging/site"))

import diagrams
import pages
import reference

from jaula.cli import command_table


def test_every_page_has_one_place_in_the_navigation() -> None:
    pages.sources()
    listed = [page for _, section in pages.SECTIONS for page in section]
    assert len(listed) == len(set(listed))
    assert not pages.OPTIONAL - set(listed)


def test_a_page_without_a_place_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "SECTIONS", (("Start", ("images",)),))
    with pytest.raises(SystemExit, match=r"docs/networks\.md has no place in SECTIONS"):
        pages.sources()


def test_a_page_that_may_come_later_is_no_error() -> None:
    text = pages.navigation({"images"}, {})
    assert "images" in text
    assert "install" not in text


def test_every_diagram_has_its_drawing() -> None:
    for path in pages.sources().values():
        for block in diagrams.blocks(path.read_text()):
            drawing = diagrams.path(block[1])
            assert drawing.exists(), f"{path.name}: run scripts/build-docs --diagrams"
            assert drawing.read_text().startswith("<svg")


def test_a_diagram_becomes_a_graph() -> None:
    text = diagrams.dot(
        'flowchart TD\n  a["one<br/>two"] --> b\n  a -- "x" --> c["C"]\n'
        '  subgraph s["S"]\n  d\n  end\n  b -. "y" .-> d\n'
    )
    for line in (
        'a [label="one\\ntwo"];',
        'a -> b [label=""];',
        'a -> c [label="x"];',
        'b -> d [label="y", style=dashed];',
        'subgraph cluster_s { style=rounded; label="S";',
    ):
        assert line in text


@pytest.mark.parametrize(
    "block", ["graph LR\n", "flowchart TD\n  a ==> b\n", "flowchart TD\n a[b]\n"]
)
def test_a_diagram_of_another_form_is_an_error(block: str) -> None:
    with pytest.raises(diagrams.DiagramError):
        diagrams.dot(block)


def test_links_lead_to_the_pages_of_the_site(tmp_path: Path) -> None:
    docs = PROJECT / "docs"
    of_file = {docs / "networks.md": "networks", PROJECT / "SECURITY.md": "project/security"}

    def rewritten(text: str, source: Path = docs / "es/x.md", page: str = "es/x") -> str:
        return pages.rewrite_links(text, source, page, of_file)

    assert rewritten("[a](../networks.md#names)") == "[a](../networks.md#names)"
    assert rewritten("[networks.md](../networks.md)") == "[Networks](../networks.md)"
    assert rewritten("[s](../../SECURITY.md)") == "[s](../project/security.md)"
    assert rewritten("[l](../../LICENSE)") == "l"
    assert rewritten("`[a](nothing.md)` [b](https://x) [c](#d)") == (
        "`[a](nothing.md)` [b](https://x) [c](#d)"
    )
    with pytest.raises(SystemExit, match=r"nothing\.md: the file does not exist"):
        rewritten("[a](nothing.md)")


def test_the_reference_has_every_command_once() -> None:
    text = "\n".join(reference.command_pages().values())
    modules = set(command_table.commands().values())
    headings = [line for line in text.splitlines() if line.startswith("## jaula ")]
    assert len(headings) == len(modules)
    for words in command_table.commands():
        assert f"jaula {words}" in text


def test_the_reference_has_every_operation_of_the_api() -> None:
    text = reference.api()
    assert "`GET /containers/json`" in text
    assert "`POST /images/create`" in text
