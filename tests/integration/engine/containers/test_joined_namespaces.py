"""A container in the network and pid namespaces of another container."""

from __future__ import annotations

import os

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


def test_namespaces_of_several_containers_are_joined_in_one_user_namespace(
    engine: PrivateEngine, busybox: str
) -> None:
    with (
        containers.running(engine, busybox) as owner,
        containers.running(engine, busybox, flags=("--network", f"container:{owner}")) as side,
        containers.running(engine, busybox) as stranger,
    ):
        network = ("--network", f"container:{owner}")
        flags = ("--userns", f"container:{owner}", *network)
        link = ("sh", "-c", "for kind in pid net user; do readlink /proc/self/ns/$kind; done")
        run = ("jaula", "run", "--rm")
        done = engine.cli(*run, *flags, "--pid", f"container:{side}", busybox, *link)
        pid, net, user = done.stdout.split()
        for ref, kind, expected in ((side, "pid", pid), (owner, "net", net), (owner, "user", user)):
            process = containers.inspect(engine, ref)["State"]["Pid"]
            assert os.readlink(f"/proc/{process}/ns/{kind}") == expected
        done = engine.cli(*run, *flags, "--pid", f"container:{stranger}", busybox, "true")
        assert (done.returncode, "different user namespaces" in done.stderr) == (125, True)
        done = engine.cli(*run, *network, "--pid", f"container:{side}", busybox, "true")
        assert (done.returncode, "--userns=container:NAME" in done.stderr) == (125, True)
