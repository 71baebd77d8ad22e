"""An ordinary user's engine: secrets, and volumes of the local driver with options."""

from __future__ import annotations

import subprocess
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


def test_a_secret_is_on_a_tmpfs_with_its_owner(host: RootlessHost) -> None:
    host.jaula("secret", "create", "db", "-", input="hunter2")
    script = "cat /run/secrets/db /etc/pw; stat -c ' %u %a' /etc/pw; stat -f -c %T /run/secrets"
    flags = ("--secret", "db", "--secret", "db,target=/etc/pw,uid=7,mode=0400")
    output = host.jaula("run", "--rm", *flags, "busybox", "sh", "-c", script)
    assert output.stdout == "hunter2hunter2 7 400\ntmpfs\n"
    host.jaula("secret", "rm", "db")


def test_tmpfs_and_bind_volumes_are_mounted(host: RootlessHost) -> None:
    host.jaula("volume", "create", "-o", "type=tmpfs", "-o", "device=x", "-o", "o=size=1m", "mem")
    output = host.jaula("run", "--rm", "-v", "mem:/m", "busybox", "stat", "-f", "-c", "%T", "/m")
    assert output.stdout == "tmpfs\n"
    options = ("-o", "type=none", "-o", "o=bind", "-o", f"device={host.home}")
    host.jaula("volume", "create", *options, "own")
    host.jaula("run", "--rm", "-v", "own:/m", "busybox", "touch", "/m/made-inside")
    assert host.run("ls", str(host.home)).stdout.count("made-inside") == 1
    part = "type=volume,source=own,target=/m,volume-subpath=made-inside"
    host.jaula("run", "--rm", "--mount", part, "busybox", "test", "-f", "/m")
    host.jaula("volume", "rm", "mem", "own")
    assert host.run("ls", str(host.home)).stdout.count("made-inside") == 1


def test_a_bind_mount_keeps_the_flags_of_its_source(busybox_archive: Path) -> None:
    """The user's namespaces have the mounts with these flags, so the kernel locks them."""
    flags = ("ro", "nosuid", "nodev", "noexec", "noatime")
    with RootlessHost() as fresh:  # the mounts are there before its first engine
        for flag in flags:
            source = f"{fresh.home}/{flag}"
            fresh.run("mkdir", source)
            for words in (
                ("mount", "-t", "tmpfs", "none", source),
                ("mount", "-o", f"remount,bind,{flag}", source),
            ):
                subprocess.run(fresh.enter(words), check=True)
        fresh.load(busybox_archive)
        mounts = [word for flag in flags for word in ("-v", f"{fresh.home}/{flag}:/{flag}")]
        show = ("cat", "/proc/self/mountinfo")
        rows = fresh.jaula("run", "--rm", *mounts, "busybox", *show).stdout.splitlines()
    table = {row.split()[4]: row.split()[5].split(",") for row in rows}
    assert not [flag for flag in flags if flag not in table[f"/{flag}"]]


def test_a_tcp_socket_is_refused_with_a_hint(host: RootlessHost) -> None:
    done = host.jaula("daemon", "-H", "tcp://127.0.0.1:1", "--insecure-tcp", expect=None)
    assert done.returncode == 125
    assert "a rootless engine runs in a network namespace of its own" in done.stderr
