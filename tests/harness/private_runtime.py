"""A private environment of ``jaula-runtime``: a root, bundles of busybox, and leak checks.

Every resource has the private directory or cgroup in its name, so the kernel's lists show
leftovers, not the runtime's.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.engine import PROJECT
from jaula.oci.default_spec import template
from jaula.spec.runtime_spec import encode

RUNTIME = PROJECT / "jaula-runtime"
RELATIVE_TO = "jaula-runtime"  # the cgroup that relative paths, and none, are below
SECONDS = 20.0  # that any one command may take
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)

Done = subprocess.CompletedProcess[str]
Config = dict[str, Any]


def merged(base: Any, changes: Any) -> Any:
    """Return ``base`` with ``changes``: objects are merged, lists replaced, None removes."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return copy.deepcopy(changes)
    result = {key: copy.deepcopy(base[key]) for key in base if key not in changes}
    for key, value in changes.items():
        if value is not None:
            result[key] = merged(base.get(key, {}), value)
    return result


def make_root(path: Path) -> Path:
    """Create a root file system with every command of busybox."""
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc"):
        (path / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", path / "bin/busybox")
    names = subprocess.run(
        ["/bin/busybox", "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    for name in names:
        with contextlib.suppress(FileExistsError):
            (path / "bin" / name).symlink_to("busybox")
    return path


class PrivateRuntime:
    """One environment; ``left()`` returns its leftovers."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = base / "state"
        self.cgroup = f"jlt-oci-{uuid.uuid4().hex[:12]}"
        self.rootfs = make_root(base / "rootfs")
        self._numbers = itertools.count()
        self._made: list[Bundle] = []
        document = json.loads(encode(template(rootless=False, uid=0, gid=0)))
        changes = {
            "process": {"terminal": False, "args": ["sleep", "600"], "user": {"uid": 0, "gid": 0}},
            "root": {"path": str(self.rootfs)},
        }
        self.config: Config = merged(document, changes)
        self.adopt(True)

    def adopt(self, on: bool) -> None:
        """Make this process the parent of the runtime's orphans, or stop that."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)

    def bundle(
        self, changes: Config | None = None, *, own_root: bool = False, script: str = ""
    ) -> Bundle:
        """Return a bundle of the default config with ``changes``; ``script`` is for ``sh -c``."""
        path = self.base / f"b{next(self._numbers)}"
        path.mkdir()
        name = f"{self.cgroup}-{path.name}"
        config = merged(self.config, {"linux": {"cgroupsPath": f"/{self.cgroup}/{name}"}})
        if script:
            config["process"]["args"] = ["sh", "-c", script]
        if own_root:
            shutil.copytree(self.rootfs, path / "rootfs", symlinks=True)
            config["root"]["path"] = "rootfs"
        bundle = Bundle(self, path, name, merged(config, changes or {}))
        bundle.write()
        self._made.append(bundle)
        return bundle

    @contextlib.contextmanager
    def created(self, changes: Config | None = None, *flags: str, **how: Any) -> Iterator[Bundle]:
        """Yield a created container, removed at the end of the block."""
        bundle = self.bundle(changes, **how)
        try:
            bundle.create(*flags)
            yield bundle
        finally:
            done = bundle.delete("--force")
        assert done.returncode == 0, done.stderr

    @contextlib.contextmanager
    def started(self, changes: Config | None = None, *flags: str, **how: Any) -> Iterator[Bundle]:
        """Yield a running container, removed at the end of the block."""
        with self.created(changes, *flags, **how) as bundle:
            done = bundle.command("start", bundle.id)
            assert done.returncode == 0, done.stderr
            yield bundle

    def command(self, *words: str, timeout: float = SECONDS, **options: Any) -> Done:
        """Run the runtime once and return its output."""
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(
            [RUNTIME, "--root", str(self.root), *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            **options,
        )

    # leftovers

    def processes(self) -> list[str]:
        """Return live processes in the cgroups, or whose command line names the directory."""
        actual = []
        for directory in Path("/proc").glob("[0-9]*"):
            if int(directory.name) in (os.getpid(), os.getppid()):
                continue
            with contextlib.suppress(OSError):
                command = (directory / "cmdline").read_bytes()
                groups = (directory / "cgroup").read_text()
                alive = (directory / "stat").read_text().rpartition(") ")[2][0] not in "ZX"
                if alive and (self.cgroup in groups or os.fsencode(self.base) in command):
                    actual.append(f"process {directory.name} {command!r}")
        return actual

    def cgroups(self) -> list[str]:
        """Return cgroups whose path has the private name, in every hierarchy."""
        actual = []
        for place in self._places():
            inside = [str(child) for child in place.iterdir() if child.is_dir()]
            actual += inside or ([] if place.name == self.cgroup else [str(place)])
        return [f"cgroup {path}" for path in dict.fromkeys(actual)]  # on v2 some are met twice

    def _places(self) -> Iterator[Path]:
        """Return the private cgroups at the top of each hierarchy and below the relative parent."""
        for hierarchy in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*/")]:
            for parent in (hierarchy, hierarchy / RELATIVE_TO):
                yield from parent.glob(f"*{self.cgroup}*")

    def mounts_sockets_states(self) -> list[str]:
        """Return mounts and sockets of the host that name the directory, and state directories."""
        actual = []
        for kind, file in (("mount", "/proc/self/mountinfo"), ("socket", "/proc/net/unix")):
            lines = Path(file).read_text(errors="replace").splitlines()
            actual += [f"{kind} {line}" for line in lines if f"{self.base}/" in line]
        if self.root.is_dir():
            actual += [f"state {name}" for name in os.listdir(self.root)]
        return actual

    def left(self, seconds: float = 3.0) -> list[str]:
        """Return the leftovers after a timeout."""
        deadline = time.monotonic() + seconds
        while actual := [*self.processes(), *self.cgroups(), *self.mounts_sockets_states()]:
            if time.monotonic() > deadline:
                return actual
            self._reap()
            time.sleep(0.02)
        return []

    def _reap(self) -> None:
        for bundle in self._made:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(bundle.pid or 2**30, os.WNOHANG)

    def clear(self) -> None:
        """Kill and remove everything at the end."""
        for line in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[1]), signal.SIGKILL)
        if self.root.is_dir():
            for name in os.listdir(self.root):
                self.command("delete", "--force", name)
        self._reap()
        self.adopt(False)
        for place in list(self._places()):
            above = [place.parent] if place.parent.name == RELATIVE_TO else []
            for group in [*sorted(place.glob("**/"), reverse=True), *above]:
                with contextlib.suppress(OSError):  # another runtime's may be there as well
                    group.rmdir()


class Bundle:
    """A bundle directory and its container."""

    def __init__(self, runtime: PrivateRuntime, path: Path, name: str, config: Config) -> None:
        self.runtime = runtime
        self.path = path
        self.id = name
        self.config = config
        self.pid = 0
        self.out = path / "out"
        self.err = path / "err"

    def write(self) -> None:
        """Write ``config.json``."""
        (self.path / "config.json").write_text(json.dumps(self.config))

    def command(self, *words: str, **options: Any) -> Done:
        return self.runtime.command(*words, **options)

    def words(self, *words: str, flags: Sequence[str] = ()) -> list[str]:
        """Return the command line of ``create`` and similar commands for this bundle."""
        line = [str(RUNTIME), "--root", str(self.runtime.root), *words]
        return [*line, "--bundle", str(self.path), *flags, self.id]

    def run(self, *flags: str, **options: Any) -> Done:
        """Run ``run`` in the foreground and return its output; the container is removed."""
        return self.command("run", "--bundle", str(self.path), *flags, self.id, **options)

    def printed(self, *flags: str) -> str:
        """Return the output of ``run``; assert success."""
        done = self.run(*flags)
        assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def make(self, *words: str, **options: Any) -> int:
        """Run ``create`` or ``run -d`` with output files, and return the exit status."""
        options.setdefault("stdin", subprocess.DEVNULL)
        with self.out.open("ab") as out, self.err.open("ab") as err:
            return subprocess.run(
                self.words(words[0], flags=words[1:]),
                stdout=out,
                stderr=err,
                check=False,
                timeout=SECONDS,
                **options,
            ).returncode

    def create(self, *flags: str, **options: Any) -> None:
        """Run ``create``; assert success."""
        status = self.make("create", "--pid-file", str(self.path / "pid"), *flags, **options)
        assert status == 0, self.err.read_text()
        self.pid = int((self.path / "pid").read_text())

    def refused(self, *flags: str) -> str:
        """Return the one line with which ``create`` fails; assert that nothing remains."""
        status = self.make("create", *flags)
        text = self.err.read_text()
        assert status == 1, text
        lines = text.splitlines()
        assert len(lines) == 1, text
        assert " level=error msg=" in lines[0]
        assert not (self.runtime.root / self.id).exists()
        return json.loads(lines[0].partition(" level=error msg=")[2])

    def start(self) -> Done:
        return self.command("start", self.id)

    def delete(self, *flags: str) -> Done:
        done = self.command("delete", *flags, self.id)
        if self.pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
        return done

    def state(self) -> Config:
        done = self.command("state", self.id)
        assert done.returncode == 0, done.stderr
        document: Config = json.loads(done.stdout)
        return document

    def status(self) -> str:
        return str(self.state()["status"])

    def exec(self, *words: str, flags: Sequence[str] = (), **options: Any) -> Done:
        """Run ``exec`` and return its output."""
        return self.command("exec", *flags, self.id, *words, **options)

    def inside(self, script: str) -> str:
        """Return the output of a shell in the container."""
        done = self.exec("sh", "-c", script)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def proc(self, name: str) -> str:
        """Return a file of /proc/PID on the host."""
        return Path(f"/proc/{self.pid}/{name}").read_text()

    def ended(self, seconds: float = 10.0) -> int:
        """Wait for init as its parent and return its exit status (waitstatus_to_exitcode)."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        raise AssertionError(f"process {self.pid} does not end")
