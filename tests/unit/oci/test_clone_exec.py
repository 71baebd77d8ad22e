"""The static program that executes another one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaula.oci import clone_exec

pytestmark = pytest.mark.skipif(
    os.uname().machine != clone_exec.MACHINE, reason=f"a program for {clone_exec.MACHINE}"
)
PRINT = (
    "import os, sys; print(sys.argv[1:], os.environ, os.statvfs('/proc/self/exe').f_flag & 1,"
    " os.listdir('/proc/self/fd'))"
)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / clone_exec.NAME
    file.write_bytes(clone_exec.program())
    file.chmod(0o755)
    return file


def test_arguments_and_environment_are_passed_on(program: Path) -> None:
    words = ["-I", "-S", "-c", PRINT, "a b", "", "\xe9"]
    environment = {"A": "1", "LC_CTYPE": "C.UTF-8", "EMPTY": ""}
    outputs = [
        subprocess.run(
            [*start, sys.executable, *words], env=environment, capture_output=True, check=True
        ).stdout.decode()
        for start in ([], [program])
    ]
    readonly = 1 if os.geteuid() == 0 else 0
    plain = outputs[0].replace("}) 0", f"}}) {readonly}")
    assert outputs[1] == plain
    assert "'a b', '', '\xe9'" in plain


@pytest.mark.parametrize("words", [[], ["/nowhere"], ["/etc/passwd"], ["/"]])
def test_a_program_that_cannot_be_executed_is_status_127(program: Path, words: list[str]) -> None:
    assert subprocess.run([program, *words], check=False).returncode == 127
