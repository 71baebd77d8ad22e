"""Leftovers of an engine on the host, read from the kernel and not from the engine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from harness.engine import SLOW, PrivateEngine

END_TIMEOUT = 5.0  # seconds for processes that end with their engine
SPARE_INIT_TIMEOUT = 3.0 * SLOW  # seconds in which the process of a spare init enters its cgroup


def mounts(engine: PrivateEngine) -> list[str]:
    """Return mounts in this mount namespace below the engine's directories."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(engine.root) in line or str(engine.run) in line]


def cgroups(engine: PrivateEngine) -> list[str]:
    """Return cgroups of containers below the engine's parent, in every hierarchy.

    Those of spare inits are no container's. They end with the engine. The cgroup of one that is
    being created has no process yet, so what is found has to be there for some time.
    """
    deadline = time.monotonic() + SPARE_INIT_TIMEOUT
    left = cgroups_now(engine)
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        there = set(cgroups_now(engine))
        left = [path for path in left if path in there]
    return left


def cgroups_now(engine: PrivateEngine) -> list[str]:
    """Return cgroups as :func:`cgroups`, and perhaps one of a spare init that is being created."""
    found = []
    for hierarchy in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*/")]:
        parent = hierarchy / engine.cgroup_parent
        if parent.is_dir():
            found += [child for child in parent.iterdir() if child.is_dir()]
    spare = {path.name for path in found if _has_spare_init(path)}
    return [str(path) for path in found if path.name not in spare]


def _has_spare_init(cgroup: Path) -> bool:
    """Return whether the only processes of a cgroup are a spare init and its stage."""
    with contextlib.suppress(OSError):  # the cgroup or a process ends
        pids = (cgroup / "cgroup.procs").read_text().split()
        names = {Path(f"/proc/{pid}/comm").read_text() for pid in pids}
        return names == {"jaula-zygote\n"}
    return False


SANDBOX_POOL = 4  # network sandboxes that an engine keeps ready, each with its port


def links(engine: PrivateEngine) -> list[str]:
    """Return ports of the engine's bridge in excess of the sandbox pool."""
    ports = Path("/sys/class/net") / engine.bridge / "brif"
    result = sorted(os.listdir(ports)) if ports.is_dir() else []
    return result if len(result) > SANDBOX_POOL else []


def bridge(engine: PrivateEngine) -> list[str]:
    return [engine.bridge] if (Path("/sys/class/net") / engine.bridge).exists() else []


def tables(engine: PrivateEngine) -> list[str]:
    """Return nftables tables with the name of the engine's bridge."""
    text = subprocess.run(
        ["nft", "list", "tables"], capture_output=True, text=True, check=True
    ).stdout
    return [line for line in text.splitlines() if engine.bridge in line]


def processes(engine: PrivateEngine) -> list[str]:
    """Return processes in the engine's cgroups, or whose command line names its directories."""
    result = []
    marks = (str(engine.root).encode(), str(engine.run).encode())
    for directory in Path("/proc").glob("[0-9]*"):
        if int(directory.name) in (os.getpid(), os.getppid()):
            continue
        with contextlib.suppress(OSError):
            command = (directory / "cmdline").read_bytes()
            groups = (directory / "cgroup").read_text()
            if f"/{engine.cgroup_parent}" in groups or any(mark in command for mark in marks):
                result.append(f"{directory.name} {command!r}")
    return result


def of_containers(engine: PrivateEngine) -> dict[str, list[str]]:
    """Return resources of containers on the host: empty while none runs."""
    kinds = {"mounts": mounts, "cgroups": cgroups, "links": links}
    return {kind: result for kind, look in kinds.items() if (result := look(engine))}


def of_engine(engine: PrivateEngine) -> dict[str, list[str]]:
    """Return resources of a stopped engine on the host: only its directories may remain.

    Spare shims and inits end by themselves when they read that the engine has ended.
    """
    kinds = {"bridge": bridge, "tables": tables, "processes": processes}
    deadline = time.monotonic() + END_TIMEOUT
    while True:
        result = of_containers(engine)
        result |= {kind: left for kind, look in kinds.items() if (left := look(engine))}
        if not result or time.monotonic() > deadline:
            return result
        time.sleep(0.05)


def clean_up(engine: PrivateEngine) -> None:
    """Kill and remove the leftovers of a failed test, so that it affects no other."""
    for line in processes(engine):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(line.split()[0]), signal.SIGKILL)
    deadline = time.monotonic() + 5
    for hierarchy in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*/")]:
        parent = hierarchy / engine.cgroup_parent
        for group in [*parent.glob("*/"), parent] if parent.is_dir() else []:
            while time.monotonic() < deadline:
                try:
                    group.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.05)
    if bridge(engine):
        subprocess.run(["ip", "link", "del", engine.bridge], check=False)


@contextlib.contextmanager
def nothing_left(private: PrivateEngine, *, own_network: bool = False) -> Iterator[PrivateEngine]:
    """Start a private engine, yield it, stop it and assert that nothing remains."""
    try:
        private.start(own_network=own_network)
        yield private
        private.discard()
        left = of_engine(private)
        assert not left, f"left behind by the engine: {left}"
    finally:
        if private.process is not None:
            private.kill()
        clean_up(private)
        private.delete_directories()
