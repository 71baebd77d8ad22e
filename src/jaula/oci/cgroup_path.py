"""Where a container's cgroup is, and which device rules it gets besides those of its spec."""

from __future__ import annotations

from msgspec import structs

from jaula.cgroups import cgroup_path as places
from jaula.cgroups.device_rules import with_default_devices
from jaula.oci.settings import Settings
from jaula.spec.runtime import Linux, Resources, Spec


def place(spec: Spec, container_id: str, settings: Settings) -> str:
    """The cgroup's path below each hierarchy's mount point."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        own = file.read()
    return places.resolve(
        spec.linux.cgroups_path if spec.linux else None,
        container_id,
        systemd=settings.systemd_cgroup,
        rootless=settings.rootless,
        own=own,
    )


def completed(spec: Spec, settings: Settings) -> Spec:
    """The spec with rules for the devices that every container has; rootless there are none."""
    if settings.rootless:
        return spec
    linux = spec.linux or Linux()
    resources = linux.resources or Resources()
    resources = structs.replace(resources, devices=with_default_devices(resources.devices))
    return structs.replace(spec, linux=structs.replace(linux, resources=resources))
