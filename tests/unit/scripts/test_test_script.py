"""The script ``./test``: its arguments for pytest."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.engine import PROJECT

BROWSER = "-m pytest -n 2 --dist loadfile -m browser"


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script in a tree whose interpreter prints its arguments."""
    root = tmp_path_factory.mktemp("tree")
    shutil.copy(PROJECT / "test", root)
    for name, text in (("scripts/setup", ":"), (".venv/bin/python", 'echo "$@"')):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(f"#!/bin/sh\n{text}\n")
        (root / name).chmod(0o755)
    (root / "tests/browser").mkdir(parents=True)
    (root / "tests/browser/test_pages.py").touch()
    return root / "test"


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        ("", " tests/browser"),
        ("-x", " tests/browser -x"),
        ("-k test", " tests/browser -k test"),  # also the name of the script
        ("tests/browser/test_pages.py", " tests/browser/test_pages.py"),
        ("-x tests/browser/test_pages.py::test_map", " -x tests/browser/test_pages.py::test_map"),
        ("tests/browser/none.py", " tests/browser tests/browser/none.py"),
    ],
)
def test_a_path_restricts_the_tests_of_the_browser(
    script: Path, arguments: str, passed: str
) -> None:
    words = arguments.split()
    done = subprocess.run([script, "--browser", *words], capture_output=True, text=True, check=True)
    assert done.stdout == f"{BROWSER}{passed}\n"
