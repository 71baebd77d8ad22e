"""I22: a process that joins a container cannot be traced from inside before it is confined."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from harness import containers, images
from harness.engine import PROJECT, PrivateEngine

# Runs inside as root with every right to trace its equals: whatever it can open of a process that
# is not of the container's own making is reported.
WATCHER = r"""
import os, time

def command(base):
    try:
        with open(base + "/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""

LOOKS = {
    "exe": lambda base: os.readlink(base + "/exe"),
    "cwd": lambda base: os.readlink(base + "/cwd"),
    "environ": lambda base: open(base + "/environ", "rb").read(1),
    "fd": lambda base: [os.readlink(base + "/fd/" + n) for n in os.listdir(base + "/fd")],
    "mem": lambda base: open(base + "/mem", "r+b").close(),
}
OWN = (b"sleep", b"true", b"/watch", b"")
end = time.monotonic() + 6
print("watching", flush=True)
while time.monotonic() < end:
    for name in os.listdir("/proc"):
        base = "/proc/" + name
        # The arguments of a process tell whether it is still the engine's: they change with the
        # exec. They are read before and after, since it may exec in between.
        if not name.isdigit() or command(base).split(b"\0")[0] in OWN:
            continue
        for what, look in LOOKS.items():
            try:
                seen = look(base)
            except OSError:
                continue
            still = command(base)
            if still.split(b"\0")[0] not in OWN:
                print("SEEN", what, name, still, seen, flush=True)
print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--cap-add", "SYS_PTRACE")])
@pytest.mark.parametrize("cve", ["CVE-2016-9962"])
def test_nothing_of_a_joining_process_can_be_opened(
    engine: PrivateEngine, flags: tuple[str, ...], cve: str
) -> None:
    name = containers.unique("join")
    prepare = 'cp /usr/bin/python3 /watch && exec /watch -c "$0"'
    words = ("run", "--name", name, *flags, *images.host_tools(engine))
    watcher = subprocess.Popen(
        [str(PROJECT / "jaula"), *words, "sh", "-c", prepare, WATCHER],
        env=engine.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert watcher.stdout is not None
        first = watcher.stdout.readline()
        assert first == "watching\n", first + watcher.stdout.read()
        joins = 0
        while watcher.poll() is None and joins < 40:
            done = engine.cli("jaula", "exec", name, "true")
            if done.returncode != 0:
                break
            joins += 1
        enough = 1 if "JAULA_VM" in os.environ else 5
        assert joins >= enough, "too few processes joined for the test to mean something"
        text = watcher.stdout.read()
        assert watcher.wait(30) == 0, text
        assert not re.search(r"^SEEN", text, re.MULTILINE), text[:2000]
    finally:
        if watcher.poll() is None:
            watcher.kill()
            watcher.wait()
        engine.request("DELETE", f"/containers/{name}?force=1")


@pytest.mark.parametrize("cve", ["CVE-2016-9962"])
def test_a_joined_process_is_confined_like_init(
    engine: PrivateEngine, plain: str, cve: str
) -> None:
    """Same namespaces, capability sets and filters as the container's init."""
    text = engine.cli("jaula", "exec", plain, "cat", "/proc/1/status", "/proc/self/status").stdout
    first, _, joined = text.partition("\nName:\tcat")
    for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Seccomp", "NoNewPrivs", "Uid"):
        result = [re.search(rf"^{key}:\s*(.*)$", part, re.MULTILINE) for part in (first, joined)]
        assert result[0] and result[1]
        assert result[0][1] == result[1][1], key
    for kind in ("ipc", "mnt", "net", "pid", "time", "user", "uts", "cgroup"):
        words = f"readlink /proc/1/ns/{kind}; readlink /proc/self/ns/{kind}"
        one, two = engine.cli("jaula", "exec", plain, "sh", "-c", words).stdout.split()
        assert one == two
