"""``harden apply``: the container under its profile, or the old one as before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import containers
from harness.containers import unique
from harness.engine import PrivateEngine

RUN = ("jaula", "run", "-d", "--stop-timeout", "0", "--name")
SIMPLE = 'name = "simple"\n[limits]\npids = 50\nmemory = 67108864\n'
BROKEN = 'name = "broken"\n[seccomp.syscalls]\nx86_64 = ["read"]\n'
NO_NETWORK = 'name = "alone"\n[network]\nmode = "none"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "profile.toml"


@pytest.fixture
def names(engine: PrivateEngine) -> Iterator[list[str]]:
    made: list[str] = []
    yield made
    for container in engine.request("GET", "/containers/json?all=1").json():
        if any(container["Names"][0].startswith(f"/{name}") for name in made):
            engine.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")


def apply(engine: PrivateEngine, file: Path, name: str, *flags: str) -> Any:
    return engine.cli("jaula", "harden", "apply", *flags, str(file), name)


def all_names(engine: PrivateEngine, name: str) -> list[str]:
    rows = engine.request("GET", "/containers/json?all=1").json()
    return sorted(row["Names"][0][1:] for row in rows if row["Names"][0].startswith(f"/{name}"))


def test_options_volumes_and_networks_stay(
    engine: PrivateEngine, busybox: str, file: Path, names: list[str]
) -> None:
    name, network, volume = unique(), unique("n"), unique("v")
    names.append(name)
    file.write_text(SIMPLE)
    subnet = f"10.198.{engine.index}"
    config = {"Name": network, "IPAM": {"Config": [{"Subnet": f"{subnet}.0/24"}]}}
    assert engine.request("POST", "/networks/create", config).status == 201
    flags = (
        *("--network", network, "--ip", f"{subnet}.77", "--network-alias", "alias"),
        *("-v", "/anonymous", "-v", f"{volume}:/named", "--mount", "type=volume,target=/mounted"),
        *("-e", "A=b", "-l", "mine=1", "--hostname", "inside", "-p", "127.0.0.1::80"),
        *("--pids-limit", "20", "--restart", "on-failure", "--tmpfs", "/tmp", "-w", "/named"),
    )
    try:
        run = (*RUN, name, *flags, busybox, "sleep", "600")
        assert engine.cli(*run).returncode == 0
        for place in ("anonymous", "named", "mounted"):
            engine.cli("jaula", "exec", name, "sh", "-c", f"echo {place} > /{place}/file")
        before = containers.inspect(engine, name)
        done = apply(engine, file, name)
        assert done.returncode == 0, done.stderr
        after = containers.inspect(engine, name)
        assert after["Id"] == done.stdout.strip() != before["Id"]
        assert all_names(engine, name) == [name]
        assert after["State"]["Running"]
        assert after["HostConfig"]["ProfileName"] == "simple"
        assert after["HostConfig"]["ReadonlyRootfs"]
        assert after["HostConfig"]["PidsLimit"] == 20
        assert after["HostConfig"]["Memory"] == 67108864
        for member in ("Env", "Cmd", "Labels", "Hostname", "WorkingDir"):
            assert after["Config"][member] == before["Config"][member]
        for member in ("PortBindings", "RestartPolicy", "Tmpfs", "NetworkMode"):
            assert after["HostConfig"][member] == before["HostConfig"][member]
        endpoint = after["NetworkSettings"]["Networks"][network]
        assert endpoint["IPAddress"] == f"{subnet}.77"
        assert "alias" in endpoint["Aliases"]
        volumes = {m["Destination"]: m["Name"] for m in before["Mounts"]}
        assert {m["Destination"]: m["Name"] for m in after["Mounts"]} == volumes
        for place in ("anonymous", "named", "mounted"):
            shown = engine.cli("jaula", "exec", name, "cat", f"/{place}/file")
            assert shown.stdout == f"{place}\n"
        assert after["Relaxations"] == before["Relaxations"]
        again = apply(engine, file, name)
        assert again.returncode == 0, again.stderr
        assert "WARNING" not in again.stderr
    finally:
        for one in all_names(engine, name):
            engine.request("DELETE", f"/containers/{one}?force=1&v=1")
        engine.request("DELETE", f"/networks/{network}")
        engine.request("DELETE", f"/volumes/{volume}")


def test_a_container_that_does_not_work_is_rolled_back(
    engine: PrivateEngine, busybox: str, file: Path, names: list[str]
) -> None:
    name = unique()
    names.append(name)
    file.write_text(BROKEN)
    assert engine.cli(*RUN, name, busybox, "sleep", "600").returncode == 0
    before = containers.inspect(engine, name)
    done = apply(engine, file, name)
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"the profile was not applied to {name}: the new container has exited" in done.stderr
    after = containers.inspect(engine, name)
    assert (after["Id"], after["State"]["Running"]) == (before["Id"], True)
    assert all_names(engine, name) == [name]


def test_an_unhealthy_container_is_rolled_back(
    engine: PrivateEngine, busybox: str, file: Path, names: list[str]
) -> None:
    name = unique()
    names.append(name)
    file.write_text('name = "ro"\n')
    health = ("--health-cmd", "echo checked; touch /x", "--health-interval", "0.5s")
    run = (*RUN, name, *health, "--health-retries", "1", busybox)
    assert engine.cli(*run, "sleep", "600").returncode == 0
    before = containers.inspect(engine, name)["Id"]
    done = apply(engine, file, name)
    assert done.returncode == 1
    assert "the new container is unhealthy: checked" in done.stderr
    assert containers.inspect(engine, name)["Id"] == before
    assert all_names(engine, name) == [name]


def test_a_container_that_is_not_healthy_in_time_is_rolled_back(
    engine: PrivateEngine, busybox: str, file: Path, names: list[str]
) -> None:
    name = unique()
    names.append(name)
    file.write_text(SIMPLE)
    health = ("--health-cmd", "true", "--health-interval", "1h")
    run = (*RUN, name, *health, busybox, "sleep", "600")
    assert engine.cli(*run).returncode == 0
    done = apply(engine, file, name, "--timeout", "5s")
    assert done.returncode == 1
    assert "is not healthy after 5 seconds" in done.stderr
    assert all_names(engine, name) == [name]


def test_a_request_that_the_engine_refuses_changes_nothing(
    engine: PrivateEngine, busybox: str, file: Path, names: list[str]
) -> None:
    name = unique()
    names.append(name)
    file.write_text('name = "x"\ncapabilities = ["NO_SUCH"]\n')
    assert engine.cli(*RUN, name, busybox, "sleep", "600").returncode == 0
    before = containers.inspect(engine, name)["State"]
    done = apply(engine, file, name)
    assert done.returncode == 1
    assert "unknown capability 'NO_SUCH'" in done.stderr
    assert containers.inspect(engine, name)["State"] == before
    assert all_names(engine, name) == [name]


def test_a_stopped_container_stays_stopped(
    engine: PrivateEngine, busybox: str, file: Path, names: list[str]
) -> None:
    name = unique()
    names.append(name)
    file.write_text(NO_NETWORK)
    assert (
        engine.cli(
            "jaula", "create", "--stop-timeout", "0", "--name", name, busybox, "sleep", "600"
        ).returncode
        == 0
    )
    done = apply(engine, file, name)
    assert done.returncode == 0, done.stderr
    document = containers.inspect(engine, name)
    assert document["State"]["Status"] == "created"
    assert document["HostConfig"]["NetworkMode"] == "none"
    assert document["HostConfig"]["ProfileName"] == "alone"
    assert "WARNING" not in done.stderr


def test_changed_files_keep_the_old_container(
    engine: PrivateEngine, busybox: str, file: Path, names: list[str]
) -> None:
    name = unique()
    names.append(name)
    file.write_text(SIMPLE)
    command = ("sh", "-c", "[ -e /etc/changed ] || echo x > /etc/changed; sleep 600")
    assert engine.cli(*RUN, name, busybox, *command).returncode == 0
    containers.eventually(lambda: bool(engine.cli("jaula", "diff", name).stdout), "a change")
    done = apply(engine, file, name)
    assert done.returncode == 0, done.stderr
    old = next(one for one in all_names(engine, name) if one != name)
    assert f"kept as {old}" in done.stderr
    assert ".without-profile-" in old
    again = apply(engine, file, name)
    assert again.returncode == 0, again.stderr
    assert old in all_names(engine, name)
    assert not containers.inspect(engine, old)["State"]["Running"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [(("--rm",), "was started with --rm"), ((), "is paused")],
)
def test_containers_that_cannot_be_created_again(
    engine: PrivateEngine,
    busybox: str,
    file: Path,
    names: list[str],
    flags: tuple[str, ...],
    words: str,
) -> None:
    name = unique()
    names.append(name)
    file.write_text(SIMPLE)
    run = (*RUN, name, *flags, busybox, "sleep", "600")
    assert engine.cli(*run).returncode == 0
    if not flags:
        engine.cli("jaula", "pause", name)
    done = apply(engine, file, name)
    assert done.returncode == 1
    assert words in done.stderr
    assert all_names(engine, name) == [name]


def test_the_former_profile_is_replaced(
    engine: PrivateEngine, busybox: str, file: Path, names: list[str], tmp_path: Path
) -> None:
    name = unique()
    names.append(name)
    first = tmp_path / "first.toml"
    first.write_text(
        'name = "first"\ncapabilities = ["CHOWN"]\n[files]\nmasked = ["/etc/group"]\n'
        'write = ["/tmp/"]\n[network]\negress = ["tcp:192.0.2.1:443"]\n[files.tmpfs]\n"/tmp" = ""\n'
    )
    file.write_text('name = "second"\ncapabilities = ["KILL"]\n[files]\nread-only-root = false\n')
    run = (
        *RUN,
        name,
        "--profile",
        str(first),
        busybox,
        "sleep",
        "600",
    )
    assert engine.cli(*run).returncode == 0
    done = apply(engine, file, name)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    host = containers.inspect(engine, name)["HostConfig"]
    assert host["CapAdd"] == ["KILL"]
    assert host["SecurityOpt"] == ["no-new-privileges", "landlock=exec"]
    assert not host["ReadonlyRootfs"]
    assert "Egress" not in host
    assert "Tmpfs" not in host
    rows = engine.cli("jaula", "verify", "--format", "json", name)
    assert [r for r in json.loads(rows.stdout) if r["verdict"] in ("FAILS", "unknown")] == []


def test_a_file_that_does_not_exist_is_an_error(engine: PrivateEngine) -> None:
    done = engine.cli("jaula", "harden", "apply", "./absent.toml", "nothing")
    assert done.returncode != 0
    assert "opening profile (./absent.toml) failed: No such file or directory" in done.stderr
    done = engine.cli("jaula", "harden", "apply", "absent", "nothing")
    assert "unknown profile 'absent'" in done.stderr
