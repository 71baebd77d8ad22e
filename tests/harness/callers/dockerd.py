"""dockerd with private directories, socket and containerd."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from harness.callers.caller import IMAGE, Caller, until


class Dockerd(Caller):
    """The daemon and the client. ``runtime`` is the daemon's default, under its own name.

    Containers have no network.
    """

    daemon: subprocess.Popen[bytes] | None = None
    network = ("--bridge", "none", "--iptables=false")  # flags of the daemon

    def start(self) -> None:
        self.launch()
        self("load", "-i", str(self.archive))
        assert self.out("image", "inspect", "-f", "{{.RepoTags}}", IMAGE) == "[busybox:latest]"

    def launch(self) -> None:
        """Start the daemon and wait until it answers."""
        state = f"/run/{self.namespaces.tag}"
        daemon = [
            *("dockerd", "--data-root", str(self.namespaces.base / "data"), "--exec-root", state),
            *("--pidfile", f"{state}/pid", "--host", self.address, "--config-file", "/dev/null"),
            *(*self.network, "--live-restore", "--log-level", "info"),
            *(
                "--cgroup-parent",
                f"/{self.namespaces.tag}",
                "--exec-opt",
                "native.cgroupdriver=cgroupfs",
            ),
            *self.flags(),
            *("--init-path", shutil.which("tini-static") or "tini-static"),
            *("--default-runtime", self.name, "--add-runtime", f"{self.name}={self.runtime}"),
        ]
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(
                self.namespaces.enter(daemon),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                start_new_session=True,
            )
        until(lambda: self("version", expect=None).returncode == 0, f"dockerd, see {self.log}")

    def flags(self) -> tuple[str, ...]:
        """Return further flags of the daemon."""
        return ()

    def crash(self) -> None:
        """Kill the daemon, so that it cannot stop its containers."""
        assert self.daemon is not None
        os.kill(self.daemon.pid, signal.SIGKILL)
        self.daemon.wait(20)

    def stop(self) -> None:
        names = self.out("ps", "-aq").split()
        if names:
            self("rm", "-f", *names)
        assert self.daemon is not None
        self.daemon.terminate()
        self.daemon.wait(30)

    @property
    def kept_mounts(self) -> tuple[str, ...]:
        """Return the mount of the daemon's directory, which makes it private."""
        return (str(self.namespaces.base / "data"),)

    @property
    def name(self) -> str:
        """Return the daemon's name of the runtime; the name runc is reserved."""
        return f"{self.runtime.name}-tested"

    @property
    def address(self) -> str:
        return f"unix:///run/{self.namespaces.tag}.sock"

    @property
    def log(self) -> Path:
        return self.namespaces.base / "log"

    def words(self, *words: str) -> list[str]:
        if words[0] in ("run", "create") and self.network:
            words = (words[0], "--network", "none", *words[1:])
        configuration = str(self.namespaces.base / "client")
        return ["docker", "--config", configuration, "--host", self.address, *words]

    def environment(self) -> dict[str, str]:
        """Return the variables of the daemon and of its client, which uses the classic builder."""
        kept = super().environment()
        return kept | {"PATH": f"{kept['PATH']}:/usr/sbin:/sbin", "DOCKER_BUILDKIT": "0"}


class RemappedDockerd(Dockerd):
    """A daemon whose containers are in user namespaces."""

    user, uid, first, number = "remapped", 61235, 2_000_000, 65536

    def start(self) -> None:
        ids = {self.user: (self.first, self.number)}
        self.namespaces.add_user(self.user, self.uid, "/nonexistent", ids)
        super().start()

    def flags(self) -> tuple[str, ...]:
        return ("--userns-remap", self.user)

    @property
    def kept_mounts(self) -> tuple[str, ...]:
        data = self.namespaces.base / "data"
        return (str(data), f"{data}/{self.first}.{self.first}")


class BridgedDockerd(Dockerd):
    """A daemon with its default bridge, in the private network namespace."""

    network = ()
