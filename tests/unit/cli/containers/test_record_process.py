"""The recorder of a container that was not started: its file is removed, and no other."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from jaula.features.record.cli.record_process import RecordProcess


@pytest.mark.parametrize("other", [False, True], ids=["own", "another's"])
def test_a_recorder_that_is_discarded_leaves_the_file_of_another(
    tmp_path: Path, other: bool
) -> None:
    path = tmp_path / "record"
    path.write_text("")
    recorder = RecordProcess.__new__(RecordProcess)
    recorder.path, recorder._file = str(path), path.stat()
    recorder.pid = os.fork()
    if not recorder.pid:
        time.sleep(60)
        os._exit(0)
    if other:
        path.rename(tmp_path / "moved")
        path.write_text("another")
    recorder.discard()
    with pytest.raises(ChildProcessError):
        os.waitpid(recorder.pid, 0)
    assert path.exists() == other
