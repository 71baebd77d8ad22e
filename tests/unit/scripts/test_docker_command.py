"""``/usr/bin/docker`` of the packages."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from harness.engine import PROJECT


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """The script, with a program in the place of jaula that prints its arguments."""
    (tmp_path / "jaula").write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "jaula version 1.2.3" && exit\n'
        'for word; do echo "<$word>"; done\nexit 7\n'
    )
    (tmp_path / "jaula").chmod(0o755)
    text = (PROJECT / "packaging/docker/docker").read_text()
    script = tmp_path / "docker"
    script.write_text(text.replace("/usr/bin/jaula", str(tmp_path / "jaula")))
    script.chmod(0o755)
    return script


def run(command: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([command, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("flag", ["--version", "-v"])
def test_the_version_is_a_line_of_docker(command: Path, flag: str) -> None:
    """Clients match this, such as the devcontainer command and Ansible."""
    done = run(command, flag)
    assert (done.returncode, done.stderr) == (0, "")
    match = re.fullmatch(r"Docker version ([^,]+), build (\S+)\n", done.stdout)
    assert match is not None
    assert match.groups() == ("1.2.3", "jaula")


def test_other_words_are_passed_as_they_are(command: Path) -> None:
    done = run(command, "run", "-v", "/a b:/c", "--version")
    assert (done.returncode, done.stdout) == (7, "<run>\n<-v>\n</a b:/c>\n<--version>\n")


def test_an_error_of_the_program_is_the_status(command: Path) -> None:
    (command.parent / "jaula").write_text("#!/bin/sh\nexit 5\n")
    assert run(command, "--version").returncode == 5
