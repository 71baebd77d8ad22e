"""From a spec to the ordered mounts of a container: decisions only.

Follows runtime-spec config.md "Mounts" and config-linux.md "Default Devices", "Masked Paths",
"Readonly Paths". Each operation of the plan says what it does (``describe``) and does it
(``execute``) inside the new root, where every destination is resolved with RESOLVE_IN_ROOT.
"""

from __future__ import annotations

from typing import NamedTuple

from jaula.errors import RuntimeFailure
from jaula.kernel.mounts import MOUNT_ATTR, MOUNT_ATTR__ATIME, MS
from jaula.runtime import operations
from jaula.spec.runtime import Mount, Spec

_SET: dict[str, tuple[int, int]] = {  # option: (attributes set, attributes cleared)
    "ro": (MOUNT_ATTR.RDONLY, 0),
    "rw": (0, MOUNT_ATTR.RDONLY),
    "nosuid": (MOUNT_ATTR.NOSUID, 0),
    "suid": (0, MOUNT_ATTR.NOSUID),
    "nodev": (MOUNT_ATTR.NODEV, 0),
    "dev": (0, MOUNT_ATTR.NODEV),
    "noexec": (MOUNT_ATTR.NOEXEC, 0),
    "exec": (0, MOUNT_ATTR.NOEXEC),
    "nosymfollow": (MOUNT_ATTR.NOSYMFOLLOW, 0),
    "symfollow": (0, MOUNT_ATTR.NOSYMFOLLOW),
    "nodiratime": (MOUNT_ATTR.NODIRATIME, 0),
    "diratime": (0, MOUNT_ATTR.NODIRATIME),
    "noatime": (MOUNT_ATTR.NOATIME, MOUNT_ATTR__ATIME),
    "strictatime": (MOUNT_ATTR.STRICTATIME, MOUNT_ATTR__ATIME),
    "relatime": (0, MOUNT_ATTR__ATIME),
    "atime": (0, MOUNT_ATTR__ATIME),
}
_PROPAGATION: dict[str, tuple[int, bool]] = {
    f"{prefix}{name}": (int(flag), prefix == "r")
    for prefix in ("", "r")
    for name, flag in (
        ("private", MS.PRIVATE),
        ("slave", MS.SLAVE),
        ("shared", MS.SHARED),
        ("unbindable", MS.UNBINDABLE),
    )
}
_IGNORED = frozenset({"defaults", "async", "nomand", "mand", "silent", "loud", "norelatime"})


class MountOptions(NamedTuple):
    """What the option strings of one mount ask for."""

    set: int = 0
    clear: int = 0
    recursive_set: int = 0
    recursive_clear: int = 0
    propagation: int = 0
    propagation_recursive: bool = False
    bind: bool = False
    recursive: bool = False
    idmap: bool = False
    copy_up: bool = False
    data: tuple[tuple[str, str | None], ...] = ()


def parse_options(options: tuple[str, ...]) -> MountOptions:
    """Read OCI mount options; what is no known flag goes to the file system."""
    attributes = [0, 0, 0, 0]
    propagation, propagation_recursive = 0, False
    bind = recursive = idmap = copy_up = False
    data: list[tuple[str, str | None]] = []
    for option in options:
        if option in _SET:
            on, off = _SET[option]
            attributes[0] = attributes[0] & ~off | on
            attributes[1] = attributes[1] & ~on | off
        elif option.startswith("r") and option[1:] in _SET and option != "relatime":
            on, off = _SET[option[1:]]
            attributes[2] = attributes[2] & ~off | on
            attributes[3] = attributes[3] & ~on | off
        elif option in _PROPAGATION:
            propagation, propagation_recursive = _PROPAGATION[option]
        elif option in ("bind", "rbind"):
            bind, recursive = True, option == "rbind"
        elif option in ("idmap", "ridmap"):
            idmap = True
        elif option == "tmpcopyup":
            copy_up = True
        elif option not in _IGNORED:
            key, separator, value = option.partition("=")
            data.append((key, value if separator else None))
    return MountOptions(
        attributes[0],
        attributes[1],
        attributes[2],
        attributes[3],
        propagation,
        propagation_recursive,
        bind,
        recursive,
        idmap,
        copy_up,
        tuple(data),
    )


def known_options() -> tuple[str, ...]:
    """Every option that :func:`parse_options` understands itself, sorted."""
    recursive = {f"r{name}" for name in _SET}
    switches = {"bind", "rbind", "idmap", "ridmap", "tmpcopyup"}
    return tuple(sorted({*_SET, *recursive, *_PROPAGATION, *switches, *_IGNORED}))


def needs_preparation(mount: Mount, options: MountOptions) -> bool:
    """Whether the shim makes this mount with the host's view: binds, and the device directory."""
    return options.bind or mount.type == "bind" or is_device_directory(mount)


def is_device_directory(mount: Mount) -> bool:
    """/dev is a tmpfs made outside, since device nodes cannot be made in a user namespace."""
    return mount.destination.rstrip("/") == "/dev" and mount.type == "tmpfs"


def plan(
    spec: Spec, *, v1_hierarchies: tuple[tuple[str, str], ...]
) -> tuple[operations.Operation, ...]:
    """Everything that is done in the new root, in order.

    ``v1_hierarchies`` are (directory name, mount options) of the host's cgroup v1 hierarchies,
    empty on a unified host.
    """
    steps: list[operations.Operation] = []
    terminal = spec.process is not None and spec.process.terminal
    linux = spec.linux
    for index, mount in enumerate(spec.mounts):
        options = parse_options(mount.options)
        if needs_preparation(mount, options):
            steps.append(operations.AttachPrepared(index, mount.destination))
        elif mount.type == "cgroup":
            steps.extend(_cgroup(mount, options, v1_hierarchies))
        else:
            steps.append(
                operations.MountFilesystem(
                    mount.type or "none",
                    mount.destination,
                    options.data,
                    options.set,
                    options.copy_up,
                )
            )
    steps.extend(
        operations.Link(target, path)
        for target, path in (
            ("/proc/self/fd", "dev/fd"),
            ("/proc/self/fd/0", "dev/stdin"),
            ("/proc/self/fd/1", "dev/stdout"),
            ("/proc/self/fd/2", "dev/stderr"),
            ("pts/ptmx", "dev/ptmx"),
        )
    )
    if terminal:
        steps.append(operations.Console())
    if linux is not None:
        steps.extend(operations.Sysctl(name, value) for name, value in sorted(linux.sysctl.items()))
        steps.extend(operations.ReadonlyPath(path) for path in linux.readonly_paths)
        steps.extend(operations.MaskPath(path) for path in linux.masked_paths)
        wanted = linux.rootfs_propagation or "private"
        if wanted not in _PROPAGATION:
            raise RuntimeFailure(f"rootfsPropagation {wanted!r} is none of private, slave, shared")
        steps.append(operations.RootPropagation(_PROPAGATION[wanted][0], True))
    if spec.root is not None and spec.root.readonly:
        steps.append(operations.ReadonlyRoot())
    return tuple(steps)


def _cgroup(
    mount: Mount, options: MountOptions, hierarchies: tuple[tuple[str, str], ...]
) -> list[operations.Operation]:
    """The cgroup tree as the container's cgroup namespace shows it."""
    if not hierarchies:
        return [operations.MountFilesystem("cgroup2", mount.destination, (), options.set, False)]
    steps: list[operations.Operation] = [
        operations.MountFilesystem(
            "tmpfs",
            mount.destination,
            (("mode", "755"),),
            options.set & ~MOUNT_ATTR.RDONLY,
            False,
        )
    ]
    for name, data in hierarchies:
        pairs = tuple(
            (key, value if separator else None)
            for key, separator, value in (item.partition("=") for item in data.split(","))
        )
        destination = f"{mount.destination}/{name}"
        steps.append(operations.MountFilesystem("cgroup", destination, pairs, options.set, False))
    if options.set & MOUNT_ATTR.RDONLY:
        steps.append(operations.Freeze(mount.destination))
    return steps
