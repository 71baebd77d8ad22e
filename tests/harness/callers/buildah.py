"""buildah with private storage and configuration; it runs commands through the runtime."""

from __future__ import annotations

import json
from pathlib import Path
from resource import RLIMIT_NOFILE, RLIMIT_NPROC, getrlimit

from harness.callers.caller import IMAGE, Caller

MAKES_CONTAINERS = ("from", "build")


class Buildah(Caller):
    """Root's buildah with OCI isolation. Containers have no network."""

    kept_groups = "buildah-.*"  # it leaves the cgroups of commands where it mounts none itself

    def start(self) -> None:
        self.storage.mkdir()
        self.policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        (self.namespaces.base / "registries.conf").write_text("")
        (self.namespaces.base / "storage.conf").write_text('[storage]\ndriver = "overlay"\n')
        (self.namespaces.base / "containers.conf").write_text(self._configuration())
        image = self.out("pull", "-q", f"docker-archive:{self.archive}")
        self("tag", image, IMAGE)

    def stop(self) -> None:
        self("rm", "--all")
        self("rmi", "--all", "--force")

    def _configuration(self) -> str:
        """Set the limits: without them buildah raises them, which not every root may do."""
        files, processes = (getrlimit(kind)[1] for kind in (RLIMIT_NOFILE, RLIMIT_NPROC))
        return f"""
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
[engine]
cgroup_manager = "cgroupfs"
"""

    @property
    def storage(self) -> Path:
        return self.namespaces.base / "storage"

    @property
    def policy(self) -> Path:
        return self.namespaces.base / "policy.json"

    @property
    def kept_mounts(self) -> tuple[str, ...]:
        """Return the mounts that the storage library keeps: its directory, to make it private."""
        return (str(self.storage / "overlay"),)

    def environment(self) -> dict[str, str]:
        base = self.namespaces.base
        return super().environment() | {
            "CONTAINERS_CONF": str(base / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(base / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(base / "registries.conf"),
            "BUILDAH_ISOLATION": "oci",
            "BUILDAH_RUNTIME": str(self.runtime),
            "PATH": super().environment()["PATH"] + ":/usr/sbin:/sbin",
            "TMPDIR": str(base),
        }

    def words(self, *words: str) -> list[str]:
        if words[0] in MAKES_CONTAINERS:
            private = ("--cgroup-parent", f"/{self.namespaces.tag}", "--network", "none")
            words = (words[0], *private, *words[1:])
        if words[0] in (*MAKES_CONTAINERS, "pull", "commit"):
            words = (words[0], "--signature-policy", str(self.policy), *words[1:])
        places = ("--root", str(self.storage), "--runroot", f"/run/{self.namespaces.tag}/run")
        return ["buildah", *places, *words]
