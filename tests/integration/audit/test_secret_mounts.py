"""verify of mounts that the engine creates: secrets, and volumes with options."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from harness import containers
from harness.engine import PrivateEngine
from harness.fork import child
from jaula.kernel import mounts, namespaces
from jaula.kernel.mounts import MS


@pytest.fixture
def box(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    secret, volume = containers.unique("secret"), containers.unique("vol")
    options = ("-o", "type=tmpfs", "-o", "device=tmpfs")
    assert engine.cli("jaula", "secret", "create", secret, "-", input="x").returncode == 0
    assert engine.cli("jaula", "volume", "create", *options, volume).returncode == 0
    flags = ("--secret", secret, "--secret", f"{secret},target=/etc/pw", "-v", f"{volume}:/m")
    with containers.running(engine, busybox, "sleep", "600", flags=flags) as name:
        yield name
    engine.request("DELETE", f"/secrets/{secret}")
    engine.request("DELETE", f"/volumes/{volume}")


def failing(engine: PrivateEngine, name: str) -> set[str]:
    done = engine.cli("jaula", "verify", "--format", "json", name)
    return {row["id"] for row in json.loads(done.stdout) if row["verdict"] == "FAILS"}


def mounted(engine: PrivateEngine, name: str, act: Callable[[], None]) -> None:
    """Change the container's mounts without the engine."""
    pid = int(containers.inspect(engine, name)["State"]["Pid"])

    def work() -> None:
        namespaces.setns(namespaces.open_namespace(pid, "mnt"))
        act()

    child(work)


def test_secrets_and_volumes_pass(engine: PrivateEngine, box: str) -> None:
    assert failing(engine, box) == set()


@pytest.mark.parametrize("place", ["/run/secrets", "/etc/pw"])
def test_a_writable_secret_fails(engine: PrivateEngine, box: str, place: str) -> None:
    flags = MS.REMOUNT | MS.BIND | MS.NOSUID | MS.NODEV | MS.NOEXEC
    mounted(engine, box, lambda: mounts.mount("", place, None, flags))
    assert "secrets and configs" in failing(engine, box)


def test_a_secret_on_disk_fails(engine: PrivateEngine, box: str) -> None:
    mounted(engine, box, lambda: mounts.umount2("/etc/pw"))
    assert "secrets and configs" in failing(engine, box)


def test_a_volume_replaced_by_another_file_system_fails(engine: PrivateEngine, box: str) -> None:
    mounted(engine, box, lambda: mounts.mount("x", "/m", "tmpfs", MS.NOSUID | MS.NODEV))
    assert "volume /m" in failing(engine, box)


def test_a_volume_that_binds_a_host_directory_is_named(engine: PrivateEngine, busybox: str) -> None:
    volume = containers.unique("vol")
    options = ("-o", "type=none", "-o", "device=/etc", "-o", "o=bind")
    assert engine.cli("jaula", "volume", "create", *options, volume).returncode == 0
    flags = ("-v", f"{volume}:/m:ro")
    try:
        with containers.running(engine, busybox, "sleep", "600", flags=flags) as name:
            done = engine.cli("jaula", "verify", "--format", "json", name)
            (row,) = [r for r in json.loads(done.stdout) if r["id"] == "host directories"]
            assert row["verdict"] == "relaxed"
            assert row["requested"] == "-v /etc:/m"
    finally:
        engine.request("DELETE", f"/volumes/{volume}")
