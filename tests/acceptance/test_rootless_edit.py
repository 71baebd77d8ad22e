"""An ordinary user's engine: debug sessions, and changes of running containers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.rootless import RootlessHost

pytestmark = [pytest.mark.xdist_group("rootless")]


@pytest.fixture(scope="module")
def host(busybox_archive: Path) -> Iterator[RootlessHost]:
    with RootlessHost() as made:
        made.load(busybox_archive)
        yield made


@pytest.fixture
def box(host: RootlessHost) -> Iterator[str]:
    host.jaula("run", "-d", "--name", "box", "busybox", "httpd", "-f", "-p", "80")
    yield "box"
    host.jaula("rm", "-f", "-v", "box")


def test_a_session_has_its_tools_and_leaves_nothing(host: RootlessHost, box: str) -> None:
    done = host.jaula("debug", box, "sh", "-c", "which ls; touch /.debug/x; echo x > /tmp/x")
    assert done.stdout == "/.debug/bin/ls\n"
    assert "Read-only" in done.stderr
    assert host.jaula("exec", box, "cat", "/tmp/x").stdout == "x\n"
    assert host.jaula("exec", box, "ls", "/.debug", expect=1).stdout == ""
    assert ".debug" not in host.jaula("diff", box).stdout


def test_ports_mounts_and_networks_change(host: RootlessHost, box: str) -> None:
    host.jaula("network", "create", "second")
    done = host.jaula(
        *("edit", "--publish-add", "127.0.0.1::80", "--mount-add", "type=tmpfs,target=/memory"),
        *("--mount-add", "data:/data", "--network-add", "second", box),
    )
    assert done.returncode == 0, done.stderr + host.log_tail()
    table = host.jaula("exec", box, "cat", "/proc/self/mountinfo").stdout
    assert " /memory " in table and " /data " in table
    document = json.loads(host.jaula("inspect", box).stdout)[0]
    number = document["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    assert "second" in document["NetworkSettings"]["Networks"]
    answer = host.run("busybox", "wget", "-q", "-O-", "-S", f"http://127.0.0.1:{number}/", expect=1)
    assert "404" in answer.stderr + answer.stdout
    done = host.jaula("edit", "--mount-rm", "/data", "--publish-rm", f"{number}:80", box)
    assert done.returncode == 0, done.stderr
    assert " /data " not in host.jaula("exec", box, "cat", "/proc/self/mountinfo").stdout
    assert host.jaula("port", box).stdout == ""
    host.jaula("restart", "-t", "0", box)
    assert " /memory " in host.jaula("exec", box, "cat", "/proc/self/mountinfo").stdout


def test_a_copy_of_a_stopped_container_is_discarded(host: RootlessHost) -> None:
    host.jaula(
        "run", "--name", "stopped", "busybox", "sh", "-c", "echo kept > /made; chown 5 /made"
    )
    try:
        script = "cat /made; stat -c %u /made; echo changed > /made"
        assert host.jaula("debug", "stopped", "sh", "-c", script).stdout == "kept\n5\n"
        assert host.jaula("debug", "stopped", "cat", "/made").stdout == "kept\n"
        listed = json.loads(host.jaula("inspect", *host.jaula("ps", "-aq").stdout.split()).stdout)
        assert [each["Name"] for each in listed] == ["/stopped"]
        assert len(host.jaula("images", "-aq").stdout.split()) == 1
    finally:
        host.jaula("rm", "-f", "stopped")
