"""Mounts: only those that were requested, with the requested flags.

Evidence: /proc/<pid>/mountinfo, and for binds device and inode of the source on the host and of the
destination in the container. A volume with options is a mount that only the shim and the engine
see, so its source is read from the shim's root. Volumes are always nosuid and nodev (statement
I17). Secrets and configs are read-only and in memory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, Verdict, quantity, verdict_of
from jaula.kernel.mountinfo import MountInfo
from jaula.kernel.openat2 import open_in_root
from jaula.state.container_records import ENGINE_SOCKET

FLAGS = frozenset({"nosuid", "nodev", "noexec", "ro"})
_NO_MAP = "a file system without id maps"
_MEMORY_FLAGS = frozenset({"nosuid", "nodev", "noexec", "ro"})

INFO = CheckInfo(
    id="mounts",
    layer="mounts",
    title="Mounts",
    reason=(
        "A mount that was not requested exposes files from outside. A mount without its flags "
        "can contain devices and set-user-id programs."
    ),
    references=("I17", "CIS 5.6", "CIS 5.20", "mount(2)"),
    evidence="/proc/<pid>/mountinfo, device and inode of each source",
    advice="restart it: the mount table is created again",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield the inventory, the flags of the standard mounts, and a row for each requested mount."""
    yield _inventory(container)
    requested = {clean(str(m.get("Destination"))): m for m in container.inspect.get("Mounts") or ()}
    yield _flags(container, requested)
    for destination, request in requested.items():
        yield _one(container, destination, request)
    yield from _delivered(container)


def secret_targets(container: AuditedContainer) -> list[str]:
    """Return the paths of secrets and configs."""
    references = [r for key in ("Secrets", "Configs") for r in container.host_config.get(key) or ()]
    return [clean(str(reference.get("Target"))) for reference in references]


def _delivered(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row if there are secrets or configs."""
    wrong = []
    for target in secret_targets(container):
        mount = container.mount_of(target)
        if mount is None or mount.fstype != "tmpfs":
            wrong.append(f"{target} is not in memory")
        elif missing := _MEMORY_FLAGS - _effective(mount):
            wrong.append(f"{target} lacks {','.join(sorted(missing))}")
    if secret_targets(container):
        yield Result(
            "secrets and configs", "mounts", f"in memory, {','.join(sorted(_MEMORY_FLAGS))}",
            "; ".join(wrong) or "all are", container.path("mountinfo"), verdict_of(not wrong, None),
        )  # fmt: skip


def _inventory(container: AuditedContainer) -> Result:
    exact = {"/", "/dev/console"}
    exact |= {clean(mount.destination) for mount in container.spec.mounts}
    exact |= {clean(device.path) for device in container.linux.devices}
    exact |= {clean(path) for path in container.linux.masked_paths}
    exact |= {clean(path) for path in container.linux.readonly_paths}
    exact |= {mount.target for mount in map(container.mount_at, sorted(exact)) if mount is not None}
    allowed_trees = [
        clean(mount.destination)
        for mount in container.spec.mounts
        if "rbind" in mount.options or mount.type in ("cgroup", "cgroup2")
    ]
    extra = [
        mount.target
        for mount in container.mounts
        if mount.target not in exact
        and not any(mount.target.startswith(tree + "/") for tree in allowed_trees)
    ]
    requested = [clean(str(m.get("Destination"))) for m in container.inspect.get("Mounts") or ()]
    extra_binds = [
        clean(mount.destination)
        for mount in container.spec.mounts
        if mount.type == "bind" and clean(mount.destination) not in requested
    ]
    of_devices = {clean(m.container_path) for e in container.device_edits for m in e.mounts}
    unexpected_binds = [
        path for path in extra_binds if path not in of_devices and not _engine_file(container, path)
    ]
    effective = quantity(len(container.mounts), "mount")
    if extra:
        effective += f"; not requested: {', '.join(extra)}"
    if unexpected_binds:
        effective += f"; bound from the host without a request: {', '.join(unexpected_binds)}"
    return Result(
        "mount inventory", "mounts", f"at most {quantity(len(exact), 'path')}", effective,
        container.path("mountinfo"), verdict_of(not extra and not unexpected_binds, None),
    )  # fmt: skip


def _engine_file(container: AuditedContainer, path: str) -> bool:
    """Return whether the engine itself makes this bind."""
    if path in ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/sbin/docker-init"):
        return True
    targets = secret_targets(container)
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
    # sysfs belongs to the owner of the network namespace, so it is bound if that is shared.
    return path == "/sys" and any(
        container.text(key).startswith("container:") or container.text(key) == "host"
        for key in ("PidMode", "IpcMode", "NetworkMode", "UsernsMode")
    )


def _flags(container: AuditedContainer, requested: Mapping[str, Any]) -> Result:
    """Check that every standard mount has the flags of its spec entry."""
    wrong, count = [], 0
    for mount in container.spec.mounts:
        destination = clean(mount.destination)
        if destination in requested or mount.type is None:
            continue
        actual = container.mount_at(destination)
        expected = FLAGS & set(mount.options)
        if "rro" in mount.options:
            expected |= {"ro"}
        count += 1
        if actual is None:
            if not (destination == "/etc/resolv.conf" or mount.type == "mqueue"):
                wrong.append(f"{destination} is not mounted")
        elif missing := expected - _effective(actual):
            wrong.append(f"{destination} lacks {','.join(sorted(missing))}")
    return Result(
        "mount flags", "mounts", f"as in the spec, {quantity(count, 'mount')}",
        "; ".join(wrong) or "all in effect", container.path("mountinfo"),
        verdict_of(not wrong, None),
    )  # fmt: skip


def _one(container: AuditedContainer, destination: str, request: Mapping[str, Any]) -> Result:
    kind = str(request.get("Type"))
    expected = set() if request.get("RW", True) else {"ro"}
    if kind == "volume":
        expected |= {"nosuid", "nodev"}
    in_spec = next((m for m in container.spec.mounts if clean(m.destination) == destination), None)
    if in_spec is not None:
        expected |= FLAGS & set(in_spec.options)
    label = f"{kind} {destination}"
    requested = ",".join(sorted(expected)) or "writable"
    actual = container.mount_at(destination)
    evidence = container.path("mountinfo")
    if actual is None or in_spec is None:
        missing = "not mounted" if actual is None else "not in the spec"
        return Result(label, "mounts", requested, missing, evidence, Verdict.FAILS)
    missing_flags = expected - _effective(actual)
    effective = f"{actual.fstype} {','.join(sorted(_effective(actual) & FLAGS)) or 'writable'}"
    if missing_flags:
        effective += f"; lacks {','.join(sorted(missing_flags))}"
    source = str(request.get("Source") or "")
    same = True
    if kind in ("bind", "volume", ENGINE_SOCKET) and source:
        same = is_source(container, source, destination)
        evidence += f", {source}"
        if not same:
            effective += f"; it is not {source}"
    unmapped = _unmapped(container, destination) if kind == "bind" else []
    if unmapped:
        effective += f"; no id map: {', '.join(unmapped[:4])}"
        effective += f" and {len(unmapped) - 4} more" if len(unmapped) > 4 else ""
    return Result(
        label,
        "mounts",
        requested,
        effective,
        evidence,
        verdict_of(not missing_flags and same, _NO_MAP if unmapped else None),
    )


def _unmapped(container: AuditedContainer, destination: str) -> list[str]:
    """Return the mounts of a bind mount that have no id map, as (path and type).

    Owners are not translated there: root inside is a user of the host without rights.
    """
    if not container.own_user_namespace or container.rootless:
        return []
    others = [clean(mount.destination) for mount in container.spec.mounts]
    inner = tuple(f"{o}/" for o in others if o.startswith(f"{destination}/"))
    return [
        f"{mount.target} ({mount.fstype})"
        for mount in container.mounts
        if "idmapped" not in mount.options
        and f"{mount.target}/".startswith(f"{destination}/")
        and not f"{mount.target}/".startswith(inner)
    ]


def is_source(container: AuditedContainer, source: str, destination: str) -> bool:
    """Return whether the destination is this file of the host, or of the shim's root."""
    destination_id = file_identity(container, destination)
    if destination_id == stat_identity(os.stat(source)):
        return True
    try:
        return destination_id == stat_identity(
            os.stat(f"{container.proc_root}/{container.status('PPid')}/root{source}")
        )
    except FileNotFoundError:
        return False


def file_identity(container: AuditedContainer, destination: str) -> tuple[int, int, int]:
    """Return device, inode and file type of a path in the container."""
    fd = open_in_root(container.root, destination, os.O_PATH)
    try:
        return stat_identity(os.fstat(fd))
    finally:
        os.close(fd)


def stat_identity(status: os.stat_result) -> tuple[int, int, int]:
    """Return device, inode and file type of a stat result."""
    return status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode)


def _effective(mount: MountInfo) -> frozenset[str]:
    """Return the flags of the mount, and ``ro`` of its superblock."""
    return mount.options | ({"ro"} & set(mount.super_options))


def clean(path: str) -> str:
    """Return an absolute path without empty components and dots."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
