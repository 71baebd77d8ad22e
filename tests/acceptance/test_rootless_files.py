"""An ordinary user's engine: copies, commits, health checks."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.callers.caller import until
from harness.rootless import RootlessHost

pytestmark = [pytest.mark.xdist_group("rootless")]


@pytest.fixture(scope="module")
def host(busybox_archive: Path) -> Iterator[RootlessHost]:
    with RootlessHost() as made:
        made.load(busybox_archive)
        yield made


@pytest.fixture
def box(host: RootlessHost) -> Iterator[str]:
    host.jaula("run", "-d", "--name", "box", "-v", "/data", "busybox", "sleep", "1000")
    yield "box"
    host.jaula("rm", "-f", "-v", "box")


@pytest.mark.parametrize("running", [True, False])
def test_files_are_copied_in_and_out_with_their_owners(
    host: RootlessHost, box: str, running: bool
) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        info = tarfile.TarInfo("f")
        info.size, info.uid, info.gid = 4, 33, 34
        tar.addfile(info, io.BytesIO(b"text"))
    if not running:
        host.jaula("stop", "-t", "0", box)
    for place in ("/tmp", "/data"):
        host.jaula("cp", "-", f"{box}:{place}", input=made.getvalue(), text=False)
        done = host.jaula("cp", f"{box}:{place}/f", "-", text=False)
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:  # type: ignore[arg-type]
            (member,) = tar.getmembers()
            assert (member.uid, member.gid, member.size) == (33, 34, 4)
    if not running:
        host.jaula("start", box)
    output = host.jaula("exec", box, "stat", "-c", "%u:%g", "/tmp/f", "/data/f")
    assert output.stdout == "33:34\n33:34\n"


@pytest.mark.parametrize("running", [True, False])
def test_an_export_has_the_owners_and_no_mounts(
    host: RootlessHost, box: str, running: bool
) -> None:
    change = "echo n > /new; chown 5:6 /new; echo v > /data/v; rm /etc/group"
    host.jaula("exec", box, "sh", "-c", change)
    if not running:
        host.jaula("stop", "-t", "0", box)
    done = host.jaula("export", box, text=False)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:  # type: ignore[arg-type]
        members = {member.name: member for member in tar}
    assert (members["new"].uid, members["new"].gid) == (5, 6)
    assert not {"data/v", "etc/group"} & members.keys()


def test_a_container_is_committed(host: RootlessHost, box: str) -> None:
    host.jaula("exec", box, "sh", "-c", "rm /etc/nsswitch.conf; echo n > /new; chown 5:6 /new")
    done = host.jaula("commit", box, "made:v1", expect=None)
    assert done.returncode == 0 or "--pause=false" in done.stderr
    host.jaula("commit", "--pause=false", box, "made:v1")
    words = ("sh", "-c", "stat -c %u:%g /new; ls /etc")
    output = host.jaula("run", "--rm", "made:v1", *words).stdout
    assert output.startswith("5:6\n")
    assert "nsswitch" not in output


def test_a_health_check_sets_the_health(host: RootlessHost) -> None:
    flags = ("--health-cmd", "test -e /ok", "--health-interval", "300ms", "--health-retries", "1")
    host.jaula("run", "-d", "--name", "probed", *flags, "busybox", "sleep", "1000")
    try:

        def status() -> str:
            result = json.loads(host.jaula("inspect", "probed").stdout)
            return str(result[0]["State"]["Health"]["Status"])

        until(lambda: status() == "unhealthy", "it is unhealthy")
        host.jaula("exec", "probed", "touch", "/ok")
        until(lambda: status() == "healthy", "it is healthy")
    finally:
        host.jaula("rm", "-f", "probed")
