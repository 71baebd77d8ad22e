"""The exit status that a later engine reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaula.runtime.runtime_client import Runtime
from jaula.runtime.shim.shim import write_exit_record
from jaula.runtime.shim_protocol import EXIT_NAME, ExitRecord


def test_what_the_shim_wrote_is_read(tmp_path: Path) -> None:
    assert Runtime.exit_record(str(tmp_path)) is None
    write_exit_record(str(tmp_path), ExitRecord(7))
    assert Runtime.exit_record(str(tmp_path)) == ExitRecord(7)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b'{"exit_code":'])
def test_a_file_that_a_power_failure_left_is_no_exit_status(tmp_path: Path, content: bytes) -> None:
    (tmp_path / EXIT_NAME).write_bytes(content)
    assert Runtime.exit_record(str(tmp_path)) is None
