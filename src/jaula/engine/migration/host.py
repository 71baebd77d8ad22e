"""The facts of this host that decide whether processes of another host can go on here."""

from __future__ import annotations

import os
import resource
import sys
from typing import TYPE_CHECKING

from jaula.errors import JaulaError
from jaula.spec.migration import HostDescription

if TYPE_CHECKING:
    from jaula.engine.oci_spec.inputs import HostFacts

NOT_FEATURES = frozenset(  # flags of /proc/cpuinfo that no program can use
    ("arch_perfmon", "nopl", "rep_good", "tsc_known_freq", "hypervisor", "cpuid", "constant_tsc")
)
_RESERVE = 256 << 20  # bytes of memory that images leave to others
_SMALL_IMAGES = 64 << 20  # bytes of images beside those of memory


def describe(host: HostFacts) -> HostDescription:
    """Return the description of this host. Starts CRIU once for its version."""
    system = os.uname()
    return HostDescription(
        kernel=system.release,
        architecture=system.machine,
        page_size=resource.getpagesize(),
        criu=_criu_version(),
        cpu_features=cpu_features(),
        landlock=host.landlock,
        cgroup_version=host.cgroup_version,
        apparmor=host.apparmor,
    )


def boot_id() -> str:
    """Return the id of this boot of the host (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def available_memory() -> int:
    """Return the bytes that new processes can have (proc_meminfo(5), MemAvailable)."""
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) << 10
    return 0


class ImageMemory:
    """The memory that the images of migrations away from here may have."""

    def __init__(self) -> None:
        self._reserved: dict[str, int] = {}  # bytes, by migration

    def reserve(self, facts: HostFacts, migration: str, size: int) -> int:
        """Return how many bytes the images of a container of ``size`` bytes may have.

        These are reserved until :meth:`release`. 0: there is too little, with the limits of the
        engine's cgroup; or SELinux decides who may write to a tmpfs.
        """
        available = min(available_memory(), _cgroup_room()) - sum(self._reserved.values())
        limit = 0 if facts.selinux else choose_image_memory(size, available)
        if limit:
            self._reserved[migration] = size
        return limit

    def release(self, migration: str) -> None:
        """Release what was reserved, if anything was."""
        self._reserved.pop(migration, None)


def choose_image_memory(size: int, available: int) -> int:
    """Return the limit of the images, with ``available`` bytes; 0 if they do not fit. Pure."""
    spare = available - _RESERVE
    return spare if spare >= size + size // 8 + _SMALL_IMAGES else 0


def has_mounts_of(pid: int) -> bool:
    """Return whether this process is in the mount namespace of another one."""
    try:
        return os.path.samefile(f"/proc/{pid}/ns/mnt", "/proc/self/ns/mnt")
    except (FileNotFoundError, PermissionError):
        return False


def _cgroup_room() -> int:
    """Return the bytes that the memory limits of this process's cgroup and those above leave."""
    room = sys.maxsize
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    for _, controllers, path in lines:
        if not controllers:
            root, limit, usage = "/sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, usage = (
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
        else:
            continue
        while path not in ("", "/"):
            room = min(room, _room(f"{root}{path}", limit, usage))
            path = os.path.dirname(path)
    return max(0, room)


def _room(directory: str, limit: str, usage: str) -> int:
    try:
        with open(f"{directory}/{limit}", encoding="ascii") as file:
            most = file.read().strip()
        with open(f"{directory}/{usage}", encoding="ascii") as file:
            return sys.maxsize if most == "max" else int(most) - int(file.read())
    except FileNotFoundError:
        return sys.maxsize


def _criu_version() -> str:
    from jaula.engine.containers.checkpoint import criu_version

    try:
        return criu_version()
    except JaulaError:
        return ""


def cpu_features() -> tuple[str, ...]:
    """Return the features that all processors have and programs can use, sorted."""
    found: set[str] | None = None
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                found = set(value.split()) if found is None else found & set(value.split())
    return tuple(sorted((found or set()) - NOT_FEATURES))
