"""``jaula host evacuate``: everything that can move moves, and the rest is named."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator

import pytest

from harness.engine import PROJECT
from harness.migration import IMAGE, NETWORK, SUBNET, Site, Sites, sites

pytestmark = [pytest.mark.criu, pytest.mark.needs("gcc", "ip", "openssl", "nsenter")]

ADDRESS = f"{SUBNET}.70"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with sites(tmp_path_factory.mktemp("sites"), 6) as made:
        yield made


@pytest.fixture
def full(two: Sites) -> Iterator[Sites]:
    """Run at ``a`` a pair with a common volume, a server, and something that cannot move."""
    for name in ("one", "two"):
        # busybox's sleep ends after a restore, as its system call is interrupted.
        script = f"echo {name} > /data/{name}; while true; do sleep 1; done"
        run(two.a, name, "-v", "common:/data", command=("sh", "-c", script))
    run(two.a, "server", "--network", NETWORK, "--ip", ADDRESS, command=("/server",))
    run(two.a, "bound", "-v", "/etc:/mnt:ro", command=("sleep", "600"))
    two.a.jaula("run", "--name", "done", "-v", "kept:/data", IMAGE, "sh", "-c",
                "echo root > /root/file; rm /etc/group; echo volume > /data/file")  # fmt: skip
    yield two
    for site in (two.a, two.b):
        for name in site.jaula("ps", "-aq").split():
            site.engine.cli("jaula", "rm", "-f", "-v", name)
        for volume in ("common", "kept"):
            site.engine.cli("jaula", "volume", "rm", volume)


def run(site: Site, name: str, *flags: str, command: tuple[str, ...]) -> None:
    site.jaula("run", "-d", "--name", name, *flags, IMAGE, *command)


def test_a_dry_run_says_what_stays_and_moves_nothing(full: Sites) -> None:
    done = full.a.engine.cli("jaula", "host", "evacuate", "--to", full.b.target, "--dry-run")
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert done.returncode == 1
    assert "can move" in rows["one"]
    assert "volume common" in rows["one"]
    assert "cannot move" in rows["bound"]
    assert "/etc is a directory of this host" in rows["bound"]
    assert full.b.jaula("ps", "-aq") == ""


def test_containers_of_one_network_are_a_group(two: Sites) -> None:
    try:
        run(two.a, "owner", "--network", NETWORK, "--ip", ADDRESS, command=("/server",))
        run(
            two.a,
            "inside",
            "--network",
            "container:owner",
            command=("/relay", "127.0.0.1", "7000", "7001"),
        )
        done = two.a.engine.cli("jaula", "host", "evacuate", "--to", two.b.target)
        assert done.returncode == 0, done.stderr
        rows = {line.split()[0]: line for line in done.stdout.splitlines()}
        assert "network of owner" in rows["owner"]
        assert "network of owner" in rows["inside"]
        assert two.b.runs("owner")
        assert two.b.runs("inside")
    finally:
        for site in (two.a, two.b):
            site.engine.cli("jaula", "rm", "-f", "owner", "inside")


def test_everything_moves_and_the_rest_is_stopped(full: Sites) -> None:
    with full.counting(ADDRESS) as client:
        words = ("host", "evacuate", "--to", full.b.target, "--stop-rest", "--format", "json")
        done = full.a.engine.cli("jaula", *words)
        result = client.finish()
    assert done.returncode == 0, done.stderr
    rows = {row["Name"]: row for row in json.loads(done.stdout)["Containers"]}
    assert {name: row["Result"] for name, row in rows.items()} == {
        "one": "moved",
        "two": "moved",
        "server": "moved",
        "bound": "stopped",
        "done": "moved",
    }
    assert rows["server"]["PauseMilliseconds"] > 0
    assert result["failure"] == ""
    assert full.a.jaula("ps", "-q") == ""
    for name in ("one", "two", "server"):
        assert full.b.runs(name)
    assert full.b.jaula("exec", "one", "ls", "/data").split() == ["one", "two"]
    assert not full.b.runs("done")
    full.b.jaula("start", "done")
    assert full.b.jaula("cp", "done:/root/file", "-").find("root") > 0
    assert full.b.jaula("run", "--rm", "-v", "kept:/v", IMAGE, "cat", "/v/file") == "volume\n"
    assert full.b.engine.cli("jaula", "cp", "done:/etc/group", "-").returncode != 0


def test_an_interrupt_lets_the_current_move_end(full: Sites) -> None:
    process = subprocess.Popen(
        [PROJECT / "jaula", "host", "evacuate", "--to", full.b.target],
        env=full.a.engine.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "[1/4]" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    rows = {line.split()[0]: line for line in output.splitlines()}
    assert process.returncode == 1, errors
    assert "ending after the current move" in errors
    assert "moved" in rows["one"]
    assert "moved" in rows["two"]
    assert "not tried" in rows["server"]
    assert full.b.runs("one")
    assert full.a.runs("server")
