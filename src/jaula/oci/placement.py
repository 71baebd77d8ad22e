"""Where a container's cgroup is, from the spec's ``linux.cgroupsPath``."""

from __future__ import annotations

from jaula.oci.settings import Settings
from jaula.spec.runtime import Spec


def place(spec: Spec, container_id: str, settings: Settings) -> str:
    """The cgroup's path below each hierarchy's mount point."""
    path = (spec.linux.cgroups_path if spec.linux else None) or ""
    return path if path.startswith("/") else f"/jaula-runtime/{path or container_id}"
