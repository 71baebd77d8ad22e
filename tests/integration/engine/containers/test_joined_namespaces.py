"""A container in the network and pid namespaces of another container."""

from __future__ import annotations

from harness import containers
from harness.engine import PrivateEngine


def test_the_names_of_the_host_are_those_of_the_other_container(
    engine: PrivateEngine, busybox: str
) -> None:
    flags = ("--hostname", "box", "--domainname", "example.test")
    with (
        containers.running(engine, busybox, flags=flags) as owner,
        containers.running(engine, busybox, flags=("--network", f"container:{owner}")) as side,
    ):
        document = containers.inspect(engine, side)
        assert document["Config"]["Hostname"] == "box"
        assert document["Config"]["Domainname"] == "example.test"
        assert document["NetworkSettings"]["SandboxKey"] == ""
        done = engine.cli("jaula", "exec", side, "hostname")
        assert done.stdout == "box\n"


def test_an_init_program_runs_only_in_a_pid_namespace_of_its_own(
    engine: PrivateEngine, busybox: str
) -> None:
    with containers.running(engine, busybox) as owner:
        words = ("jaula", "run", "--rm", "--init", "--pid", f"container:{owner}", busybox)
        done = engine.cli(*words, "sh", "-c", "ls /sbin/docker-init; exit 3")
        assert done.returncode == 3
        assert "No such file" in done.stderr
        assert "tini" not in done.stdout + done.stderr
