"""The tables of docs that list all of something are what ``scripts/document-tables`` writes."""

from __future__ import annotations

from types import ModuleType

import pytest

from harness.engine import PROJECT
from harness.scripts import load_program

PAGES = ("audit.md", "authority.md", "metrics.md", "settings.md")


@pytest.fixture(scope="module")
def program() -> ModuleType:
    return load_program("document-tables")


def text_of(page: str) -> str:
    return (PROJECT / "docs" / page).read_text()


def test_every_page_has_a_writer(program: ModuleType) -> None:
    assert set(program.PAGES) == set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_the_page_is_the_output_and_has_no_empty_cell(program: ModuleType, page: str) -> None:
    assert list(program.problems(page, text_of(page))) == []


@pytest.mark.parametrize(
    ("page", "begin", "cell"),
    [
        ("audit.md", "| 5.31 |", "5.31"),
        ("settings.md", "| `cri-group` |", "`cri-group`"),
        ("authority.md", "| `PortBinding` |", "`HostPort`"),
        ("authority.md", "| `DNSConfig` |", "`servers`"),
    ],
)
def test_a_missing_row_comes_back_with_cells_to_write(
    program: ModuleType, page: str, begin: str, cell: str
) -> None:
    lines = text_of(page).splitlines(keepends=True)
    changed = "".join(line for line in lines if not line.startswith(begin))
    written = program.PAGES[page](changed)
    assert cell in written
    found = list(program.problems(page, written))
    assert len(found) == 1 and "has no text" in found[0]


def test_a_missing_metric_comes_back_beside_the_one_most_like_it(program: ModuleType) -> None:
    text = text_of("metrics.md")
    lines = text.splitlines(keepends=True)
    changed = "".join(line for line in lines if "`container_memory_rss`" not in line)
    written = program.PAGES["metrics.md"](changed)
    assert sorted(written.splitlines()) == sorted(text.splitlines())


def test_a_field_without_a_source_is_removed(program: ModuleType) -> None:
    text = text_of("authority.md")
    added = text.replace("| `HostIp` |", "| `HostIp`, `NoSuch` |", 1)
    assert added != text
    assert program.PAGES["authority.md"](added) == text


def test_the_results_of_the_controls_are_counted(program: ModuleType) -> None:
    text = text_of("audit.md").replace("Of the 108 controls 45 pass", "Of the 1 controls 2 pass")
    assert program.PAGES["audit.md"](text) == text_of("audit.md")
