"""Flags of run that reach the kernel or are refused: links, --volumes-from, devices."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine
from unit.cli.test_run_flags import REFUSED_BY_COMMAND, rows

REFUSED = [
    (k, v[0]) for k, v in rows().items() if v[1] == "refused" and k not in REFUSED_BY_COMMAND
]


@pytest.mark.parametrize("program", ["jaula", "docker"])
@pytest.mark.parametrize(("flag", "example"), REFUSED)
def test_flags_that_the_page_calls_refused_are_refused(
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
        address = containers.address(engine, other)
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


@pytest.mark.parametrize("program", ["jaula", "docker"])
def test_a_directory_of_devices_is_every_device_in_it(
    engine: PrivateEngine, busybox: str, program: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "deep").mkdir()
    (tmp_path / "text").touch()
    for name, minor, owner in (("null", 3, 70000), ("deep/zero", 5, 0)):
        os.mknod(tmp_path / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        os.chmod(tmp_path / name, 0o666)
        os.chown(tmp_path / name, owner, owner)
    script = "cd /dev/some; find . -type c | sort; stat -c %u null; head -c 2 deep/zero | wc -c"
    words = ("run", "--rm", "--device", f"{tmp_path}:/dev/some", busybox, "sh", "-c", script)
    done = engine.cli(program, *words)
    assert done.stdout.split() == ["./deep/zero", "./null", "65534", "2"], done.stderr


def test_a_device_is_opened_as_its_letters_say(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    """By one that no container has otherwise: the control node of loop devices."""
    node = tmp_path / "control"
    os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(10, 237))
    os.chmod(node, 0o666)
    script = "(: < /dev/it) && echo read; (: > /dev/it) && echo written; true"
    for letters, opened in (("r", ["read"]), ("w", ["written"]), ("rw", ["read", "written"])):
        words = ("run", "--rm", "--device", f"{node}:/dev/it:{letters}", busybox)
        done = engine.cli("docker", *words, "sh", "-c", script)
        assert done.stdout.split() == opened, done
        assert ("Operation not permitted" in done.stderr) == (letters != "rw"), done


def test_a_umask_is_that_of_the_program_and_of_execs(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox, flags=("--umask", "0077")) as name:
        assert containers.inspect(engine, name)["Config"]["Umask"] == "0077"
        for user in ("0", "1000"):
            shown = engine.cli("jaula", "exec", "-u", user, name, "sh", "-c", "umask")
            assert shown.stdout == "0077\n"
        assert "Umask:\t0077" in Path(f"/proc/{containers.pid(engine, name)}/status").read_text()
    with containers.running(engine, busybox) as name:
        assert "Umask" not in containers.inspect(engine, name)["Config"]
        assert engine.cli("jaula", "exec", name, "sh", "-c", "umask").stdout == "0022\n"
    for text in ("8", "01000", "00022", "-1", "u=rwx"):
        refused = engine.cli("jaula", "create", f"--umask={text}", busybox, "true")
        assert f"invalid umask '{text}'" in refused.stderr


def test_a_variable_of_the_image_is_unset(engine: PrivateEngine, busybox: str) -> None:
    image = containers.unique()
    with containers.running(engine, busybox) as name:
        changes = ("--change", "ENV KEPT=1", "--change", "ENV GONE=1", "--change", "ENV OTHER=1")
        made = engine.cli("jaula", "commit", *changes, name, image)
        assert made.returncode == 0, made.stderr
    try:
        flags = ("--unsetenv", "GONE", "--unsetenv", "OTHER", "-e", "OTHER=2")
        shown = containers.run(engine, image, "env", flags=flags).splitlines()
        assert {"KEPT=1", "OTHER=2"} <= set(shown)
        assert not [line for line in shown if line.startswith("GONE")]
    finally:
        engine.cli("jaula", "rmi", image)
