"""A label that the kernel refuses is one error, and the process goes on waiting."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from jaula.errors import RuntimeFailure
from jaula.features.checkpoint.runtime import criu_selinux


def test_a_label_that_the_kernel_refuses_is_an_error() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            while "(sleep) S" not in Path(f"/proc/{process.pid}/stat").read_text():
                time.sleep(0.01)
            with pytest.raises(RuntimeFailure, match="SELinux label 'no label'"):
                criu_selinux.enter(process.pid, "no label")
            assert process.poll() is None
        finally:
            process.kill()
