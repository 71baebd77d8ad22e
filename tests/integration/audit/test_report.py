"""The kernel report and the tree on this machine, with real containers."""

from __future__ import annotations

import os
import re

from harness.engine import PrivateEngine


def test_the_host_supports_every_needed_feature(engine: PrivateEngine) -> None:
    links = sorted(os.listdir("/sys/class/net"))
    done = engine.cli("jaula", "check")
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("user", "overlay", "seccomp", "veth", "nftables", "memory", "LOST WITHOUT IT"):
        assert word in done.stdout
    assert not [name for name in os.listdir("/sys/class/net") if name.startswith("jprobe")], links


def test_the_tree_shows_every_namespace_of_a_container(engine: PrivateEngine, busybox: str) -> None:
    container = engine.cli("jaula", "run", "-d", busybox, "sleep", "1000").stdout.strip()
    try:
        pid = engine.request("GET", f"/containers/{container}/json").json()["State"]["Pid"]
        done = engine.cli("jaula", "tree", container)
        assert done.returncode == 0, done.stderr
        kinds = "cgroup,ipc,mnt,net,pid,time,user,uts"
        assert f"sleep({pid},{kinds})" in done.stdout
        assert re.search(r"jaula-shim\(\d+\)---sleep", done.stdout)
    finally:
        engine.request("DELETE", f"/containers/{container}?force=1")
