"""Print the files of tests of one feature, or of the core: ``select_tests.py NAME``.

The tests of a feature are those that import one of its modules or of the harness for it, and those
in a directory or a file with its name. The tests of the core are all that are not of a feature.
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).parents[1]
TESTS = PROJECT / "tests"
GROUPS = ("unit", "integration", "security", "acceptance")
CORE = "core"
EVERYWHERE = "acceptance/test_removed_features.py"
DIRECTORIES = {
    "build": ("buildkit", "builder", "acceptance/build"),
    "checkpoint": ("rollback", "clone"),
    "kubernetes": ("cri", "kube", "kubelet", "pods"),
    "trust": ("signatures", "sbom"),
    "verify": ("diagnostics", "audit/checks"),
}
"""Other names of directories and files, by feature."""
COMMON = ("containers", "engine", "leaks")  # modules of the harness that nearly all tests use


def features() -> list[str]:
    """Return the names of the features."""
    directory = PROJECT / "src/jaula/features"
    return sorted(path.parent.name for path in directory.glob("*/feature.py"))


@cache
def imported(path: Path, *, harness: bool = True) -> frozenset[str]:
    """Return the features whose modules a file imports, itself or by a module of the harness."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[:2] == ["jaula", "features"] and len(parts) > 2:
                found.add(parts[2])
            module = TESTS.joinpath(*parts).with_suffix(".py")
            if harness and parts[0] == "harness" and module.stem not in COMMON:
                found |= imported(module, harness=False) if module.is_file() else set()
    return frozenset(found)


def is_named(path: Path, feature: str) -> bool:
    """Return whether a directory or the file has the name of a feature."""
    text = "/" + path.relative_to(TESTS).with_suffix("").as_posix().replace("/test_", "/")
    names = (feature, *DIRECTORIES.get(feature, ()))
    return any(f"/{name}" in text for name in names)


def select(name: str) -> list[str]:
    """Return the paths of the tests of a feature or of the core, relative to the project."""
    known = features()
    files = [path for group in GROUPS for path in sorted((TESTS / group).rglob("test_*.py"))]
    chosen = []
    for path in files:
        of = {each for each in known if each in imported(path) or is_named(path, each)}
        is_everywhere = path == TESTS / EVERYWHERE
        if is_everywhere or (name in of if name != CORE else not of):
            chosen.append(path.relative_to(PROJECT).as_posix())
    return chosen


def main() -> int:
    """Print the paths; fail for an unknown name."""
    name = sys.argv[1].replace("-", "_")
    if name not in (CORE, *features()):
        names = ", ".join((CORE, *features()))
        print(f"test: {name} is neither {CORE} nor a feature: {names}", file=sys.stderr)
        return 2
    print("\n".join(select(name)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
