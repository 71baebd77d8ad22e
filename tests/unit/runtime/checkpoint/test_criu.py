"""CRIU's service process: one that ends, and one that answers nonsense, are one error."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from jaula.errors import JaulaError
from jaula.runtime.checkpoint.criu import Criu


def program(directory: Path, text: str) -> str:
    path = directory / "criu"
    path.write_text(f"#!{sys.executable}\nimport os, socket, sys\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_program_that_ends_at_once_is_one_error(tmp_path: Path) -> None:
    with Criu(program(tmp_path, "")) as service:
        time.sleep(0.5)
        with pytest.raises(JaulaError, match="criu ended"):
            service.version()


def test_a_program_that_ends_after_the_request_is_one_error(tmp_path: Path) -> None:
    text = "socket.socket(fileno=int(sys.argv[3])).recv(4096)"
    with Criu(program(tmp_path, text)) as service, pytest.raises(JaulaError, match="criu ended"):
        service.version()


def test_an_answer_that_is_not_a_message_is_one_error(tmp_path: Path) -> None:
    text = "s = socket.socket(fileno=int(sys.argv[3])); s.recv(4096); s.send(b'\\xff' * 20)"
    with Criu(program(tmp_path, text)) as service, pytest.raises(JaulaError, match="criu"):
        service.version()
