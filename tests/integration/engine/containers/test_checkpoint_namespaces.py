"""Checkpoints of containers that share namespaces: they are in the same ones after the restore."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PROJECT, PrivateEngine

pytestmark = [pytest.mark.criu, pytest.mark.needs("gcc")]

PROGRAM = PROJECT / "tests/harness/checkpoint_program.c"
OWNER, NAME = "owner", "member"
KINDS = ("user", "net", "ipc", "uts", "pid", "mnt", "cgroup", "time")
WAYS = {
    "network of another container": (("--network", f"container:{OWNER}"), ("user", "net")),
    "network, with connections": (
        ("--network", f"container:{OWNER}", "--hostname", ""),
        ("user", "net"),
    ),
    "network, with a terminal": (("--network", f"container:{OWNER}", "-t"), ("user", "net")),
    "IPC and a network of its own": (("--ipc", f"container:{OWNER}"), ("user", "ipc")),
    "IPC and no network": (
        ("--ipc", f"container:{OWNER}", "--network", "none"),
        ("user", "ipc"),
    ),
    "UTS of the host": (("--uts", "host"), ()),
    "network of the host, without a user namespace": (
        ("--network", "host", "--userns", "host"),
        (),
    ),
}
"""Flags of run, and the namespaces that are the owner's."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "program"
    subprocess.run(["gcc", "-O1", "-static", "-pthread", "-o", path, PROGRAM], check=True)
    return path


@pytest.fixture
def owner(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    jaula(engine, "run", "-d", "--name", OWNER, "--ipc", "shareable", busybox, "sleep", "1000")
    yield OWNER
    engine.cli("jaula", "rm", "-f", "-v", NAME, OWNER)


def jaula(engine: PrivateEngine, *words: str) -> str:
    done = engine.cli("jaula", *words)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def rounds(engine: PrivateEngine, least: int) -> int:
    """Wait until the program has printed so many rounds; return how many it has."""
    for _ in range(200):
        log = jaula(engine, "logs", NAME)
        assert "FAILED" not in log, log
        numbers = [int(number) for number in re.findall(r"round (\d+)", log)]
        assert numbers == list(range(1, len(numbers) + 1))
        if len(numbers) >= least:
            return len(numbers)
        time.sleep(0.1)
    raise AssertionError((log, containers.inspect(engine, NAME)["State"]))


def namespaces(pid: int | str) -> dict[str, str]:
    return {kind: str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in KINDS}


def confinement(engine: PrivateEngine) -> tuple[object, ...]:
    pid = containers.pid(engine, NAME)
    status = containers.status(pid)
    names = ("CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Threads")
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return (
        tuple(status[name] for name in names),
        sorted((fields[4], fields[5]) for fields in (line.split() for line in lines)),
        Path(f"/proc/{pid}/cgroup").read_text(),
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_container_goes_on_in_the_namespaces_that_it_shares(
    engine: PrivateEngine, owner: str, busybox: str, program: Path, way: str
) -> None:
    flags, joined = WAYS[way]
    tcp = "connections" in way
    jaula(engine, "run", "-d", "--name", NAME, "-v", f"{program}:/program:ro", *flags,
          busybox, "/program", "pod", *(("tcp",) if tcp else ()))  # fmt: skip
    rounds(engine, 3)
    before = confinement(engine)
    options = ("--tcp-established",) if tcp else ()
    jaula(engine, "checkpoint", "create", *options, NAME, "one")
    last = rounds(engine, 3)
    jaula(engine, "start", "--checkpoint", "one", NAME)
    rounds(engine, last + 5)
    assert confinement(engine) == before
    own = namespaces(containers.pid(engine, NAME))
    others, host = namespaces(containers.pid(engine, owner)), namespaces("self")
    for kind in KINDS:
        assert (own[kind] == others[kind]) == (kind in joined), kind
    of_the_host = {kind for kind in KINDS if own[kind] == host[kind]}
    if "host" in flags:
        assert of_the_host <= {"uts", "net", "user"}
    else:
        assert not of_the_host
    jaula(engine, "kill", NAME)


def test_another_containers_connections_do_not_prevent_a_checkpoint(
    engine: PrivateEngine, owner: str, busybox: str, program: Path
) -> None:
    other = f"--network=container:{owner}"
    mount = f"{program}:/program:ro"
    jaula(engine, "run", "-d", "--name", NAME, "-v", mount, other, busybox, "/program", "pod")
    jaula(engine, "run", "-d", "--name", "third", "-v", mount, other, busybox,
          "/program", "pod", "tcp")  # fmt: skip
    try:
        rounds(engine, 3)
        jaula(engine, "checkpoint", "create", "--leave-running", NAME, "one")
        done = engine.cli("jaula", "checkpoint", "create", "third", "one")
        assert done.returncode == 1
        assert "established TCP connection (2 in all)" in done.stderr
    finally:
        engine.cli("jaula", "rm", "-f", "third")


def test_a_system_v_segment_of_a_shared_namespace_is_refused(
    engine: PrivateEngine, owner: str, busybox: str, program: Path
) -> None:
    jaula(engine, "run", "-d", "--name", NAME, "-v", f"{program}:/program:ro",
          "--ipc", f"container:{owner}", "--network", "none", busybox, "/program")  # fmt: skip
    last = rounds(engine, 3)
    done = engine.cli("jaula", "checkpoint", "create", NAME, "one")
    assert done.returncode == 1
    assert "has a System V shared memory segment" in done.stderr
    rounds(engine, last + 3)


def test_a_start_needs_the_container_whose_namespaces_it_joins(
    engine: PrivateEngine, owner: str, busybox: str, program: Path
) -> None:
    jaula(engine, "run", "-d", "--name", NAME, "-v", f"{program}:/program:ro",
          "--network", f"container:{owner}", busybox, "/program", "pod")  # fmt: skip
    rounds(engine, 3)
    jaula(engine, "checkpoint", "create", NAME, "one")
    jaula(engine, "kill", owner)
    done = engine.cli("jaula", "start", "--checkpoint", "one", NAME)
    assert done.returncode == 1
    assert "cannot join" in done.stderr
    jaula(engine, "start", owner)
    last = rounds(engine, 3)
    jaula(engine, "start", "--checkpoint", "one", NAME)
    rounds(engine, last + 3)
