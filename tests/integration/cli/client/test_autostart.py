"""The client starts exactly one engine if none answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness.engine import PROJECT

# In namespaces of its own, so that the machine's own engine and directories are never met.
SCRIPT = """
import os, signal, socket, struct, subprocess, sys, time
jaula = sys.argv[1]
for path in ("/run/jaula", "/var/lib/jaula"):
    os.makedirs(path, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", path], check=True)
if len(sys.argv) > 2:
    os.environ["PATH"] = "/usr/bin:/bin"
    os.makedirs("/run/jaula/jaula.sock")  # nothing can listen here
    done = subprocess.run([jaula, "ps"], capture_output=True, text=True)
    print(done.returncode, done.stderr)
    sys.exit()
both = [subprocess.Popen([jaula, "ps", "-q"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)]
outputs = [one.communicate(timeout=40)[0] for one in both]
assert all(one.returncode == 0 for one in both), outputs
peer = socket.socket(socket.AF_UNIX)
peer.connect("/run/jaula/jaula.sock")
pid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
assert os.getsid(pid) == pid, "the engine is in the client's session"
assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
began = time.monotonic()
subprocess.run([jaula, "ps"], check=True, capture_output=True)
assert time.monotonic() - began < 2
with open(f"/proc/{pid}/cmdline") as file:
    assert "daemon" in file.read()
os.kill(pid, signal.SIGTERM)
deadline = time.monotonic() + 20
while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
    time.sleep(0.05)
assert not os.path.exists(f"/proc/{pid}"), "the engine did not end"
print("one engine")
"""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "--mount", "--net", "--propagation", "private",
               sys.executable, "-c", SCRIPT, str(PROJECT / "jaula"), *words]  # fmt: skip
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, env=environment
    )


def test_two_clients_start_one_engine_in_its_own_session() -> None:
    done = run()
    assert done.stdout == "one engine\n", done.stderr


def test_a_failed_start_reports_the_last_log_line() -> None:
    done = run("broken")
    assert done.stdout.startswith("1 the engine did not start: "), done.stdout + done.stderr
    assert "engine.log" in done.stdout


def test_the_launcher_works_through_symbolic_links(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(PROJECT / "jaula")
    second = tmp_path / "second"
    second.symlink_to("link")
    done = subprocess.run(
        [str(second), "--version"], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout.startswith("jaula version ")
