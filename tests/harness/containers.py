"""Looking at a container from the host's side, through the kernel."""

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

_numbers = itertools.count(1)


def unique(prefix: str = "t") -> str:
    return f"{prefix}{os.getpid()}-{next(_numbers)}"


@contextmanager
def running(
    engine: PrivateEngine, image: str, *command: str, flags: tuple[str, ...] = ()
) -> Iterator[str]:
    """A container that runs until the block ends; its name."""
    name = unique()
    words = ("run", "-d", "--name", name, *flags, image, *(command or ("sleep", "600")))
    done = engine.cli("jaula", *words)
    try:
        assert done.returncode == 0, done.stderr + engine.log_tail()
        yield name
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1&v=1")


def run(engine: PrivateEngine, image: str, *command: str, flags: tuple[str, ...] = ()) -> str:
    """The output of ``run --rm``; it must succeed."""
    done = engine.cli("jaula", "run", "--rm", *flags, image, *command)
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def inspect(engine: PrivateEngine, name: str) -> dict[str, Any]:
    reply = engine.request("GET", f"/containers/{name}/json")
    assert reply.status == 200, reply
    document: dict[str, Any] = reply.json()
    return document


def pid(engine: PrivateEngine, name: str) -> int:
    number = inspect(engine, name)["State"]["Pid"]
    assert number > 0
    return int(number)


def status(process: int) -> dict[str, str]:
    """/proc/PID/status as a mapping."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def parent(process: int) -> int:
    return int(status(process)["PPid"])


def children(process: int, name: str) -> list[int]:
    """The children of a process that have this name."""
    found = []
    for thread in Path(f"/proc/{process}/task").iterdir():
        for child in (thread / "children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == name:
                found.append(int(child))
    return found


def mountinfo(process: int) -> dict[str, dict[str, Any]]:
    """Mounts of a process by mount point (the topmost wins): options, propagation, type, root."""
    found = {}
    for line in Path(f"/proc/{process}/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        kind, source, super_options = after.split(" ", 2)
        found[fields[4]] = {
            "root": fields[3],
            "options": set(fields[5].split(",")),
            "propagation": fields[6:],
            "type": kind,
            "source": source,
            "super": set(super_options.split(",")),
        }
    return found


def cgroup_file(process: int, v1_controller: str, v1_name: str, v2_name: str) -> str:
    """The value of a limit of the process's cgroup, on either version."""
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
    """Wait for a condition; fail with ``what`` when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"does not happen: {what}")
        time.sleep(0.05)


def assert_clean(engine: PrivateEngine, seconds: float = 15.0) -> None:
    """Wait until nothing of a container is left on the host; say what is."""
    deadline = time.monotonic() + seconds
    while left := leaks.of_containers(engine):
        if time.monotonic() > deadline:
            raise AssertionError(f"left behind: {left}, with {leaks.processes(engine)}")
        time.sleep(0.05)


def events(engine: PrivateEngine, since: float, **filters: str) -> list[dict[str, Any]]:
    """What has happened since a moment, up to now."""
    chosen = json.dumps({key: [value] for key, value in filters.items()})
    from urllib.parse import quote

    path = f"/events?since={since:.9f}&until={time.time():.9f}&filters={quote(chosen)}"
    text = engine.request("GET", path).body.decode()
    return [json.loads(line) for line in text.splitlines() if line.strip()]
