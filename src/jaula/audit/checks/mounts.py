"""The mounts: nothing but what was asked for, with the flags that were asked for.

Evidence: /proc/<pid>/mountinfo, and for binds the identity (device and inode) of the source on the
host against the destination in the container. A volume with options is a mount that only the shim
and the engine see, so there the source is looked at with the shim's eyes. Volumes are nosuid and
nodev always (statement I17). Secrets and configs are read-only and in memory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, Verdict, verdict_of
from jaula.kernel.mountinfo import MountInfo, top
from jaula.kernel.paths import open_in_root

FLAGS = frozenset({"nosuid", "nodev", "noexec", "ro"})
_MEMORY_FLAGS = frozenset({"nosuid", "nodev", "noexec", "ro"})
OPEN_TREES = ("/dev/pts", "/sys/fs/cgroup")
"""Below these the container's own file systems of the kernel may have mounts of their own."""


INFO = CheckInfo(
    id="mounts",
    layer="mounts",
    title="Mounts",
    reason=(
        "A mount that nobody asked for shows files of someone else; one without its flags "
        "can carry devices and set-user-id programs."
    ),
    references=("I17", "CIS 5.6", "CIS 5.20", "mount(2)"),
    evidence="/proc/<pid>/mountinfo, device and inode of each source",
    advice="restart it: the mount table is made anew",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """The inventory, the flags of the standard mounts, and a row for each mount of the user's."""
    yield _inventory(container)
    asked = {_clean(str(m.get("Destination"))): m for m in container.inspect.get("Mounts") or ()}
    yield _flags(container, asked)
    for destination, request in asked.items():
        yield _one(container, destination, request)
    yield from _delivered(container)


def _targets(container: AuditedContainer) -> list[str]:
    """Where secrets and configs are to be."""
    references = [r for key in ("Secrets", "Configs") for r in container.host_config.get(key) or ()]
    return [_clean(str(reference.get("Target"))) for reference in references]


def _delivered(container: AuditedContainer) -> Iterator[Result]:
    """One row where there are secrets or configs."""
    wrong = []
    for target in _targets(container):
        found = top(container.mounts, target) or top(container.mounts, os.path.dirname(target))
        if found is None or found.fstype != "tmpfs":
            wrong.append(f"{target} is not in memory")
        elif lost := _MEMORY_FLAGS - _effective(found):
            wrong.append(f"{target} lacks {','.join(sorted(lost))}")
    if _targets(container):
        yield Result(
            "secrets and configs", "mounts", f"in memory, {','.join(sorted(_MEMORY_FLAGS))}",
            "; ".join(wrong) or "all are", container.path("mountinfo"), verdict_of(not wrong, None),
        )  # fmt: skip


def _inventory(container: AuditedContainer) -> Result:
    exact = {"/", "/dev/console"}
    exact |= {_clean(mount.destination) for mount in container.spec.mounts}
    exact |= {_clean(device.path) for device in container.linux.devices}
    exact |= {_clean(path) for path in container.linux.masked_paths}
    exact |= {_clean(path) for path in container.linux.readonly_paths}
    trees = [
        _clean(mount.destination)
        for mount in container.spec.mounts
        if "rbind" in mount.options or mount.type in ("cgroup", "cgroup2")
    ]
    extra = [
        mount.target
        for mount in container.mounts
        if mount.target not in exact
        and not any(mount.target.startswith(tree + "/") for tree in trees)
    ]
    asked_for = [_clean(str(m.get("Destination"))) for m in container.inspect.get("Mounts") or ()]
    engine = [
        _clean(mount.destination)
        for mount in container.spec.mounts
        if mount.type == "bind" and _clean(mount.destination) not in asked_for
    ]
    foreign = [path for path in engine if not _engine_file(container, path)]
    effective = f"{len(container.mounts)} mounts"
    if extra:
        effective += f"; not asked for: {', '.join(extra)}"
    if foreign:
        effective += f"; bound from the host though not asked for: {', '.join(foreign)}"
    return Result(
        "mount inventory", "mounts", f"at most {len(exact)} places", effective,
        container.path("mountinfo"), verdict_of(not extra and not foreign, None),
    )  # fmt: skip


def _engine_file(container: AuditedContainer, path: str) -> bool:
    """Whether a bind that the user did not write is one that the engine makes."""
    if path in ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/sbin/docker-init"):
        return True
    targets = _targets(container)
    if path in targets or any(os.path.dirname(target) == path for target in targets):
        return True
    shares = {
        "/proc": container.text("PidMode"),
        "/sys": container.text("NetworkMode"),
        "/sys/fs/cgroup": container.text("CgroupnsMode"),
        "/dev/shm": container.text("IpcMode"),
        "/dev/mqueue": container.text("IpcMode"),
    }
    mode = shares.get(path, "")
    if mode == "host" or mode.startswith("container:") or mode == "shareable":
        return True
    # sysfs belongs to the owner of the network namespace: bound where that is another's
    return path == "/sys" and any(
        container.text(key).startswith("container:") or container.text(key) == "host"
        for key in ("PidMode", "IpcMode", "NetworkMode", "UsernsMode")
    )


def _flags(container: AuditedContainer, asked: Mapping[str, Any]) -> Result:
    """Every standard mount has the restrictions that its spec entry names."""
    wrong, count = [], 0
    for mount in container.spec.mounts:
        destination = _clean(mount.destination)
        if destination in asked or mount.type is None:
            continue
        found = top(container.mounts, destination)
        wanted = FLAGS & set(mount.options)
        if "rro" in mount.options:
            wanted |= {"ro"}
        count += 1
        if found is None:
            if not (destination == "/etc/resolv.conf" or mount.type == "mqueue"):
                wrong.append(f"{destination} is not mounted")
        elif lost := wanted - _effective(found):
            wrong.append(f"{destination} lacks {','.join(sorted(lost))}")
    return Result(
        "mount flags", "mounts", f"as the spec says, {count} mounts",
        "; ".join(wrong) or "all in effect", container.path("mountinfo"), verdict_of(not wrong, None),
    )  # fmt: skip


def _one(container: AuditedContainer, destination: str, request: Mapping[str, Any]) -> Result:
    kind = str(request.get("Type"))
    wanted = set() if request.get("RW", True) else {"ro"}
    if kind == "volume":
        wanted |= {"nosuid", "nodev"}
    in_spec = next((m for m in container.spec.mounts if _clean(m.destination) == destination), None)
    if in_spec is not None:
        wanted |= FLAGS & set(in_spec.options)
    label = f"{kind} {destination}"
    requested = ",".join(sorted(wanted)) or "writable"
    found = top(container.mounts, destination)
    evidence = container.path("mountinfo")
    if found is None or in_spec is None:
        missing = "not mounted" if found is None else "not in the spec"
        return Result(label, "mounts", requested, missing, evidence, Verdict.FAILS)
    lost = wanted - _effective(found)
    effective = f"{found.fstype} {','.join(sorted(_effective(found) & FLAGS)) or 'writable'}"
    if lost:
        effective += f"; lacks {','.join(sorted(lost))}"
    source = str(request.get("Source") or "")
    same = True
    if kind in ("bind", "volume") and source:
        same = _same(container, source, destination)
        evidence += f", {source}"
        if not same:
            effective += f"; it is not {source}"
    return Result(
        label, "mounts", requested, effective, evidence, verdict_of(not lost and same, None)
    )


def _same(container: AuditedContainer, source: str, destination: str) -> bool:
    """Whether the destination is the very file or directory of the host, or of its shim's view."""
    here = file_identity(container, destination)
    if here == stat_identity(os.stat(source)):
        return True
    try:
        return here == stat_identity(
            os.stat(f"{container.proc_root}/{container.status('PPid')}/root{source}")
        )
    except FileNotFoundError:
        return False


def file_identity(container: AuditedContainer, destination: str) -> tuple[int, int, int]:
    """Which file or directory a place of the container is."""
    fd = open_in_root(container.root, destination, os.O_PATH)
    try:
        return stat_identity(os.fstat(fd))
    finally:
        os.close(fd)


def stat_identity(found: os.stat_result) -> tuple[int, int, int]:
    """The same, of what stat(2) said."""
    return found.st_dev, found.st_ino, stat.S_IFMT(found.st_mode)


def _effective(mount: MountInfo) -> frozenset[str]:
    """Flags of the mount, and ``ro`` of its superblock."""
    return mount.options | (mount.super_options & {"ro"})


def _clean(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
