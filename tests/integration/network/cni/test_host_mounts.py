"""Plugins run in the host's mount namespace, with a clean environment and no descriptor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from harness.engine import PROJECT

# The process acts as the engine: a mount namespace of its own, and a thread.
_ENGINE = """
import asyncio, os, sys, threading
from jaula.kernel import mounts, namespaces
from jaula.kernel.mounts import MS
from jaula.kernel.namespaces import CLONE
from jaula.features.kubernetes.cni.plugin import Invocation, PluginExec

directory = sys.argv[1]
host = namespaces.open_namespace(os.getpid(), "mnt")
os.set_inheritable(host, True)  # no descriptor reaches the plugin, whatever its flags
namespaces.unshare(CLONE.NEWNS)
mounts.mount(None, "/", None, MS.REC | MS.SLAVE)
mounts.mount("tmpfs", directory, "tmpfs", MS(0))  # hides the plugins in this namespace
threading.Thread(target=threading.Event().wait, daemon=True).start()
assert not os.listdir(directory)

async def execute():
    plugins = PluginExec((directory,), host_mounts=host)
    await plugins.find("report")
    invocation = Invocation("ADD", "c1", "/proc/1/ns/net", "eth0", (("K8S_POD_NAME", "web"),))
    return await plugins.execute("report", invocation, b"the request", 30)

before = namespaces.namespace_id("self", "mnt")
sys.stdout.buffer.write(asyncio.run(execute()))
assert namespaces.namespace_id("self", "mnt") == before
"""

_PLUGIN = """#!{python}
import json, os, sys
descriptors = sorted(int(name) for name in os.listdir("/proc/self/fd"))
print(json.dumps({{
    "mounts": os.readlink("/proc/self/ns/mnt"),
    "net": os.readlink("/proc/self/ns/net"),
    "cwd": os.getcwd(),
    "descriptors": [fd for fd in descriptors if os.path.exists(f"/proc/self/fd/{{fd}}")],
    "environment": dict(os.environ),
    "group": os.getpgid(0) == os.getpid(),
    "stdin": sys.stdin.read(),
}}))
"""


def test_a_plugin_runs_in_the_mount_namespace_of_the_host(tmp_path: Path) -> None:
    plugin = tmp_path / "report"
    plugin.write_text(_PLUGIN.format(python="/usr/bin/python3 -IS"))
    plugin.chmod(0o755)
    done = subprocess.run(
        (sys.executable, "-c", _ENGINE, str(tmp_path)),
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROJECT / "src"), "SECRET": "x"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["mounts"] == os.readlink("/proc/self/ns/mnt")
    assert report["net"] == os.readlink("/proc/self/ns/net")
    assert (report["cwd"], report["descriptors"], report["group"]) == ("/", [0, 1, 2], True)
    assert report["stdin"] == "the request"
    environment = {k: v for k, v in report["environment"].items() if k not in ("LC_CTYPE",)}
    assert environment == {
        "PATH": "/usr/bin:/bin",
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/proc/1/ns/net",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "K8S_POD_NAME=web",
        "CNI_PATH": str(tmp_path),
    }


def test_the_child_is_created_by_vfork(tmp_path: Path) -> None:
    plugin = tmp_path / "report"
    plugin.write_text("#!/bin/sh\necho '{}'\n")
    plugin.chmod(0o755)
    script = """
import asyncio, sys
from jaula.features.kubernetes.cni.plugin import Invocation, PluginExec
asyncio.run(PluginExec((sys.argv[1],)).execute("report", Invocation("STATUS"), b"", 30))
"""
    trace = tmp_path / "trace"
    subprocess.run(
        ("strace", "-f", "-e", "trace=fork,vfork,clone,clone3,execve", "-o", str(trace),
         sys.executable, "-c", script, str(tmp_path)),
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROJECT / "src")},
        check=True,
        capture_output=True,
    )  # fmt: skip
    lines = trace.read_text().splitlines()
    children = [line for line in lines if "CLONE_THREAD" not in line and "execve" not in line]
    made = [line for line in children if "fork(" in line or "clone" in line]
    executed = [line for line in lines if f'execve("{plugin}"' in line]
    assert len(executed) == 1
    assert made, lines
    assert all("vfork" in line or "CLONE_VFORK" in line for line in made), made
