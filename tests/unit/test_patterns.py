"""Regular expressions of the source: ``$`` matches before a line break at the end of a text too."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "jaula"
FUNCTIONS = ("compile", "match", "search", "fullmatch", "sub", "findall", "finditer", "split")


def patterns(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each pattern: of ``re``, and of a field of msgspec."""
    if "import re" not in text and "pattern=" not in text:
        return
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        found = [each.value for each in node.keywords if each.arg == "pattern"]
        if (
            isinstance(function, ast.Attribute)
            and function.attr in FUNCTIONS
            and isinstance(function.value, ast.Name)
            and function.value.id == "re"
        ):
            rest = (*node.args[1:], *(each.value for each in node.keywords))
            if any("re.M" in ast.unparse(each) for each in rest):
                continue  # of lines, in text of this host's own programs
            found += node.args[:1]
        for each in found:
            for part in ast.walk(each):
                if isinstance(part, ast.Constant) and isinstance(part.value, str | bytes):
                    value = part.value
                    yield node.lineno, value if isinstance(value, str) else value.decode("latin-1")


def ends_with_dollar(pattern: str) -> bool:
    """Return whether a pattern has a ``$`` that is an anchor, at its end or that of a choice."""
    bare = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "", pattern, flags=re.DOTALL)
    return re.search(r"\$(?:\)|\||\Z)", bare) is not None


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("^a$", True), ("(a|b$)", True), ("a$|b", True), (r"a\$", False), ("[$]", False),
     (r"a\Z", False), (r"[\]$]", False), (r"\\$", True)],
)  # fmt: skip
def test_anchors_are_found(pattern: str, found: bool) -> None:
    assert ends_with_dollar(pattern) is found


def test_no_pattern_ends_with_a_dollar() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{line}: {pattern}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line, pattern in patterns(path.read_text())
        if ends_with_dollar(pattern)
    ]
    assert found == []
