"""Private engines for the measurements: docker, podman with runc, jaula."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
IMAGE = "bench-busybox:latest"
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Rootfs:
    directory: Path
    archive: Path


def make_rootfs(base: Path) -> Rootfs:
    """Create a directory and a tar of Debian's static busybox with its applets as links."""
    source = shutil.which("busybox")
    if source is None:
        raise SystemExit("bench: busybox is not installed (package busybox-static)")
    root = base / "rootfs"
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(source, root / "bin/busybox")
    listing = subprocess.run([source, "--list"], capture_output=True, text=True, check=True)
    for applet in listing.stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    archive = base / "rootfs.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(root, arcname=".")
    return Rootfs(root, archive)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, kept alive between requests."""

    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=120)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Send one request and return the JSON of the answer, or None.

        :raises RuntimeError: when the status is an error
        """
        data = None if body is None else json.dumps(body)
        self.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        answer = self.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return json.loads(text) if text[:1] in (b"{", b"[") else None


def wait_for(condition: Any, what: str, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: {what} did not start within {seconds:g} seconds")
        time.sleep(0.005)


class Engine:
    """An engine under measurement. ``base`` is its private directory."""

    name = ""

    def __init__(self, base: Path) -> None:
        self.base = base
        base.mkdir()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path | None:
        """Return the socket of the Docker API, or None for an engine without a daemon."""
        return self.base / "engine.sock"

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """Remove the containers, then stop the engine by its process id."""
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            listed = self.run("ps", "-aq", capture_output=True, text=True)
            names = listed.stdout.split()
            if names:
                self.remove(*names)
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def restart(self) -> float:
        """Kill the engine and start it again; return the seconds until it answers."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        begin = time.perf_counter()
        self.start()
        return time.perf_counter() - begin

    def words(self, *words: str) -> list[str]:
        """Return the arguments of the command that a user would type."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def run(self, *words: str, check: bool = True, **options: Any) -> Any:
        return subprocess.run(
            self.words(*words), check=check, env=self.environment(), timeout=300, **options
        )

    def remove(self, *names: str) -> None:
        """Kill and remove containers without a stop timeout: their init would ignore SIGTERM."""
        self.run("rm", "-f", *names, stdout=subprocess.DEVNULL)

    def import_image(self, archive: Path) -> None:
        self.run("import", str(archive), IMAGE, stdout=subprocess.DEVNULL)

    def connect(self) -> UnixConnection:
        assert self.socket is not None
        return UnixConnection(self.socket)

    def answers(self) -> bool:
        connection = self.connect()
        try:
            connection.call("GET", "/version")
        except (OSError, RuntimeError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True

    def pid_of(self, container: str) -> int:
        result = self.run(
            "inspect", "--format", "{{.State.Pid}}", container, capture_output=True, text=True
        )
        return int(result.stdout)

    def spawn(self, words: list[str]) -> None:
        with (self.base / "log").open("ab") as log:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                start_new_session=True,
            )

    def processes(self) -> list[int]:
        """Return the processes of the idle engine, the main one first."""
        assert self.process is not None
        return [self.process.pid, *children(self.process.pid)]


class Docker(Engine):
    name = "docker"

    def start(self) -> None:
        self.spawn(
            [
                "dockerd",
                *("--data-root", str(self.base / "lib"), "--exec-root", str(self.base / "run")),
                *("--host", f"unix://{self.socket}", "--pidfile", str(self.base / "pid")),
                *("--bip", "10.198.0.1/23", "--log-level", "error", "--live-restore"),
            ]
        )
        wait_for(self.answers, "dockerd")

    def environment(self) -> dict[str, str]:
        return dict(os.environ) | {"DOCKER_CONFIG": str(self.base), "PATH": sbin_path()}

    def words(self, *words: str) -> list[str]:
        return ["docker", "-H", f"unix://{self.socket}", *words]


class Podman(Engine):
    name = "podman"
    socket = None

    def start(self) -> None:
        """Do nothing: podman has no daemon."""

    def environment(self) -> dict[str, str]:
        return dict(os.environ) | {"PATH": sbin_path(), "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}

    def remove(self, *names: str) -> None:
        self.run("rm", "-f", "--time", "0", *names, stdout=subprocess.DEVNULL)

    def words(self, *words: str) -> list[str]:
        return [
            "podman",
            *("--root", str(self.base / "lib"), "--runroot", str(self.base / "run")),
            *("--network-config-dir", str(self.base / "net"), "--tmpdir", str(self.base / "tmp")),
            *("--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "file"),
            *words,
        ]

    def processes(self) -> list[int]:
        return []


class Jaula(Engine):
    name = "jaula"
    project = PROJECT
    bridge = ("jbench0", "10.198.2.0/23")  # and the subnet
    options: tuple[str, ...] = ()  # of the engine, besides its places

    def start(self) -> None:
        policy = self.base / "policy.toml"
        policy.write_text('[default]\naccess = "run"\n')  # as every user has with docker
        self.spawn(
            [
                *(str(self.project / ".venv/bin/python"), "-m", "jaula", "daemon"),
                *("--root", str(self.base / "lib"), "--run", str(self.base / "run")),
                *("--socket", str(self.socket), "--bridge", self.bridge[0]),
                *("--bridge-subnet", self.bridge[1]),
                *("--cgroup-parent", self.cgroup_parent),
                *("--policy", str(policy)),
                *self.options,
            ]
        )
        wait_for(self.answers, "the engine of jaula")

    @property
    def cgroup_parent(self) -> str:
        return f"jb{os.getpid()}{self.name}"

    def stop(self) -> None:
        """Stop the engine, and remove the cgroup of its containers, which it keeps."""
        super().stop()
        for hierarchy in (CGROUPS, *CGROUPS.glob("*/")):
            with contextlib.suppress(FileNotFoundError):
                (hierarchy / self.cgroup_parent).rmdir()

    def environment(self) -> dict[str, str]:
        return dict(os.environ) | {
            "JAULA_HOST": f"unix://{self.socket}",
            "PYTHONPATH": str(self.project / "src"),
            "PATH": sbin_path(),
        }

    def words(self, *words: str) -> list[str]:
        return [str(self.project / "jaula"), *words]


class Baseline(Jaula):
    """Another checkout of jaula, to which this one is compared: ``JAULA_BENCH_BASELINE``."""

    name = "baseline"
    project = Path(os.environ.get("JAULA_BENCH_BASELINE", ""))
    bridge = ("jbench1", "10.198.4.0/23")

    def start(self) -> None:
        if not (self.project / ".venv/bin/python").exists():
            raise SystemExit(
                "bench: JAULA_BENCH_BASELINE must be a checkout of jaula, after scripts/setup"
            )
        super().start()


class WithoutSpareInits(Jaula):
    """jaula, whose starts do all of their work after the request, whatever their shape."""

    name = "no-spare-inits"
    bridge = ("jbench2", "10.198.6.0/23")
    options = ("--spare-inits", "0")


KINDS: dict[str, type[Engine]] = {
    "docker": Docker,
    "podman": Podman,
    "jaula": Jaula,
    "baseline": Baseline,
}


def sbin_path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def children(pid: int) -> list[int]:
    """Return the children of all threads of ``pid``."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(word) for thread in threads for word in (thread / "children").read_text().split()]


def status_bytes(pid: int, key: str) -> int:
    """Return the bytes of a kB value in /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def parent(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("PPid:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


def pss_bytes(pid: int) -> int:
    """Return the proportional set size (proc_pid_smaps_rollup(5))."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
