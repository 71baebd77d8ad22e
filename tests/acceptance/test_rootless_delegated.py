"""An ordinary user's engine with cgroups delegated by systemd: limits, pause, stats, restarts."""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.callers.caller import until
from harness.rootless import NAME, SystemdUser


def _has_user() -> bool:
    try:
        pwd.getpwnam(NAME)
    except KeyError:
        return False
    return Path("/run/systemd/system").is_dir() and Path("/sys/fs/cgroup/cgroup.procs").exists()


pytestmark = [
    pytest.mark.xdist_group("rootless"),
    pytest.mark.skipif(not _has_user(), reason=f"no systemd, no cgroup v2 or no user {NAME} here"),
]


@pytest.fixture(scope="module")
def host(busybox_archive: Path) -> Iterator[SystemdUser]:
    with SystemdUser() as made:
        made.load(busybox_archive)
        yield made


@pytest.fixture
def limited(host: SystemdUser) -> Iterator[Path]:
    """Yield the cgroup of a container with limits."""
    flags = ("--memory", "64m", "--pids-limit", "50", "--cpus", "0.5")
    host.jaula("run", "-d", "--name", "limited", *flags, "busybox", "sleep", "1000")
    yield cgroup(host, "limited")
    host.jaula("rm", "-f", "limited")


def cgroup(host: SystemdUser, name: str) -> Path:
    pid = host.jaula("inspect", "-f", "{{.State.Pid}}", name).stdout.strip()
    path = Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")
    return Path("/sys/fs/cgroup" + path)


def test_limits_are_set_in_a_cgroup_of_the_user(host: SystemdUser, limited: Path) -> None:
    assert f"user@{host.uid}.service/app.slice/jaula-" in str(limited)
    assert (limited / "memory.max").read_text() == f"{64 << 20}\n"
    assert (limited / "pids.max").read_text() == "50\n"
    assert (limited / "cpu.max").read_text() == "50000 100000\n"


def test_engine_namespace_holder_and_containers_are_in_one_scope(
    host: SystemdUser, limited: Path
) -> None:
    scope = limited.parent.parent
    assert scope.name.endswith(".scope")
    (keeper,) = host.processes("jaula-keeper")
    assert (scope / "keeper/cgroup.procs").read_text().split() == [str(keeper)]
    assert str(host.engine()) in (scope / "engine/cgroup.procs").read_text().split()


def test_containers_have_the_default_pids_limit(host: SystemdUser) -> None:
    host.jaula("run", "-d", "--name", "plain", "busybox", "sleep", "1000")
    assert (cgroup(host, "plain") / "pids.max").read_text() == "4096\n"
    host.jaula("rm", "-f", "plain")


def test_pause_stats_and_update_work(host: SystemdUser, limited: Path) -> None:
    host.jaula("pause", "limited")
    assert (limited / "cgroup.freeze").read_text() == "1\n"
    host.jaula("unpause", "limited")
    output = host.jaula("stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", "limited")
    assert output.stdout.split()[0] == "1"
    host.jaula("update", "--memory", "96m", "--memory-swap", "96m", "limited")
    assert (limited / "memory.max").read_text() == f"{96 << 20}\n"


def test_a_container_above_its_memory_limit_is_killed(host: SystemdUser) -> None:
    script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=60"
    limits = ("--memory", "24m", "--memory-swap", "24m")
    host.jaula(
        "run", "--name", "greedy", *limits, "busybox", "sh", "-c", script, expect=None
    )  # a shell may outlive its child
    output = host.jaula("inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "greedy")
    assert output.stdout == "true 137\n"
    host.jaula("rm", "greedy")


def test_the_next_engine_uses_the_cgroups_of_its_containers(
    host: SystemdUser, limited: Path
) -> None:
    os.kill(host.engine(), signal.SIGKILL)
    answers = lambda: host.jaula("version", expect=None).returncode == 0  # noqa: E731
    until(
        answers, "the next engine answers"
    )  # a command waits for it, but not as long as emulation
    host.jaula("pause", "limited")
    assert (limited / "cgroup.freeze").read_text() == "1\n"
    host.jaula("unpause", "limited")
    host.jaula("run", "--rm", "--memory", "64m", "busybox", "true")


def test_the_scope_ends_with_engine_and_containers(host: SystemdUser) -> None:
    host.jaula("run", "--rm", "busybox", "true")
    (keeper,) = host.processes("jaula-keeper")
    path = Path(f"/proc/{keeper}/cgroup").read_text().strip().removeprefix("0::")
    scope = Path("/sys/fs/cgroup" + path).parent
    os.kill(host.engine(), signal.SIGTERM)
    until(lambda: not scope.exists(), "systemd removes the scope")
    assert "CONTAINER ID" in host.jaula("ps").stdout
