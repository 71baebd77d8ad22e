"""containerd with private root, state and socket, and its client ctr."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from harness.callers.caller import IMAGE, Caller, until

SHIM = "io.containerd.runc.v2"


class Containerd(Caller):
    """A daemon in private namespaces.

    Containers and cgroups are in the containerd namespace of the tag.
    """

    daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        state = self.namespaces.base / "config.toml"
        state.write_text(self._configuration())
        with self.log.open("wb") as log:
            self.daemon = subprocess.Popen(
                self.namespaces.enter(["containerd", "--config", str(state)]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
            )
        until(lambda: self("version", expect=None).returncode == 0, f"containerd, see {self.log}")
        self("image", "import", str(self.archive), expect=None)
        assert IMAGE in self.out("image", "ls", "-q")

    def stop(self) -> None:
        for container in self.out("container", "ls", "-q").split():
            self("task", "rm", "-f", container, expect=None)
            self("container", "rm", container)
        self("image", "rm", "--sync", IMAGE)
        assert self.daemon is not None
        self.daemon.terminate()
        self.daemon.wait(20)

    @property
    def log(self) -> Path:
        return self.namespaces.base / "log"

    @property
    def socket(self) -> str:
        return f"/run/{self.namespaces.tag}/c.sock"

    def _configuration(self) -> str:
        return f"""
version = 2
root = "{self.namespaces.base}/root"
state = "/run/{self.namespaces.tag}/state"
temp = "{self.namespaces.base}/temp"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{self.socket}"
"""

    def words(self, *words: str) -> list[str]:
        if words[0] == "run":
            words = ("run", *self.runtime_flags(), *words[1:])
        return ["ctr", "--address", self.socket, "--namespace", self.namespaces.tag, *words]

    def runtime_flags(self) -> tuple[str, ...]:
        return ("--runtime", SHIM, "--runc-binary", str(self.runtime))

    def environment(self) -> dict[str, str]:
        return super().environment() | {"PATH": super().environment()["PATH"] + ":/usr/sbin:/sbin"}

    def processes(self, container: str) -> list[int]:
        """Return the process ids of a container, as its shim gets them from the runtime."""
        lines = self.out("task", "ps", container).splitlines()[1:]
        return [int(line.split()[0]) for line in lines]

    def metrics(self, container: str) -> dict[str, object]:
        output: dict[str, object] = json.loads(
            self.out("task", "metrics", "--format", "json", container)
        )
        return output
