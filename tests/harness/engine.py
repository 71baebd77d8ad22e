"""A private jaula engine: its directories, socket, bridge and cgroup parent are its own.

It shares nothing with the machine's own engine or another test's. It is stopped by process id.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
SPARE_SHIMS = os.environ.get("JAULA_TEST_SPARE_SHIMS", "")  # empty: as many as by default
SPARE_INITS = os.environ.get("JAULA_TEST_SPARE_INITS", "")  # likewise
SLOW = 8 if "JAULA_VM" in os.environ else 1  # emulation, on a machine that has other work too
START_TIMEOUT = 30.0 * SLOW  # seconds
STOP_TIMEOUT = 30.0 * SLOW
COMMAND_TIMEOUT = 60.0 * SLOW


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float = COMMAND_TIMEOUT) -> None:
        super().__init__("jaula", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class PrivateEngine:
    """One engine. ``index`` separates the names and subnets of parallel engines."""

    index: int
    # Short, because socket addresses are limited to 107 bytes and container ids are 64 long.
    root: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="jlt")))
    run: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="jlt", dir="/run")))
    extra_flags: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    netns: str = ""  # name of an existing network namespace to run in
    mntns: str = ""  # path of an existing mount namespace to run in
    project: Path = PROJECT  # a clone, whose source and launcher are used

    @property
    def tag(self) -> str:
        return self.root.name

    @property
    def socket(self) -> Path:
        return self.run / "jaula.sock"

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    @property
    def bridge(self) -> str:
        return f"{self.tag[:11]}b"

    @property
    def cgroup_parent(self) -> str:
        return self.tag

    @property
    def log(self) -> Path:
        return self.root / "engine.log"

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "jaula", "daemon"),
            *("--config-file", "/dev/null"),  # not the machine's own
            *("--root", str(self.root / "lib"), "--run", str(self.run)),
            *("--socket", str(self.socket), "--bridge", self.bridge),
            *("--bridge-subnet", f"10.199.{self.index}.0/24"),
            *("--cgroup-parent", self.cgroup_parent),
            *("--subid-start", str(2_000_000_000 + self.index * 5_000_000)),
            *("--subid-count", "5000000"),
            *("--durability", "relaxed"),  # tests of power failures set another one
            *(("--spare-shims", SPARE_SHIMS) if SPARE_SHIMS else ()),
            *(("--spare-inits", SPARE_INITS) if SPARE_INITS else ()),
            *self.extra_flags,
        ]

    def start(self, *, own_network: bool = False) -> None:
        """Start the engine and wait until it answers.

        ``own_network``: in a network namespace without the firewall rules of the host.
        """
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("DOCKER_", "JAULA_"))},
            "PYTHONPATH": str(self.project / "src"),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._prefix(own_network), *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            if self.process.poll() is not None:
                raise AssertionError(f"the engine ended at its start:\n{self.log_tail()}")
            with contextlib.suppress(OSError):
                if self.request("GET", "/_ping", timeout=5.0).status == 200:
                    return
            if time.monotonic() > deadline:
                raise AssertionError(f"the engine does not answer:\n{self.log_tail()}")
            time.sleep(0.05)

    def _prefix(self, own_network: bool) -> tuple[str, ...]:
        if self.mntns:
            return ("nsenter", f"--mount={self.mntns}")
        if self.netns:
            return ("nsenter", f"--net=/run/netns/{self.netns}")
        return ("unshare", "--net") if own_network else ()

    def log_tail(self, size: int = 4000) -> str:
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout: float = COMMAND_TIMEOUT,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """Send one request on a new connection. ``body``: bytes unchanged, else JSON."""
        connection = UnixConnection(str(self.socket), timeout)
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            kind = {"Content-Type": "application/json"} if data is not None else {}
            connection.request(method, path, data, kind | (headers or {}))
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def kill(self) -> None:
        """Kill the engine's main process with SIGKILL; its containers keep running."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> int:
        """Send SIGTERM, wait, and return the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the engine does not stop:\n{self.log_tail()}") from None
        finally:
            self.process = None

    def remove_containers(self) -> None:
        for container in self.request("GET", "/containers/json?all=1&pods=1").json():
            reply = self.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")
            assert reply.status in (204, 404, 409), reply

    def discard(self) -> None:
        """Stop it with all its containers; keep the directories for the leak check."""
        if self.process is None:
            return
        if self.process.poll() is not None:
            raise AssertionError(f"the engine has died:\n{self.log_tail()}")
        self.remove_containers()
        self.stop()

    def delete_directories(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self.run, ignore_errors=True)

    # What the tests type.

    def environment(self) -> dict[str, str]:
        """Return the variables of a client of this engine.

        ``docker build`` and ``docker builder`` use the classic builder, which the engine serves.
        Without DOCKER_BUILDKIT the docker command would run the plugin buildx if it is installed.
        """
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DOCKER_", "JAULA_"))}
        configuration = self.root / "docker-config"
        configuration.mkdir(exist_ok=True)
        return kept | {
            "JAULA_HOST": self.host,
            "DOCKER_HOST": self.host,
            "DOCKER_CONFIG": str(configuration),
            "DOCKER_BUILDKIT": "0",
        }

    def cli(self, program: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run ``jaula`` or ``docker`` against this engine with text streams, without a check."""
        first = [str(self.project / "jaula")] if program == "jaula" else [program]
        variables = self.environment()
        if program == "jaula":
            del variables["DOCKER_BUILDKIT"]  # ``jaula compose`` sets it
        settings: dict[str, Any] = {
            "capture_output": True,
            "text": True,
            "timeout": COMMAND_TIMEOUT,
            "env": variables,
        }
        if "input" not in options and "stdin" not in options:
            settings["stdin"] = subprocess.DEVNULL
        return subprocess.run([*first, *words], **(settings | options))


@dataclass
class SliceEngine(PrivateEngine):
    """An engine whose parent of containers is a slice, or a directory with ``directory``."""

    directory: bool = False

    @property
    def cgroup_parent(self) -> str:
        return self.tag if self.directory else f"{self.tag}.slice"
