"""An engine in a container: dockerd and jaula under ``--privileged --userns=host``."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import image_archive, load_image
from harness import containers
from harness.engine import PROJECT, PrivateEngine

DOCKERD = """
dockerd >/tmp/log 2>&1 &
for turn in $(seq 100); do docker version >/dev/null 2>&1 && break; sleep 0.2; done
docker load -qi /busybox.tar && docker run --rm busybox sh -c 'echo nested; ip -4 addr show eth0'
status=$?
[ $status = 0 ] || tail -n 20 /tmp/log >&2
kill %1; wait
exit $status
"""

JAULA = f"""
{PROJECT}/jaula daemon >/tmp/log 2>&1 &
for turn in $(seq 100); do [ -S /run/jaula/jaula.sock ] && break; sleep 0.2; done
{PROJECT}/jaula load -qi /busybox.tar &&
    {PROJECT}/jaula run --rm busybox sh -c 'cat /proc/self/uid_map; ip -4 addr show eth0'
status=$?
[ $status = 0 ] || tail -n 20 /tmp/log >&2
kill %1; wait
exit $status
"""


def run(engine: PrivateEngine, script: str, *flags: str) -> str:
    """Run a script in a container that may do everything, with the host's programs."""
    load_image(engine, "debian")
    volumes = ["/usr", "/etc/alternatives", str(PROJECT)]
    volume = containers.unique("nested")
    words = [word for path in volumes for word in ("-v", f"{path}:{path}:ro")]
    words += ["-v", f"{image_archive('busybox')}:/busybox.tar:ro", "-v", f"{volume}:/var/lib"]
    try:
        done = engine.cli(
            *("jaula", "run", "--rm", "--privileged", "--userns=host", *flags, *words),
            *("debian", "bash", "-c", script),
            timeout=100,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
    finally:
        engine.request("DELETE", f"/volumes/{volume}")


@pytest.mark.needs("/usr/sbin/dockerd")
def test_dockerd_runs_containers_in_a_container(engine: PrivateEngine) -> None:
    output = run(engine, DOCKERD)
    assert "nested\n" in output
    assert "inet 172." in output


def test_jaula_runs_containers_in_a_container(engine: PrivateEngine) -> None:
    if Path("/sys/fs/selinux/enforce").exists():
        pytest.skip("under SELinux no container may execute the host's programs")
    output = run(engine, JAULA)
    (row,) = [line for line in output.splitlines() if line.split()[2:] == ["65536"]]
    inside, outside, _ = row.split()
    assert inside == "0"
    assert int(outside) >= 1_000_000_000
    assert "inet 172." in output
