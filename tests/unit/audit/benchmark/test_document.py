"""docs/audit.md has every control, and numbers that are counted."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from jaula.features.audit.benchmark.catalog import CIS

DOCUMENT = Path(__file__).parents[4] / "docs/audit.md"
ROW = re.compile(
    r"^\| (\d+(?:\.\d+)+) \| (\d) \| (.+) \| (pass|fail|manual|host) \|$", re.MULTILINE
)


def test_the_table_has_the_controls_of_the_catalog() -> None:
    rows = [(id, int(level), title) for id, level, title, _ in ROW.findall(DOCUMENT.read_text())]
    assert rows == [(control.id, control.level, control.title) for control in CIS.controls]


def test_the_numbers_are_those_of_the_table() -> None:
    text = DOCUMENT.read_text()
    counts = Counter(state for *_, state in ROW.findall(text))
    sentence = re.search(
        r"Of the (\d+) controls (\d+) pass, (\d+) fail, (\d+) need a person, and\s+(\d+) depend",
        text,
    )
    assert sentence is not None
    numbers = [len(CIS.controls), *(counts[state] for state in ("pass", "fail", "manual", "host"))]
    assert [int(number) for number in sentence.groups()] == numbers
