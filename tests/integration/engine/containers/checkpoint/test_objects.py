"""Objects of the kernel that a checkpoint holds: programs check them before and after a restore."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from harness import containers
from harness.checkpoints import CheckedContainer
from harness.engine import PrivateEngine

pytestmark = pytest.mark.criu

FILES = ("pipes", "unix_sockets", "memory", "files", "locks", "inotify")
PROCESSES = ("threads", "tree", "sysv", "timers", "clocks", "signals", "attributes", "event_files",
             "own_filter", "terminals")  # fmt: skip
NETWORK = ("listeners", "connections", "ended_connection", "netlink")
RAW = ("raw_sockets",)
ALL = (*FILES, *PROCESSES, *NETWORK, *RAW, "chroot")
TMPFS = ("--tmpfs", "/work")
VOLUME = ("-v", "/work")
OFF = ("--security-opt", "seccomp=unconfined", "--security-opt", "landlock=off")


class Way(NamedTuple):
    """Flags of ``run``, and the checks that can be made with them."""

    flags: tuple[str, ...]
    checks: tuple[str, ...]


WAYS = {
    "volume": Way((*VOLUME, "--ulimit", "nofile=4096", "--memory", "300m"), (*ALL, "echo")),
    "terminal and tmpfs": Way(
        ("-t", *TMPFS, "--network", "none"),
        (*FILES, *PROCESSES, "tmpfs", "console", *NETWORK),
    ),
    "least privileges": Way(
        (*TMPFS, "--tmpfs", "/root:mode=777", "--read-only", "--cap-drop", "ALL", "--user",
         "1000:1000", "--security-opt", "no-new-privileges"),
        (*FILES, *PROCESSES, *NETWORK, "tmpfs"),
    ),
    "privileged": Way(("--privileged", *VOLUME), ALL),
    # Without CAP_SYS_RESOURCE no limits of the other user of "chroot" can be read.
    "user namespace of the host": Way(("--userns=host", *TMPFS), (*ALL[:-1], "tmpfs")),
    "no filter and no Landlock": Way((*OFF, *VOLUME, "--cap-add", "ALL"), ALL),
    "bind mount": Way(("-v", "{directory}:/work", "--uts", "host"), (*FILES, *PROCESSES, *NETWORK)),
}  # fmt: skip

Make = Callable[..., CheckedContainer]


@pytest.fixture
def make(engine: PrivateEngine, tmp_path: Path) -> Iterator[Make]:
    made: list[CheckedContainer] = []

    def start(way: Way) -> CheckedContainer:
        tmp_path.chmod(0o777)
        flags = tuple(flag.format(directory=tmp_path) for flag in way.flags)
        made.append(CheckedContainer(engine, flags, way.checks))
        made[-1].rounds(3)
        return made[-1]

    yield start
    for container in made:
        container.remove()


@pytest.mark.parametrize("name", WAYS)
def test_objects_are_as_before(make: Make, name: str) -> None:
    container = make(WAYS[name])
    before = container.confinement()
    container.create("--tcp-established")
    container.start()
    container.advance()
    assert container.confinement() == before


def test_a_second_checkpoint_is_made_of_a_restored_container(make: Make) -> None:
    container = make(WAYS["volume"])
    for name in ("one", "two"):
        container.create("--tcp-established", name=name)
        container.start(name=name)
        container.advance()


def test_a_container_left_running_keeps_its_objects(make: Make) -> None:
    container = make(WAYS["volume"])
    container.create("--tcp-established", "--leave-running")
    container.advance()


def test_a_connection_from_outside_goes_on(make: Make, engine: PrivateEngine) -> None:
    container = make(Way(VOLUME, ("echo",)))
    with socket.create_connection((containers.address(engine, container.name), 7000)) as client:
        client.settimeout(30)

        def ask(number: int) -> None:
            client.sendall(struct.pack("!I", number))
            assert struct.unpack("!I", client.recv(4)) == (number + 1,)

        ask(1)
        assert "--tcp-established" in container.refused(
            "checkpoint", "create", container.name, "one"
        )
        container.create("--tcp-established")
        container.start()
        for number in range(2, 10):
            ask(number)


def test_closed_connections_are_an_error_for_programs_only(
    make: Make, engine: PrivateEngine
) -> None:
    container = make(Way(VOLUME, ("listeners", "ended_connection", "files")))
    container.create("--tcp-close")
    container.start()
    container.advance()


def test_a_connection_that_had_ended_needs_no_flag(make: Make) -> None:
    container = make(Way(VOLUME, ("ended_connection", "files")))
    container.create()
    container.start()
    container.advance()
