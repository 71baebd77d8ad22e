"""Containers that check themselves, and their checkpoints (:mod:`harness.checkpoint_checks`)."""

from __future__ import annotations

import re
import time
from pathlib import Path

from harness import containers
from harness.engine import PROJECT, PrivateEngine
from harness.images import host_tools

PROGRAM = PROJECT / "tests/harness/checkpoint_checks.py"
MODES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid")
PATIENCE = 60.0  # seconds; a virtual machine without KVM is slow


def program_tools(engine: PrivateEngine) -> tuple[str, ...]:
    """Return words for ``run`` that bind the host's /usr without what is mounted below it."""
    *_, image = host_tools(engine)
    return ("--mount", "type=bind,src=/usr,dst=/usr,readonly,bind-recursive=disabled", image)


class CheckedContainer:
    """A container that runs checks ten times a second."""

    def __init__(self, engine: PrivateEngine, flags: tuple[str, ...], checks: tuple[str, ...]):
        self._engine = engine
        self.name = containers.unique("kept")
        *tools, image = program_tools(engine)
        program = ("-v", f"{PROGRAM}:/checks.py:ro")
        command = ("python3", "-W", "ignore", "/checks.py", *checks)
        self.jaula("run", "-d", "--name", self.name, *tools, *program, *flags, image, *command)

    def jaula(self, *words: str) -> str:
        """Run the client, and return its output."""
        done = self._engine.cli("jaula", *words)
        assert done.returncode == 0, (words, done.stdout, done.stderr, self.log())
        return done.stdout

    def refused(self, *words: str) -> str:
        """Run the client, which must fail, and return its error."""
        done = self._engine.cli("jaula", *words)
        assert done.returncode != 0, (words, done.stdout)
        return done.stderr

    def log(self) -> str:
        """Return what the program has printed."""
        done = self._engine.cli("jaula", "logs", self.name)
        return done.stdout + done.stderr

    def rounds(self, least: int = 1) -> list[int]:
        """Wait until the program has printed so many rounds; return them all."""
        deadline = time.monotonic() + PATIENCE
        while True:
            log = self.log()
            assert "FAILED" not in log, log[log.index("FAILED") :]
            numbers = [int(number) for number in re.findall(r"round (\d+)", log)]
            if len(numbers) >= least:
                return numbers
            assert time.monotonic() < deadline, (log, containers.inspect(self._engine, self.name))
            time.sleep(0.1)

    def advance(self, count: int = 5) -> None:
        """Wait for more rounds, and check that none is missing or repeated."""
        seen = self.rounds(len(self.rounds()) + count)
        assert seen == list(range(1, len(seen) + 1))

    def running(self) -> bool:
        """Return whether the container runs."""
        return bool(containers.inspect(self._engine, self.name)["State"]["Running"])

    def create(self, *flags: str, name: str = "one") -> None:
        """Make a checkpoint; again if a netlink socket had an answer that was not read yet."""
        words = ("checkpoint", "create", *flags, self.name, name)
        done = self._engine.cli("jaula", *words)
        if "try again" in done.stderr:
            done = self._engine.cli("jaula", *words)
        assert (done.returncode, done.stdout) == (0, f"{name}\n"), (done.stderr, self.log())

    def start(self, *, name: str = "one") -> None:
        """Start from a checkpoint."""
        self.jaula("start", "--checkpoint", name, self.name)

    def confinement(self) -> dict[str, object]:
        """Return what confines each process but zombies, as the kernel shows it."""
        init = containers.pid(self._engine, self.name)
        rows: dict[str, object] = {}
        for pid in processes(init):
            status = containers.status(pid)
            if status["State"].startswith("Z"):
                continue
            maps = [Path(f"/proc/{pid}/{name}").read_text() for name in ("uid_map", "gid_map")]
            width = [" ".join(line.split()[::2]) for text in maps for line in text.splitlines()]
            ids = [status[name] for name in MODES if "id" not in name or "4294967295" in maps[0]]
            rows[status["NSpid"].split()[-1]] = (
                ids, status["Threads"], width, status.get("Seccomp_filters"),
                Path(f"/proc/{pid}/cgroup").read_text(), Path(f"/proc/{pid}/limits").read_text(),
            )  # fmt: skip
        lines = Path(f"/proc/{init}/mountinfo").read_text().splitlines()
        rows["mounts"] = sorted(tuple(line.split()[4:6]) for line in lines)
        return rows

    def remove(self) -> None:
        """Remove the container."""
        self._engine.cli("jaula", "rm", "-f", "-v", self.name)


def thread_labels(engine: PrivateEngine, container: str, file: str) -> set[str]:
    """Return the labels of all threads of a container; ``file`` is below the task's directory."""
    return {
        (task / file).read_text().rstrip("\0\n")
        for pid in processes(containers.pid(engine, container))
        for task in Path(f"/proc/{pid}/task").iterdir()
        if "\nState:\tZ" not in (task / "status").read_text()
    }


def processes(init: int) -> list[int]:
    """Return a process and its descendants, which do not change while the checks run."""
    found = [init]
    for pid in found:
        for path in Path(f"/proc/{pid}/task").iterdir():
            found += [int(word) for word in (path / "children").read_text().split()]
    return found
