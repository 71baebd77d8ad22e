"""podman with private storage, state and configuration."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from harness.callers.caller import IMAGE, Caller

MAKES_CONTAINERS = (("run",), ("create",), ("pod", "create"))

TESTER, TESTER_ID = "tester", 61234
# podman takes the ids of --userns=auto from those of containers.
SUBORDINATE_IDS = {"containers": (1_000_000, 200_000), TESTER: (3_000_000, 65536)}


class Podman(Caller):
    """Root's podman. Containers have no network and a cgroup below the private parent."""

    uid = 0
    kept_groups = "conmon|[0-9a-f]{64}"  # of its monitors, and of pods; containers' are libpod-...

    def start(self) -> None:
        self.storage.mkdir()
        os.chown(self.storage, self.uid, self.uid)
        self.namespaces.add_user(
            TESTER, TESTER_ID, str(self.namespaces.base / "home"), SUBORDINATE_IDS
        )
        self.configuration.write_text(self._configuration())
        policy = {"default": [{"type": "insecureAcceptAnything"}]}
        (self.namespaces.base / "policy.json").write_text(json.dumps(policy))
        (self.namespaces.base / "registries.conf").write_text("")
        (self.namespaces.base / "storage.conf").write_text('[storage]\ndriver = "overlay"\n')
        self("load", "-q", "-i", str(self.archive), *self._policy())
        self("image", "exists", IMAGE)

    def stop(self) -> None:
        self("pod", "rm", "--all", "--force", "--time", "0")
        self("rm", "--all", "--force", "--time", "0")

    @property
    def storage(self) -> Path:
        return self.namespaces.base / "storage"

    @property
    def kept_mounts(self) -> tuple[str, ...]:
        """Return the mount of the storage directory, which makes it private."""
        return (str(self.storage / "overlay"),)

    @property
    def configuration(self) -> Path:
        return self.namespaces.base / "containers.conf"

    def _configuration(self) -> str:
        name = self.runtime.name
        return f"""
[containers]
netns = "none"
[engine]
runtime = "{name}"
events_logger = "file"
cgroup_manager = "cgroupfs"
runtime_supports_json = ["{name}"]
[engine.runtimes]
"{name}" = ["{self.runtime}"]
"""

    def _policy(self) -> tuple[str, ...]:
        return ("--signature-policy", str(self.namespaces.base / "policy.json"))

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            "CONTAINERS_CONF": str(self.configuration),
            "CONTAINERS_STORAGE_CONF": str(self.namespaces.base / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.namespaces.base / "registries.conf"),
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
            "PATH": super().environment()["PATH"] + ":/usr/sbin:/sbin",
        }

    @property
    def state(self) -> str:
        return f"/run/{self.namespaces.tag}"

    def words(self, *words: str) -> list[str]:
        before: tuple[str, ...] = ()
        if words[0] == "--hooks-dir":
            before, words = words[:2], words[2:]
        for first in MAKES_CONTAINERS:
            if words[: len(first)] == first and "--pod" not in words:
                parent = ("--cgroup-parent", f"/{self.namespaces.tag}")
                words = (*first, *parent, *words[len(first) :])
        return self._podman(*before, *words)

    def _podman(self, *words: str) -> list[str]:
        places = ("--root", str(self.storage), "--runroot", f"{self.state}/run")
        return ["podman", *places, "--tmpdir", f"{self.state}/tmp", *words]


class RootlessPodman(Podman):
    """The podman of a user that exists only in the private namespaces."""

    uid = TESTER_ID

    def start(self) -> None:
        home = self.namespaces.base / "home"
        home.mkdir()
        os.chown(home, self.uid, self.uid)
        own = self.namespaces.path(self.state)
        own.mkdir(0o700, parents=True)
        os.chown(own, self.uid, self.uid)
        super().start()

    def stop(self) -> None:
        super().stop()
        self("system", "migrate")  # ends the process that keeps the user namespace

    @property
    def state(self) -> str:
        return f"/run/user/{self.uid}"

    def words(self, *words: str) -> list[str]:
        return self._as_user(*self._podman(*words))

    def _as_user(self, *words: str) -> list[str]:
        become = ("--reuid", str(self.uid), "--regid", str(self.uid), "--clear-groups")
        return ["setpriv", *become, "--", *words]

    def environment(self) -> dict[str, str]:
        home = str(self.namespaces.base / "home")
        own = {"HOME": home, "USER": TESTER, "XDG_RUNTIME_DIR": self.state}
        return super().environment() | own

    def reaches_runtime(self) -> bool:
        """Return whether the user may read the runtime's files in this tree."""
        words = self.namespaces.enter(self._as_user(str(self.runtime), "--version"))
        return subprocess.run(words, capture_output=True, timeout=60).returncode == 0
