"""Every security statement has a module of tests and a row in docs/security.md."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
FIRST = {f"I{number}" for number in range(1, 26)}


def rows_of_the_document() -> list[str]:
    text = (ROOT / "docs/security.md").read_text()
    table = text.partition("## Statements")[2].partition("###")[0]
    return re.findall(r"^\| (I\d+) \| .+ \|$", table, re.MULTILINE)


def test_every_statement_has_a_module_of_tests() -> None:
    result = set()
    for path in (ROOT / "tests/security").glob("test_i*.py"):
        match = re.match(r"test_i(\d\d)_", path.name)
        assert match, path.name
        assert "\ndef test_" in path.read_text(), path.name
        result.add(f"I{int(match[1])}")
    assert result >= FIRST
    assert result == set(rows_of_the_document())


def test_every_statement_is_in_the_document_once() -> None:
    rows = rows_of_the_document()
    assert rows == sorted(set(rows), key=lambda name: int(name[1:]))
