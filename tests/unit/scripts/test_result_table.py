"""Tables of results: rows are replaced one by one, between two markers of a document."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from harness.scripts import load_script


@pytest.fixture(scope="module")
def result_table() -> ModuleType:
    return load_script("result_table")


def test_rows_of_other_keys_are_kept_in_their_order(
    result_table: ModuleType, tmp_path: Path
) -> None:
    table = result_table.Table("some runs", ("key", "value"), ("a", "b", "c"))
    document = tmp_path / "document.md"
    document.write_text(f"before\n{table.begin}\n{table.end}\nafter\n")
    for key, value in (("c", "old"), ("a", "first"), ("c", "new")):
        table.replace(document, {key: table.row(key, value)})
    assert document.read_text() == (
        "before\n<!-- some runs: begin -->\n| key | value |\n| --- | --- |\n"
        "| a | first |\n| c | new |\n<!-- some runs: end -->\nafter\n"
    )
    assert table.read(document.read_text()) == {"a": "| a | first |", "c": "| c | new |"}


def test_a_row_of_a_key_that_no_longer_exists_is_dropped(
    result_table: ModuleType, tmp_path: Path
) -> None:
    table = result_table.Table("some runs", ("key",), ("a",))
    document = tmp_path / "document.md"
    document.write_text(f"{table.begin}\n| key |\n| --- |\n| gone |\n{table.end}\n")
    table.replace(document, {"a": table.row("a")})
    assert list(table.read(document.read_text())) == ["a"]


def test_a_cell_stays_in_its_row(result_table: ModuleType) -> None:
    table = result_table.Table("some runs", ("key", "value"), ("a",))
    assert table.row("a", "two\n lines | and a bar") == "| a | two lines / and a bar |"


@pytest.mark.parametrize("text", ["", "<!-- some runs: begin -->", "<!-- some runs: end -->"])
def test_a_document_without_the_markers_is_refused(
    result_table: ModuleType, tmp_path: Path, text: str
) -> None:
    table = result_table.Table("some runs", ("key",), ("a",))
    document = tmp_path / "document.md"
    document.write_text(text)
    with pytest.raises(SystemExit, match="no table between"):
        table.replace(document, {})
    assert document.read_text() == text


def test_an_unknown_key_is_named(result_table: ModuleType) -> None:
    assert result_table.unknown(["a"], ["a", "b"]) == ""
    assert result_table.unknown(["x"], ["a", "b"]) == "unknown name x: must be one of a, b"
