"""A view of root cannot write files, run programs or use capabilities."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, os, socket, sys
from jaula.kernel import capabilities, landlock
from jaula.features.web.web_confinement import confine
mask = int(dict(line.split(":", 1) for line in open("/proc/self/status"))["CapPrm"], 16)
capabilities.capset(mask, mask, mask)
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
name = "\\0" + sys.argv[2]
attempt("abstract", lambda: socket.socket(socket.AF_UNIX).connect(name))
results["scoped"] = results["landlock"] and bool(
    landlock.supported_rights(landlock.abi_version()).scoped
)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
names = ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb", "NoNewPrivs")
results |= {key: status[key].strip() for key in names}
print(json.dumps(results))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_view_of_root_only_reads(tmp_path: Path) -> None:
    import json

    (tmp_path / "old").write_text("kept")
    name = f"jaula-test-{os.getpid()}"
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), name]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["read"] == "root:"
    if found["landlock"]:
        assert {found[key] for key in ("write", "change", "remove", "run")} == {"PermissionError"}
    assert found["abstract"] == ("PermissionError" if found["scoped"] else "done")
    assert found["mount"] == "PermissionError"
    assert found["CapEff"] == found["CapPrm"] == found["CapBnd"] == f"{1 << 2:016x}"
    assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == 0
    assert found["NoNewPrivs"] == "1"
    assert (tmp_path / "old").read_text() == "kept"
