"""The table of the programs that the engine executes is complete."""

from __future__ import annotations

import ast
import re
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src/jaula"
SECURITY = Path(__file__).parents[2] / "docs/security.md"
CLIENT = re.compile(
    r"(cli|oci)/|features/(\w+/(cli/|\w+_cli\.)|(audit|demo|doctor|harden|migrate_from|quadlet)/"
    r"|kubernetes/kube/|verify/(?!diagnostics/|interval))"
)
"""Files that run as the user who calls them, not in an engine."""
_STARTS = re.compile(
    r"(subprocess\.(run|Popen|call|check_call|check_output)|os\.(exec[lv]p?e?|posix_spawnp?|popen|system)"
    r"|asyncio\.create_subprocess_(exec|shell))"
)


def _starting(path: Path) -> bool:
    return any(
        _STARTS.fullmatch(ast.unparse(node.func))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    )


def _section(title: str) -> str:
    return SECURITY.read_text().partition(f"\n### {title}")[2].partition("\n### ")[0]


def test_each_file_that_starts_a_program_has_a_row() -> None:
    starting = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if not CLIENT.match(str(path.relative_to(SOURCE))) and _starting(path)
    }
    rows = [line.split("|") for line in _section("What the engine executes").splitlines()]
    places = " ".join(row[2] for row in rows if len(row) == 6)
    listed = set(re.findall(r"`([a-z0-9_/]+\.py)`", places))
    assert listed == starting


def test_each_sandboxed_parser_has_a_row() -> None:
    names = {
        node.args[0].value
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Task"
        if node.args and isinstance(node.args[0], ast.Constant)
    }
    listed = set(re.findall(r"process `(jaula-[a-z-]+)`", _section("What parses the bytes")))
    assert names
    assert listed == names


def test_each_test_of_a_parser_exists() -> None:
    tests = re.findall(r"`(tests/[a-z0-9_/]+\.py)`", _section("What parses the bytes"))
    assert len(tests) >= 8
    assert [name for name in tests if not (SOURCE.parents[1] / name).is_file()] == []
