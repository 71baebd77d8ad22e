"""Properties of a container on the host, read from the kernel."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import leaks
from harness.engine import PrivateEngine
from jaula.features.verify.model.host_process import parse_cgroups
from jaula.kernel import mountinfo as mounts
from jaula.kernel.mountinfo import MountInfo

_numbers = itertools.count(1)


def unique(prefix: str = "t") -> str:
    return f"{prefix}{os.getpid()}-{next(_numbers)}"


@contextmanager
def running(
    engine: PrivateEngine, image: str, *command: str, flags: tuple[str, ...] = ()
) -> Iterator[str]:
    """Yield the name of a container that runs until the block ends."""
    name = unique()
    start = ("run", "-d", "--stop-timeout", "1", "--name", name)
    words = (*start, *flags, image, *(command or ("sleep", "600")))
    done = engine.cli("jaula", *words)
    try:
        assert done.returncode == 0, done.stderr + engine.log_tail()
        yield name
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1&v=1")


def run(engine: PrivateEngine, image: str, *command: str, flags: tuple[str, ...] = ()) -> str:
    """Return the output of ``run --rm``; assert success."""
    done = engine.cli("jaula", "run", "--rm", *flags, image, *command)
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def inspect(engine: PrivateEngine, name: str) -> dict[str, Any]:
    reply = engine.request("GET", f"/containers/{name}/json")
    assert reply.status == 200, reply
    document: dict[str, Any] = reply.json()
    return document


def address(engine: PrivateEngine, name: str, network: str = "bridge") -> str:
    """Return the IPv4 address of a container on a network."""
    return str(inspect(engine, name)["NetworkSettings"]["Networks"][network]["IPAddress"])


def pid(engine: PrivateEngine, name: str) -> int:
    number = inspect(engine, name)["State"]["Pid"]
    assert number > 0
    return int(number)


def status(process: int) -> dict[str, str]:
    """Return /proc/PID/status as a mapping."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def parent(process: int) -> int:
    return int(status(process)["PPid"])


def shim(process: int) -> int:
    """Return the shim of a container's init; wait until the helper that created init has exited."""
    found = 0

    def helper_has_exited() -> bool:
        nonlocal found
        found = parent(process)
        try:
            return status(parent(found))["Name"] != status(found)["Name"]
        except FileNotFoundError:
            return False

    eventually(helper_has_exited, "the helper exits")
    return found


def children(process: int, name: str) -> list[int]:
    """Return the children of a process that have this name."""
    pids = []
    for thread in Path(f"/proc/{process}/task").iterdir():
        for child in (thread / "children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == name:
                pids.append(int(child))
    return pids


def zygote(engine: PrivateEngine) -> int:
    """Return the pid of an engine's zygote."""
    assert engine.process is not None
    return min(children(engine.process.pid, "jaula-zygote"))


def mountinfo(process: int) -> dict[str, MountInfo]:
    """Return the mounts of a process by mount point; the topmost wins."""
    return {mount.target: mount for mount in mounts.read(f"/proc/{process}/mountinfo")}


def cgroup_file(process: int, v1_controller: str, v1_name: str, v2_name: str) -> str:
    """Return the value of a limit of the process's cgroup, on either version."""
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if v1_controller in controllers.split(","):
            base = Path("/sys/fs/cgroup") / v1_controller
            return (base / path.lstrip("/") / v1_name).read_text().strip()
    base = Path("/sys/fs/cgroup")
    if not (base / "cgroup.controllers").exists():
        raise AssertionError(f"no {v1_controller} hierarchy for process {process}")
    return (base / path.lstrip("/") / v2_name).read_text().strip()


def eventually(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    """Wait for a condition; fail with ``what`` at the timeout."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"does not happen: {what}")
        time.sleep(0.05)


def assert_clean(engine: PrivateEngine, seconds: float = 15.0) -> None:
    """Wait until no container leaves anything on the host; report what remains."""
    deadline = time.monotonic() + seconds
    while left := leaks.of_containers(engine):
        if time.monotonic() > deadline:
            raise AssertionError(f"left behind: {left}, with {leaks.processes(engine)}")
        time.sleep(0.05)


def events(engine: PrivateEngine, since: float, **filters: str) -> list[dict[str, Any]]:
    """Return the events since a time, up to now."""
    chosen = json.dumps({key: [value] for key, value in filters.items()})
    from urllib.parse import quote

    path = f"/events?since={since:.9f}&until={time.time():.9f}&filters={quote(chosen)}"
    text = engine.request("GET", path).body.decode()
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def cgroups(process: int) -> tuple[tuple[str, str], ...]:
    """Return (controllers, path) of each hierarchy of a process."""
    return parse_cgroups(Path(f"/proc/{process}/cgroup").read_text())


def left_by_testcontainers(engine: PrivateEngine) -> list[Any]:
    """Return the containers, labelled networks, volumes and images of sessions of testcontainers.

    The engine has no other containers and volumes.
    """
    found: list[Any] = engine.request("GET", "/containers/json?all=1").json()
    found += [n for n in engine.request("GET", "/networks").json() if n["Labels"]]
    found += engine.request("GET", "/volumes").json()["Volumes"]
    images = engine.request("GET", "/images/json").json()
    return found + [i for i in images if "org.testcontainers" in (i["Labels"] or {})]


def cgroup_value(process: int, controller: str, v1: str, v2: str) -> str:
    """Return the content of a file of a process's cgroup, by its name in v1 or v2."""
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path(f"/sys/fs/cgroup/{controller}{path}/{v1}").read_text().strip()
        if number == "0" and (file := Path(f"/sys/fs/cgroup{path}/{v2}")).exists():
            return file.read_text().strip()
    return ""
