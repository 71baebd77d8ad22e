"""Scanners get true values from ``docker inspect``: the CIS Docker Benchmark, parts 4 and 5.

The templates request the fields that scanners for Docker read, docker-bench-security among them,
through the real ``docker`` command. Each is compared for three containers: one that follows the
benchmark, one that violates it, and a default one, whose values must match the kernel.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine

pytestmark = pytest.mark.needs("docker")

RESTART = "{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}"
MOUNTS = "{{range $mnt := .Mounts}}{{$mnt.Source}}:{{$mnt.RW}}:{{json $mnt.Propagation}} {{end}}"

ROWS: tuple[tuple[str, str, str, str, str], ...] = (
    # benchmark, template, kept, broken, plain (regular expressions)
    ("5.3 security options", "{{.HostConfig.SecurityOpt}}", r".*no-new-privileges.*",
     r"\[.*seccomp.unconfined.*\]", r"(\[\]|<no value>)"),
    ("5.4 capabilities added", "{{.HostConfig.CapAdd}}", r"\[(CAP_)?NET_BIND_SERVICE\]",
     r"\[(CAP_)?(SYS_ADMIN|ALL)\]", r"(\[\]|<no value>)"),
    ("5.4 capabilities dropped", "{{.HostConfig.CapDrop}}", r"\[ALL\]", r"(\[\]|<no value>)",
     r"(\[\]|<no value>)"),
    ("5.5 privileged", "{{.HostConfig.Privileged}}", "false", "true", "false"),
    ("5.6 host directories", MOUNTS, r"", r".*/etc:true:.*", r""),
    ("5.10 host network", "NetworkMode={{.HostConfig.NetworkMode}}", "NetworkMode=none",
     "NetworkMode=host", "NetworkMode=(default|bridge)"),
    ("5.11 memory", "{{.HostConfig.Memory}}", "67108864", "0", "0"),
    ("5.12 CPU shares", "{{.HostConfig.CpuShares}}", "512", "0", "0"),
    ("5.12 CPUs", "{{.HostConfig.NanoCpus}}", "500000000", "0", "0"),
    ("5.13 read-only root", "{{.HostConfig.ReadonlyRootfs}}", "true", "false", "false"),
    ("5.15 restarts", RESTART, "on-failure:5", "always:0", "no:0"),
    ("5.16 host processes", "{{.HostConfig.PidMode}}", "", "host", ""),
    ("5.17 host ipc", "{{.HostConfig.IpcMode}}", "none", "host", "(private|shareable)"),
    ("5.18 devices", "{{json .HostConfig.Devices}}", r"(\[\]|null)", r".*/dev/fuse.*",
     r"(\[\]|null)"),
    ("5.19 ulimits", "{{json .HostConfig.Ulimits}}", r'.*"nofile".*', r"(\[\]|null)",
     r"(\[\]|null)"),
    ("5.20 propagation", "{{range $mnt := .Mounts}}{{json $mnt.Propagation}}{{end}}", "",
     r'.*"rshared".*', ""),
    ("5.21 host uts", "{{.HostConfig.UTSMode}}", "", "host", ""),
    ("5.25 cgroup parent", "{{.HostConfig.CgroupParent}}", "", r"/elsewhere.*", ""),
    ("5.29 processes", "{{.HostConfig.PidsLimit}}", "100", "(-1|0|<nil>)", r"[1-9]\d*"),
    ("5.31 host user namespace", "{{.HostConfig.UsernsMode}}", "(private)?", "host",
     "(private)?"),
    ("5.32 engine's socket", "{{range $mnt := .Mounts}}{{$mnt.Source}} {{end}}", "",
     r".*\.sock", ""),
    ("5.2 AppArmor profile", "AppArmorProfile={{.AppArmorProfile}}", "AppArmorProfile=.*",
     "AppArmorProfile=(unconfined)?", "AppArmorProfile=.*"),
    ("4.1 user", "{{.Config.User}}", "1000", "", ""),
    ("4.6 health check", "{{if .Config.Healthcheck}}{{.Config.Healthcheck.Test}}{{end}}",
     r"\[CMD-SHELL true\]", "", ""),
    ("5.27 health", "{{if .State.Health}}{{.State.Health.Status}}{{end}}", "(starting|healthy)",
     "", ""),
    ("state", "{{.State.Running}} {{.State.Pid}}", r"true [1-9]\d*", r"true [1-9]\d*",
     r"true [1-9]\d*"),
)  # fmt: skip

KEPT = (
    "--cap-drop ALL --cap-add NET_BIND_SERVICE --security-opt no-new-privileges --network none "
    "--memory 64m --cpu-shares 512 --cpus 0.5 --read-only --restart on-failure:5 --ipc none "
    "--ulimit nofile=100:200 --pids-limit 100 --user 1000 --health-cmd true"
)
BROKEN = (
    "--privileged --cap-add SYS_ADMIN --security-opt seccomp=unconfined --network host "
    "--restart always --pid host --ipc host --uts host --userns host --pids-limit -1 "
    "--device /dev/fuse --cgroup-parent /{parent} -v /etc:/host -v {shared}:/srv:rshared"
)


@contextlib.contextmanager
def shared_tmpfs(path: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(path)], check=True)
    try:
        subprocess.run(["mount", "--make-shared", str(path)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture(scope="module")
def inspected(
    engine: PrivateEngine, busybox: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, list[str]]]:
    """Return the output of the docker command for every template, by container."""
    path = tmp_path_factory.mktemp("other-engine") / "docker.sock"
    other_engine = socket.socket(socket.AF_UNIX)
    other_engine.bind(str(path))
    bound = ("-v", f"{path}:/engine.sock")
    parent = containers.unique("elsewhere")
    shared = tmp_path_factory.mktemp("shared")
    broken_flags = BROKEN.format(parent=parent, shared=shared).split()
    with (
        shared_tmpfs(shared),
        containers.running(engine, busybox, flags=tuple(KEPT.split())) as kept,
        containers.running(engine, busybox, flags=(*broken_flags, *bound)) as broken,
        containers.running(engine, busybox) as plain,
    ):
        result: dict[str, list[str]] = {"kept": [], "broken": [], "plain": []}
        for _, template, *_ in ROWS:
            words = ("inspect", "--format", template, kept, broken, plain)
            done = engine.cli("docker", *words)
            assert done.returncode == 0, f"{template}: {done.stderr}"
            answers = done.stdout.removesuffix("\n").split("\n")
            for name, answer in zip(result, answers, strict=True):
                result[name].append(answer.strip())
        yield result
    other_engine.close()
    trees = Path("/sys/fs/cgroup")
    for place in [trees / parent, *trees.glob(f"*/{parent}")]:
        if place.is_dir() and not place.parent.is_symlink():
            place.rmdir()


@pytest.mark.parametrize("number", range(len(ROWS)), ids=[row[0] for row in ROWS])
def test_a_scanner_gets_a_true_answer(inspected: dict[str, list[str]], number: int) -> None:
    _, _, *expected = ROWS[number]
    for name, pattern in zip(("kept", "broken", "plain"), expected, strict=True):
        assert re.fullmatch(pattern, inspected[name][number], re.DOTALL), (
            name,
            inspected[name][number],
        )


def test_inspect_matches_the_kernel(engine: PrivateEngine, busybox: str) -> None:
    """Compare limits and privileges in inspect with the container's files in /proc."""
    flags = ("-m", "32m", "--pids-limit", "77", "--read-only", "--cap-drop", "ALL")
    with containers.running(engine, busybox, flags=flags) as limited:
        result = json.loads(engine.cli("docker", "inspect", limited).stdout)[0]
        host, pid = result["HostConfig"], result["State"]["Pid"]
        assert (
            int(containers.cgroup_file(pid, "memory", "memory.limit_in_bytes", "memory.max"))
            == (host["Memory"])
        )
        assert int(containers.cgroup_file(pid, "pids", "pids.max", "pids.max")) == host["PidsLimit"]
        assert ("ro" in containers.mountinfo(pid)["/"].options) is host["ReadonlyRootfs"]
        assert int(containers.status(pid)["CapBnd"], 16) == 0
    with containers.running(engine, busybox) as plain:
        result = json.loads(engine.cli("docker", "inspect", plain).stdout)[0]
        pid = result["State"]["Pid"]
        limit = containers.cgroup_file(pid, "pids", "pids.max", "pids.max")
        assert int(limit) == result["HostConfig"]["PidsLimit"]
        mine, theirs = (Path(f"/proc/{each}/ns/user").readlink() for each in ("self", pid))
        assert mine != theirs and result["HostConfig"]["UsernsMode"] != "host"


def test_published_ports_have_their_address(engine: PrivateEngine, busybox: str) -> None:
    """5.8, 5.13 and 5.14: ``docker port``, and the addresses of the bindings."""
    flags = ("-p", "127.0.0.1::80", "-p", "0.0.0.0::81")
    with containers.running(engine, busybox, flags=flags) as name:
        lines = engine.cli("docker", "port", name).stdout.splitlines()
        assert re.fullmatch(r"80/tcp -> 127\.0\.0\.1:\d+", lines[0])
        assert re.fullmatch(r"81/tcp -> 0\.0\.0\.0:\d+", lines[1])
        bindings = json.loads(
            engine.cli("docker", "inspect", "-f", "{{json .NetworkSettings.Ports}}", name).stdout
        )
        assert bindings["80/tcp"][0]["HostIp"] == "127.0.0.1"
        assert bindings["81/tcp"][0]["HostIp"] == "0.0.0.0"


def test_images_have_user_health_check_and_history(engine: PrivateEngine, busybox: str) -> None:
    """4.1, 4.6, 4.7 and 4.9: fields of an image, and ``docker history``."""
    name = containers.unique("bench")
    changes = ("-c", "USER 1000", "-c", "HEALTHCHECK CMD true")
    with containers.running(engine, busybox) as source:
        done = engine.cli("docker", "commit", *changes, source, f"{name}:1")
        assert done.returncode == 0, done.stderr
    try:
        form = "{{.Config.User}}|{{.Config.Healthcheck.Test}}"
        done = engine.cli("docker", "image", "inspect", "-f", form, f"{name}:1")
        assert done.stdout.strip() == "1000|[CMD-SHELL true]", done.stderr
        done = engine.cli("docker", "history", "--no-trunc", "-q", f"{name}:1")
        assert done.returncode == 0 and done.stdout.strip(), done.stderr
    finally:
        engine.cli("docker", "rmi", f"{name}:1")


def test_info_lists_the_engine_s_protections(engine: PrivateEngine) -> None:
    """2.x and 5.1 read ``docker info``: user namespaces, filter, no swarm."""
    form = "{{json .SecurityOptions}}|{{.Swarm.LocalNodeState}}|{{.LiveRestoreEnabled}}"
    done = engine.cli("docker", "info", "--format", form)
    assert done.returncode == 0, done.stderr
    options, swarm, live = done.stdout.strip().split("|")
    assert "name=userns" in options and "name=seccomp" in options
    assert (swarm, live) == ("inactive", "true")
