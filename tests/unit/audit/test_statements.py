"""Every security statement has a module of tests and a row in docs/security.md."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
STATEMENTS = {f"I{number}" for number in range(1, 26)}


def test_every_statement_has_a_module_of_tests() -> None:
    result = set()
    for path in (ROOT / "tests/security").glob("test_i*.py"):
        match = re.match(r"test_i(\d\d)_", path.name)
        assert match, path.name
        assert "\ndef test_" in path.read_text(), path.name
        result.add(f"I{int(match[1])}")
    assert result == STATEMENTS


def test_every_statement_is_in_the_document_once() -> None:
    text = (ROOT / "docs/security.md").read_text()
    table = text.partition("## Statements")[2].partition("###")[0]
    rows = re.findall(r"^\| (I\d+) \| .+ \|$", table, re.MULTILINE)
    assert rows == sorted(STATEMENTS, key=lambda name: int(name[1:]))
