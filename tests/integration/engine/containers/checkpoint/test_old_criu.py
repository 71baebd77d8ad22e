"""A CRIU that cannot dump on this kernel: the error names the way out, and the container runs on.

CRIU 4.1 asks each socket for two options that Linux 6.16 refuses for internet sockets.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers, criu_program
from harness.engine import PrivateEngine

LOG = """
fd = f"/proc/{os.getppid()}/fd/{request.options.work_dir_fd}"
with open(f"{fd}/{request.options.log_file}", "w") as log:
    log.write("(00.01) Error (criu/sockets.c:538): sockets: Can't get 1:16 opt: Not supported\\n")
    log.write("(00.02) Error (criu/cr-dump.c:2128): Dumping FAILED.\\n")
"""


@pytest.mark.parametrize("words", [("checkpoint", "create"), ("snapshot",)])
def test_a_criu_that_cannot_dump_sockets_is_to_be_updated(
    new_engine: Callable[..., PrivateEngine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
) -> None:
    criu_program.write(tmp_path, LOG)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    engine = new_engine()
    load_image(engine, "busybox")
    with containers.running(engine, "busybox", flags=("--network=none",)) as name:
        done = engine.cli("jaula", *words, name, "one")
        assert done.returncode == 1
        assert "sockets: Can't get 1:16 opt" in done.stderr
        assert "(install CRIU 4.2 or later, " in done.stderr
        assert containers.inspect(engine, name)["State"]["Running"]
        assert engine.cli("jaula", "checkpoint", "ls", name).stdout.split()[2:] == []
