"""Validation of the section ``linux``: config-linux.md; user_namespaces(7), time_namespaces(7)."""

from __future__ import annotations

from jaula.errors import Unsupported
from jaula.runtime.init.personality import personality_value
from jaula.runtime.validation import sysctl, validate_resources, validate_seccomp
from jaula.runtime.validation.field import absolute, between, one_of, quote, refuse
from jaula.spec.runtime_spec import Device, IDMapping, Linux, Namespace, Process, Spec

NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")
PROPAGATIONS = ("private", "slave", "shared", "unbindable")
MAX_MAPPINGS = 340  # lines of /proc/<pid>/uid_map, user_namespaces(7)
_MAX_PATH = 4095  # bytes, PATH_MAX without the NUL
_INT64_MAX = (1 << 63) - 1


def check(spec: Spec) -> dict[str, Namespace]:
    """Validate the section; return the namespaces by type.

    :raises InvalidRequest: when a field is invalid.
    :raises Unsupported: when a field is not supported.
    """
    section = spec.linux or Linux()
    kinds = _namespaces(section.namespaces)
    if section.intel_rdt is not None:
        raise Unsupported("linux.intelRdt: intel rdt is not supported by this runtime")
    _id_mappings(section, kinds, spec.process)
    _time_offsets(section, kinds)
    for index, device in enumerate(section.devices):
        _device(f"linux.devices[{index}]", device)
    if section.resources is not None:
        validate_resources.check(section.resources)
    sysctl.check(section.sysctl, kinds)
    if section.rootfs_propagation:
        one_of(
            "linux.rootfsPropagation",
            section.rootfs_propagation,
            (*PROPAGATIONS, *(f"r{name}" for name in PROPAGATIONS)),
        )
    for field, paths in (
        ("maskedPaths", section.masked_paths),
        ("readonlyPaths", section.readonly_paths),
    ):
        for index, path in enumerate(paths):
            absolute(f"linux.{field}[{index}]", path)
    if section.cgroups_path:
        _cgroups_path(section.cgroups_path)
    if section.personality is not None:
        personality_value(section.personality)
    if section.memory_policy is not None:
        from jaula.runtime.init import memory_policy

        memory_policy.prepare(section.memory_policy)
    if section.seccomp is not None:
        validate_seccomp.check(section.seccomp)
    return kinds


def mappings(field: str, rows: tuple[IDMapping, ...]) -> None:
    """Refuse id mappings that the kernel would not accept.

    These are lists that are too long, and rows that are empty, overlap or wrap around.
    """
    if len(rows) > MAX_MAPPINGS:
        raise refuse(field, f"{len(rows)} mappings, the kernel accepts at most {MAX_MAPPINGS}")
    for index, row in enumerate(rows):
        between(f"{field}[{index}].size", row.size, 1, 0xFFFFFFFF)
        for name, first in (("containerID", row.container_id), ("hostID", row.host_id)):
            between(f"{field}[{index}].{name}", first, 0, 0xFFFFFFFF - row.size)
    for name, starts in (
        ("container", sorted((row.container_id, row.size) for row in rows)),
        ("host", sorted((row.host_id, row.size) for row in rows)),
    ):
        end = 0
        for first, size in starts:
            if first < end:
                raise refuse(field, f"{name} id {first} is mapped twice")
            end = first + size


def _namespaces(namespaces: tuple[Namespace, ...]) -> dict[str, Namespace]:
    kinds: dict[str, Namespace] = {}
    for index, namespace in enumerate(namespaces):
        field = f"linux.namespaces[{index}]"
        one_of(f"{field}.type", namespace.type, NAMESPACES)
        if namespace.type in kinds:
            raise refuse(f"{field}.type", f"'{namespace.type}' is specified twice")
        if namespace.path:
            absolute(f"{field}.path", namespace.path)
        kinds[namespace.type] = namespace
    return kinds


def _id_mappings(section: Linux, kinds: dict[str, Namespace], process: Process | None) -> None:
    maps = (("uidMappings", section.uid_mappings), ("gidMappings", section.gid_mappings))
    for field, rows in maps:
        mappings(f"linux.{field}", rows)
        if rows and "user" not in kinds:
            raise refuse(f"linux.{field}", "requires a namespace of type 'user'")
        if not rows and "user" in kinds and not kinds["user"].path:
            raise refuse(f"linux.{field}", "a new namespace of type 'user' needs a mapping")
    if "user" not in kinds or kinds["user"].path or process is None:
        return
    user = process.user
    for name, ids, rows, field in (
        ("uid", (user.uid,), section.uid_mappings, "uidMappings"),
        ("gid", (user.gid,), section.gid_mappings, "gidMappings"),
        ("additionalGids", user.additional_gids, section.gid_mappings, "gidMappings"),
    ):
        for number in ids:
            if not any(row.container_id <= number < row.container_id + row.size for row in rows):
                raise refuse(f"process.user.{name}", f"{number} is not mapped by linux.{field}")


def _time_offsets(section: Linux, kinds: dict[str, Namespace]) -> None:
    if not section.time_offsets:
        return
    if "time" not in kinds or kinds["time"].path:
        raise refuse("linux.timeOffsets", "need a new namespace of type 'time'")
    for clock, offset in section.time_offsets.items():
        if clock not in ("monotonic", "boottime"):
            raise refuse("linux.timeOffsets", f"{quote(clock)} must be one of monotonic, boottime")
        field = f"linux.timeOffsets.{clock}"
        between(f"{field}.secs", offset.secs, -_INT64_MAX, _INT64_MAX)
        between(f"{field}.nanosecs", offset.nanosecs, 0, 999_999_999)


def _device(field: str, device: Device) -> None:
    absolute(f"{field}.path", device.path)
    one_of(f"{field}.type", device.type, ("c", "b", "u", "p"))
    if device.type != "p":  # the kernel's 12 and 20 bits, include/linux/kdev_t.h
        between(f"{field}.major", device.major, 0, 0xFFF)
        between(f"{field}.minor", device.minor, 0, 0xFFFFF)
    if device.file_mode is not None:
        between(f"{field}.fileMode", device.file_mode, 0, 0o177777)
    for name, number in (("uid", device.uid), ("gid", device.gid)):
        if number is not None:
            between(f"{field}.{name}", number, 0, 0xFFFFFFFE)


def _cgroups_path(path: str) -> None:
    if len(path.encode()) > _MAX_PATH:
        raise refuse("linux.cgroupsPath", f"is longer than {_MAX_PATH} bytes")
    if not path.isprintable():
        raise refuse(
            "linux.cgroupsPath", f"{quote(path)} contains a character that is not printable"
        )
    if ".." in path.replace(":", "/").split("/"):
        raise refuse("linux.cgroupsPath", f"{quote(path)} contains '..'")
