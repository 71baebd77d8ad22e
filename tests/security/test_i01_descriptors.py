"""I1: only descriptors 0-2 reach the container; its working directory is inside its root."""

from __future__ import annotations

import os

import pytest

from harness import containers, images
from harness.engine import PrivateEngine


def descriptors(process: int) -> set[int]:
    return {int(name) for name in os.listdir(f"/proc/{process}/fd")}


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("-t",),
        ("-i",),
        pytest.param(("--init",), marks=pytest.mark.needs("tini-static")),
        ("--privileged",),
    ],
)
@pytest.mark.parametrize("cve", ["CVE-2024-21626 CVE-2016-9962"])
def test_the_program_has_three_descriptors(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...], cve: str
) -> None:
    with containers.running(engine, busybox, flags=flags) as name:
        result = descriptors(containers.pid(engine, name))
    # An init may hold a signalfd of its own making; it never inherits one.
    assert result == {0, 1, 2} or ("--init" in flags and {0, 1, 2} <= result and len(result) <= 5)


@pytest.mark.parametrize("flags", [(), ("-t",), ("-u", "1000")])
def test_an_exec_has_three_descriptors(
    engine: PrivateEngine, plain: str, flags: tuple[str, ...]
) -> None:
    marker = containers.unique("77")[2:].replace("-", "")
    assert engine.cli("jaula", "exec", "-d", *flags, plain, "sleep", f"7{marker}").returncode == 0
    result: list[int] = []

    def look() -> bool:
        result[:] = [
            int(pid)
            for pid in os.listdir("/proc")
            if pid.isdigit() and _command(pid) == f"sleep\x007{marker}\x00".encode()
        ]
        return bool(result)

    containers.eventually(look, "the exec runs")
    assert descriptors(result[0]) == {0, 1, 2}
    os.kill(result[0], 9)


def _command(pid: str) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


@pytest.mark.parametrize("number", range(3, 24))
@pytest.mark.parametrize("cve", ["CVE-2024-21626"])
def test_a_working_directory_that_is_a_descriptor_is_refused(
    engine: PrivateEngine, busybox: str, number: int, cve: str
) -> None:
    done = engine.cli("jaula", "run", "--rm", "-w", f"/proc/self/fd/{number}", busybox, "ls", "-la")
    assert done.returncode != 0
    assert "jaula" not in done.stdout


@pytest.mark.parametrize("number", [3, 5, 7, 8, 9, 12])
@pytest.mark.parametrize("cve", ["CVE-2024-21626"])
def test_an_exec_into_a_link_to_a_descriptor_is_refused(
    engine: PrivateEngine, busybox: str, number: int, cve: str
) -> None:
    with containers.running(engine, busybox) as name:
        link = ("ln", "-s", f"/proc/self/fd/{number}", "/leap")
        assert engine.cli("jaula", "exec", name, *link).returncode == 0
        done = engine.cli("jaula", "exec", "-w", "/leap", name, "ls")
        assert done.returncode != 0


@pytest.mark.parametrize("cve", ["CVE-2024-21626"])
def test_a_working_directory_of_the_image_has_the_same_rules(
    engine: PrivateEngine, cve: str
) -> None:
    entries = [*images.busybox_entries(), images.link("leap", "/proc/self/fd/8")]
    name = images.import_image(engine, "leaping", entries)
    done = engine.cli("jaula", "run", "--rm", "-w", "/leap", name, "ls")
    assert done.returncode != 0


@pytest.mark.parametrize("cve", ["CVE-2015-3627"])
def test_links_of_the_image_to_descriptors_are_refused(engine: PrivateEngine, cve: str) -> None:
    """Files that the engine opens in an image are links to its descriptors."""
    replaced = ("etc/passwd", "etc/group")
    entries = images.busybox_entries(without=replaced)
    entries += [images.link(name, "/proc/self/fd/1") for name in replaced]
    name = images.import_image(engine, "descriptor-links", entries)
    done = engine.cli("jaula", "run", "--rm", "-u", "1000", name, "id", "-u")
    assert done.returncode != 0 or done.stdout.strip() == "1000"


def test_the_working_directory_is_inside_the_root(engine: PrivateEngine, plain: str) -> None:
    process = containers.pid(engine, plain)
    assert os.readlink(f"/proc/{process}/cwd") == "/"
    assert os.stat(f"/proc/{process}/cwd").st_ino == os.stat(f"/proc/{process}/root").st_ino


@pytest.mark.parametrize("flags", [(), ("--userns", "host"), ("--privileged", "--userns", "host")])
@pytest.mark.parametrize("runs", ["run", "exec"])
def test_a_missing_standard_input_is_the_containers_own_null_device(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...], runs: str
) -> None:
    """Root of the host's user namespace could change the host's device by its descriptor."""
    script = "chown 1000:1000 /proc/self/fd/0; chmod 600 /proc/self/fd/0; stat -Lc %u /dev/null"
    host = os.stat("/dev/null")
    words = ("sh", "-c", f"{script}; stat -Lc '%d %i' /proc/self/fd/0")
    if runs == "run":
        name = containers.unique()
        engine.cli("jaula", "run", "-d", "--name", name, *flags, busybox, *words)
        engine.cli("jaula", "wait", name)
        output = engine.cli("jaula", "logs", name).stdout
        engine.cli("jaula", "rm", name)
    else:
        with containers.running(engine, busybox, flags=flags) as name:
            output = engine.cli("jaula", "exec", name, *words).stdout
    owner, identity = output.splitlines()
    assert owner == "1000"
    assert identity != f"{host.st_dev} {host.st_ino}"
    after = os.stat("/dev/null")
    assert (after.st_uid, after.st_mode) == (host.st_uid, host.st_mode)
