"""A view of root cannot write files, run programs or use capabilities."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, os, subprocess, sys, threading
from jaula.web.confinement import confine
results = {"landlock": confine(), "read": open("/etc/passwd").read(5)}
def attempt(name, action):
    try:
        action()
        results[name] = "done"
    except OSError as error:
        results[name] = type(error).__name__
directory = sys.argv[1]
attempt("write", lambda: open(directory + "/new", "w"))
attempt("change", lambda: open(directory + "/old", "r+"))
attempt("remove", lambda: os.unlink(directory + "/old"))
attempt("run", lambda: os.execv("/bin/true", ["true"]))
attempt("mount", lambda: os.chroot("/"))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
results |= {key: status[key].strip() for key in ("CapEff", "CapPrm", "CapBnd", "NoNewPrivs")}
print(json.dumps(results))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_view_of_root_only_reads(tmp_path: Path) -> None:
    import json

    (tmp_path / "old").write_text("kept")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["read"] == "root:"
    if found["landlock"]:
        assert {found[key] for key in ("write", "change", "remove", "run")} == {"PermissionError"}
    assert found["mount"] == "PermissionError"
    assert found["CapEff"] == found["CapPrm"] == found["CapBnd"] == f"{1 << 2:016x}"
    assert found["NoNewPrivs"] == "1"
    assert (tmp_path / "old").read_text() == "kept"
