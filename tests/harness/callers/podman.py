"""podman with storage, state and configuration of its own."""

from __future__ import annotations

import json
from pathlib import Path

from harness.callers.caller import IMAGE, Caller

MAKES_CONTAINERS = (("run",), ("create",), ("pod", "create"))

# podman takes the ids of --userns=auto from those of this name.
SUBORDINATE_IDS = "containers:1000000:200000\n"


class Podman(Caller):
    """Root's podman. Containers have no network and a cgroup below the room's."""

    kept_groups = "conmon|[0-9a-f]{64}"  # of its monitors, and of pods; containers' are libpod-...

    def start(self) -> None:
        self.storage.mkdir()
        for file in ("/etc/subuid", "/etc/subgid"):
            self.room.show_file(file, SUBORDINATE_IDS)
        self.configuration.write_text(self._configuration())
        policy = {"default": [{"type": "insecureAcceptAnything"}]}
        (self.room.base / "policy.json").write_text(json.dumps(policy))
        (self.room.base / "registries.conf").write_text("")
        (self.room.base / "storage.conf").write_text('[storage]\ndriver = "overlay"\n')
        self("load", "-q", "-i", str(self.archive), *self._policy())
        self("image", "exists", IMAGE)

    def stop(self) -> None:
        self("pod", "rm", "--all", "--force", "--time", "0")
        self("rm", "--all", "--force", "--time", "0")

    @property
    def storage(self) -> Path:
        return self.room.base / "storage"

    @property
    def kept_mounts(self) -> tuple[str, ...]:
        """The storage library makes its directory a mount point, so that it may be private."""
        return (str(self.storage / "overlay"),)

    @property
    def configuration(self) -> Path:
        return self.room.base / "containers.conf"

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
        return ("--signature-policy", str(self.room.base / "policy.json"))

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            "CONTAINERS_CONF": str(self.configuration),
            "CONTAINERS_STORAGE_CONF": str(self.room.base / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.room.base / "registries.conf"),
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
            "PATH": super().environment()["PATH"] + ":/usr/sbin:/sbin",
        }

    def words(self, *words: str) -> list[str]:
        for first in MAKES_CONTAINERS:
            if words[: len(first)] == first and "--pod" not in words:
                parent = ("--cgroup-parent", f"/{self.room.tag}")
                words = (*first, *parent, *words[len(first) :])
        state = f"/run/{self.room.tag}"
        places = ("--root", str(self.storage), "--runroot", f"{state}/run")
        return ["podman", *places, "--tmpdir", f"{state}/tmp", *words]
