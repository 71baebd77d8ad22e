"""Objects that no checkpoint can hold. Each is one sentence with the way out."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers
from harness.checkpoints import PATIENCE, program_tools
from harness.engine import PROJECT, PrivateEngine

pytestmark = pytest.mark.criu

PROGRAM = PROJECT / "tests/harness/refused_objects.py"
OPEN = ("--security-opt", "seccomp=unconfined", "--security-opt", "landlock=off")
OF_HOST = (*OPEN, "--cap-add", "ALL", "--userns=host")


class Holder:
    """A container that makes the object that it is told, and what a checkpoint of it answers."""

    def __init__(self, engine: PrivateEngine, directory: Path, flags: tuple[str, ...]) -> None:
        self._engine, self._directory = engine, directory
        self.name = containers.unique("holder")
        directory.chmod(0o777)
        (directory / "command").write_text("")
        *tools, image = program_tools(engine)
        mounts = ("-v", f"{PROGRAM}:/objects.py:ro", "-v", f"{directory}:/work")
        command = ("python3", "/objects.py", "/work")
        network = () if "--network" in flags else ("--network", "none")
        words = ("run", "-d", "--name", self.name, *network, *tools, *mounts, *flags, image)
        done = engine.cli("jaula", *words, *command)
        assert done.returncode == 0, done.stderr
        self.rounds(2)

    def rounds(self, more: int) -> None:
        """Wait until the program has printed more lines."""
        deadline, before = time.monotonic() + PATIENCE, self._count()
        while self._count() < before + more:
            assert time.monotonic() < deadline, containers.inspect(self._engine, self.name)["State"]
            time.sleep(0.05)

    def _count(self) -> int:
        return self._engine.cli("jaula", "logs", self.name).stdout.count("round")

    def make(self, name: str) -> None:
        """Let the program make an object."""
        state = self._directory / "state"
        state.unlink(missing_ok=True)
        (self._directory / "command").write_text(name)
        deadline = time.monotonic() + PATIENCE
        while not state.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert state.read_text() == name

    def refusal(self, *flags: str) -> str:
        """Return the error of a checkpoint. The container runs on, and no checkpoint is left."""
        done = self._engine.cli("jaula", "checkpoint", "create", *flags, self.name, "one")
        assert done.returncode != 0, done.stdout
        assert self._engine.cli("jaula", "checkpoint", "ls", self.name).stdout.split()[2:] == []
        assert "Traceback" not in done.stderr and done.stderr.count("\n") <= 2, done.stderr
        return done.stderr


@contextlib.contextmanager
def holder(engine: PrivateEngine, directory: Path, *flags: str) -> Iterator[Holder]:
    made = Holder(engine, directory, flags)
    try:
        yield made
    finally:
        engine.cli("jaula", "rm", "-f", "-v", made.name)


OBJECTS = {
    "io_uring": "an io_uring",
    "inotify_of_the_root": "watches a file of the container's root with inotify",
    "fanotify": "a fanotify group",
    "userfaultfd": "a userfaultfd",
    "user_namespace": "is in a namespace of its own",
    "namespace_descriptor": "a descriptor of a namespace",
    "landlock_ruleset": "a Landlock ruleset",
    "seccomp_listener": "a seccomp listener",
    "semaphore": "an eventfd with EFD_SEMAPHORE",
    "traced_process": "is traced by process",
    "peer_outside": "close connections to unix sockets outside",
    "large_deleted_file": "larger than 64 MiB",
    "message_queue": "the POSIX message queue /queue",  # it stays
}
OF_ROOT = {
    "mount_namespace": "is in a namespace of its own",
    "network_namespace": "is in a namespace of its own",
    "bpf_map": "a BPF map",
    "perf_event": "a perf event",
}


def check(made: Holder, objects: dict[str, str]) -> None:
    for name, words in objects.items():
        made.make(name)
        refusal = made.refusal()
        assert words in refusal, (name, refusal)
        assert refusal.endswith(")\n"), refusal  # the way out
        made.rounds(1)


def test_objects_that_no_checkpoint_can_hold(engine: PrivateEngine, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        (tmp_path / "socket").chmod(0o666)
        server.listen(4)
        with holder(engine, tmp_path, *OPEN) as made:
            check(made, OBJECTS)


def test_objects_of_root_that_no_checkpoint_can_hold(engine: PrivateEngine, tmp_path: Path) -> None:
    with holder(engine, tmp_path, *OF_HOST) as made:
        check(made, OF_ROOT)


FLAGS = (
    (("--network", "host"), "shares its network namespace", "create it without --network host"),
    (("--pid", "host"), "shares its pid namespace", "create it without --pid"),
    (("--cgroupns", "host"), "shares its cgroup namespace", "create it without --cgroupns=host"),
    (("--ipc", "host"), "ipc", "--ipc"),
    (("--ipc", "shareable"), "/dev/shm is shared", "--ipc=private"),
    (("--security-opt", "landlock=scope-abstract"), "scopes abstract unix sockets", "without that"),
    (("--rm",), "removed with its checkpoints", "without --rm"),
)


@pytest.mark.parametrize(("flags", "words", "hint"), FLAGS, ids=lambda value: str(value)[:24])
def test_flags_that_no_checkpoint_can_hold(
    engine: PrivateEngine, tmp_path: Path, flags: tuple[str, ...], words: str, hint: str
) -> None:
    with holder(engine, tmp_path, *flags) as made:
        refusal = made.refusal()
        assert words in refusal and hint in refusal, refusal
        made.rounds(1)


@pytest.mark.needs("runc")
def test_another_runtime_has_no_checkpoints(
    new_engine: Callable[..., PrivateEngine], tmp_path: Path
) -> None:
    engine = new_engine("--add-runtime", f"other={shutil.which('runc')}")
    with holder(engine, tmp_path, "--runtime", "other") as made:
        assert "without --runtime" in made.refusal()
        made.rounds(1)


def test_an_exec_and_a_pause_are_refused(engine: PrivateEngine, tmp_path: Path) -> None:
    with holder(engine, tmp_path) as made:
        assert engine.cli("jaula", "exec", "-d", made.name, "sleep", "100").returncode == 0
        refusal = made.refusal()
        assert "1 exec'd process" in refusal and "--end-execs" in refusal, refusal
        made.rounds(1)
        engine.cli("jaula", "pause", made.name)
        assert "unpause it first" in made.refusal("--end-execs")
        engine.cli("jaula", "unpause", made.name)
        made.rounds(1)


@pytest.mark.parametrize("size", ["64k", "130k", "250k"])  # what CRIU cannot write differs
def test_a_full_disk_is_one_error_with_the_way_out(
    new_engine: Callable[..., PrivateEngine], size: str
) -> None:
    engine = new_engine()
    load_image(engine, "busybox")
    store = engine.root / "lib/checkpoints"
    store.mkdir(mode=0o700, exist_ok=True)
    engine.stop()  # the next one has the mount in its own namespace
    options = f"size={size},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(store)], check=True)
    try:
        engine.start()
        command = ("sh", "-c", "while :; do sleep 1; done")
        with containers.running(engine, "busybox", *command, flags=("--network=none",)) as name:
            for flags in ((), ("--leave-running",), ("--with-files",)):
                done = engine.cli("jaula", "checkpoint", "create", *flags, name, "one")
                assert done.returncode != 0, done.stdout
                assert "No space left on device" in done.stderr
                assert done.stderr.endswith(" (free some space and try again)\n")
                assert list(store.glob("*/*")) == []
                assert containers.inspect(engine, name)["State"]["Running"]
                assert engine.cli("jaula", "exec", name, "true").returncode == 0
    finally:
        engine.stop()
        subprocess.run(["umount", "-l", str(store)], check=True)
        engine.start()
