"""A cgroup in use at the exit of its container is removed later."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine

CGROUPS = Path("/sys/fs/cgroup")
Popen = subprocess.Popen[bytes]


def places(engine: PrivateEngine, name: str) -> list[Path]:
    """The directories of a container's cgroup that are there."""
    return places_of(engine, containers.inspect(engine, name)["Id"])


def places_of(engine: PrivateEngine, ending: str) -> list[Path]:
    """The same by the container's id, for one that may have been removed."""
    trees = [CGROUPS, *(tree for tree in CGROUPS.iterdir() if tree.is_dir())]
    found = [place for tree in trees for place in (tree / engine.cgroup_parent).rglob(ending)]
    return sorted({place.resolve() for place in found})


@pytest.fixture
def guest() -> Iterator[Popen]:
    """A process of the host's, to be moved into a container's cgroup."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def move_in(engine: PrivateEngine, name: str, guest: Popen) -> None:
    """Into one tree that the end of a container does not look at for processes to kill."""
    found = places(engine, name)
    chosen = [place for place in found if "cpuset" in place.parts]
    if not chosen:
        pytest.skip("one tree for all controllers: whoever is in it is killed with the container")
    (chosen[0] / "cgroup.procs").write_text(str(guest.pid))


def test_the_cgroup_is_removed_after_its_last_process(
    engine: PrivateEngine, busybox: str, guest: Popen
) -> None:
    with containers.running(engine, busybox) as name:
        move_in(engine, name, guest)
        assert engine.request("POST", f"/containers/{name}/stop?t=0").status == 204
        assert places(engine, name)
        assert guest.poll() is None
        guest.kill()
        containers.eventually(lambda: not places(engine, name), "the cgroup is removed")


def test_it_goes_although_the_container_was_removed(
    engine: PrivateEngine, busybox: str, guest: Popen
) -> None:
    with containers.running(engine, busybox) as name:
        move_in(engine, name, guest)
        ident = containers.inspect(engine, name)["Id"]
        assert engine.request("DELETE", f"/containers/{name}?force=1").status == 204
        assert places_of(engine, ident)
        guest.kill()
        containers.eventually(lambda: not places_of(engine, ident), "the cgroup is removed")


def test_a_restart_waits_for_it(engine: PrivateEngine, busybox: str, guest: Popen) -> None:
    with containers.running(engine, busybox, flags=("--restart", "always")) as name:
        move_in(engine, name, guest)
        first = containers.pid(engine, name)
        os.kill(first, signal.SIGKILL)
        containers.eventually(
            lambda: containers.inspect(engine, name)["State"]["Status"] == "restarting",
            "it waits to be started again",
        )
        time.sleep(1.0)  # ten times the pause before a first restart
        assert containers.inspect(engine, name)["State"]["Status"] == "restarting"
        guest.kill()
        containers.eventually(
            lambda: containers.inspect(engine, name)["State"]["Pid"] not in (0, first),
            "it runs again",
        )


@pytest.mark.slow
@pytest.mark.parametrize("parent", ["", "asked"])
def test_the_next_engine_removes_it(
    new_engine: Callable[..., PrivateEngine], busybox_archive: Path, guest: Popen, parent: str
) -> None:
    engine = new_engine()
    assert engine.cli("jaula", "load", "-i", str(busybox_archive)).returncode == 0
    above = f"/{engine.cgroup_parent}/{parent}"
    flags = ("--cgroup-parent", above) if parent else ()
    with containers.running(engine, "busybox", flags=flags) as name:
        move_in(engine, name, guest)
        assert engine.request("POST", f"/containers/{name}/stop?t=0").status == 204
        engine.stop()
        engine.start()
        assert places(engine, name)
        guest.kill()
        containers.eventually(lambda: not places(engine, name), "the cgroup is removed")
    for tree in CGROUPS.iterdir():
        if parent and (tree / above[1:]).is_dir():
            (tree / above[1:]).rmdir()
