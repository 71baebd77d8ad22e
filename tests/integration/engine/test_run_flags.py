"""Flags of run that reach the kernel or are refused: links, volumes of others, devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine
from unit.cli.test_run_flags import BY_THE_COMMAND, rows

REFUSED = [(k, v[0]) for k, v in rows().items() if v[1] == "refused" and k not in BY_THE_COMMAND]


@pytest.mark.parametrize("program", ["jaula", "docker"])
@pytest.mark.parametrize(("flag", "example"), REFUSED)
def test_what_the_page_calls_refused_is(
    engine: PrivateEngine, busybox: str, program: str, flag: str, example: str
) -> None:
    done = engine.cli(program, "create", f"--{flag}", example, busybox, "true")
    assert done.returncode != 0, f"--{flag} was accepted"
    assert done.stdout == ""
    assert len(done.stderr) > 20


@pytest.mark.parametrize("program", ["jaula", "docker"])
def test_a_link_is_a_name_and_variables(engine: PrivateEngine, busybox: str, program: str) -> None:
    with containers.running(engine, busybox, flags=("--expose", "5432", "-e", "SECRET=x")) as other:
        words = (program, "run", "--rm", "--link", f"{other}:db-1", busybox)
        shown = engine.cli(
            *words, "sh", "-c", "ping -c1 -W2 db-1 >/dev/null && env; cat /etc/hosts"
        )
        assert shown.returncode == 0, shown.stderr
        document = containers.inspect(engine, other)
        address = document["NetworkSettings"]["IPAddress"]
        assert f"DB_1_PORT_5432_TCP=tcp://{address}:5432" in shown.stdout
        assert f"DB_1_PORT_5432_TCP_ADDR={address}" in shown.stdout
        assert f"{address}\tdb-1" in shown.stdout
        assert "DB_1_ENV_SECRET=x" in shown.stdout
        assert "DB_1_ENV_PATH" not in shown.stdout
        engine.cli("jaula", "kill", other)
        refused = engine.cli(*words, "true")
        assert "Cannot link to a non running container" in refused.stderr
    refused = engine.cli(program, "create", "--link", "nobody", busybox, "true")
    assert "No such container: nobody" in refused.stderr


def test_volumes_come_from_another_container(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    flags = ("-v", "/data", "-v", f"{tmp_path}:/host")
    with containers.running(engine, busybox, flags=flags) as other:
        engine.cli("jaula", "exec", other, "sh", "-c", "echo d > /data/d; echo h > /host/h")
        shown = containers.run(
            engine, busybox, "cat", "/data/d", "/host/h", flags=("--volumes-from", other)
        )
        assert shown == "d\nh\n"
        done = engine.cli(
            *("jaula", "run", "--rm", "--volumes-from", f"{other}:ro", busybox),
            *("touch", "/data/new"),
        )
        assert "Read-only file system" in done.stderr
    refused = engine.cli("docker", "create", "--volumes-from", "nobody", busybox, "true")
    assert "No such container: nobody" in refused.stderr


def test_a_rule_of_the_device_allow_list_opens_a_device(
    engine: PrivateEngine, busybox: str
) -> None:
    flags = ("--device-cgroup-rule", "c 1:5 r")
    with containers.running(engine, busybox, flags=flags) as name:
        rules = containers.inspect(engine, name)["HostConfig"]["DeviceCgroupRules"]
        assert rules == ["c 1:5 r"]
