"""A command imports what it uses: help, translations and hints cost others nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.engine import PROJECT

SCRIPT = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from jaula.cli.main import main
main(sys.argv[1:])
sys.stderr.write("\\n".join(sys.modules))
"""
RARE = ("jaula.translation", "jaula.cli.help", "jaula.cli.suggestion", "gettext", "difflib")


def modules(*words: str, language: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", SCRIPT, PROJECT / "src", *words],
        capture_output=True,
        text=True,
        env={"LANG": language, "JAULA_HOST": "unix:///nonexistent/jaula.sock"},
        check=True,
    )
    return set(done.stderr.splitlines())


@pytest.mark.parametrize(
    "words",
    [
        *(("--version",), ("ps",), ("images",), ("rm", "a"), ("run", "--rm", "a")),
        *(("network", "ls"), ("container", "exec", "a", "b")),
    ],
)
def test_a_command_imports_neither_help_nor_translations(words: tuple[str, ...]) -> None:
    imported = modules(*words, language="es_ES.UTF-8")
    assert "jaula.cli.main" in imported
    assert not [name for name in imported if name.startswith(RARE)]


def test_an_english_page_reads_no_catalogue_and_a_spanish_one_no_gettext() -> None:
    assert "jaula.cli.help" in modules("ps", "--help", language="C")
    assert "gettext" not in modules("ps", "--help", language="es_ES.UTF-8")
