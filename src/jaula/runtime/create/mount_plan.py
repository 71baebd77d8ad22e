"""From a spec to the ordered mounts of a container: decisions only.

Follows runtime-spec config.md "Mounts" and config-linux.md "Default Devices", "Masked Paths",
"Readonly Paths". Each operation of the plan says what it does (``describe``) and does it
(``execute``) inside the new root, where every destination is resolved with RESOLVE_IN_ROOT.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaula.errors import InvalidRequest, RuntimeFailure
from jaula.kernel.mounts import MOUNT_ATTR, MS
from jaula.kernel.paths import components
from jaula.runtime.create import devices, mount_options
from jaula.runtime.create.mount_options import (
    PROPAGATION,
    MountOptions,
    known_options,
    parse_options,
)
from jaula.runtime.init import dev_steps, mask_steps, mount_steps, step
from jaula.spec.runtime import Linux, Mount, Spec

__all__ = ["host_propagation", "known_options", "needs_preparation", "parse_options", "plan"]

_LABELLED = frozenset({"tmpfs", "ramfs", "devpts", "overlay"})  # in a user namespace too
_LINKS = (
    dev_steps.Link("/proc/self/fd", "dev/fd"),
    dev_steps.Link("/proc/self/fd/0", "dev/stdin"),
    dev_steps.Link("/proc/self/fd/1", "dev/stdout"),
    dev_steps.Link("/proc/self/fd/2", "dev/stderr"),
    dev_steps.Link("/proc/kcore", "dev/core", needs="/proc/kcore"),
    dev_steps.Link("pts/ptmx", "dev/ptmx", replace=True),
)


def host_propagation(linux: Linux | None) -> int:
    """Flags of mount(2) for the host's tree in the container's mount namespace, before its root.

    Nothing that the container mounts travels out. What the host mounts travels in until the root
    is entered, and below it from then on, where the spec wants a root that is a slave or shared.
    """
    asked = linux.rootfs_propagation if linux is not None else None
    return int(MS.REC | (MS.PRIVATE if asked in (None, "", "private", "rprivate") else MS.SLAVE))


def needs_preparation(mount: Mount, options: MountOptions) -> bool:
    """Whether the shim makes this mount with the host's view: binds, and the device directory."""
    return not options.remount and (options.bind or is_device_directory(mount))


def is_device_directory(mount: Mount) -> bool:
    """/dev is a tmpfs made outside, since device nodes cannot be made in a user namespace."""
    if components(mount.destination) != ["dev"] or mount.type != "tmpfs":
        return False
    return not {"bind", "rbind", "remount", "tmpcopyup"} & set(mount.options)


def _dev_is_bound(spec: Spec) -> bool:
    """Whether /dev comes from outside with all that is in it."""
    return any(
        components(m.destination) == ["dev"] and mount_options.of(m).bind for m in spec.mounts
    )


def _nodes(spec: Spec, made: Sequence[dev_steps.Node]) -> tuple[dev_steps.Node, ...]:
    """The nodes that are made: not those below a /dev from outside."""
    bound = _dev_is_bound(spec)
    return tuple(node for node in made if not (bound and components(node.path)[0] == "dev"))


def needs_store(spec: Spec, made: Sequence[dev_steps.Node]) -> bool:
    """Whether something but a /dev made outside needs a device node: a device, or a mask."""
    if not any(is_device_directory(mount) for mount in spec.mounts):
        return True
    return any(
        components(node.path)[0] != "dev"
        or (node.path == "/dev/null" and node.number != devices.NULL_NUMBER)
        for node in made
    )


def plan(
    spec: Spec,
    *,
    v1_hierarchies: tuple[tuple[str, str], ...],
    cgroups: tuple[tuple[str, str], ...] = (),
    selinux: bool = False,
) -> tuple[step.Step, ...]:
    """Everything that is done in the new root, in order.

    ``v1_hierarchies`` are (directory name, mount options) of the host's cgroup v1 hierarchies,
    empty on a unified host. ``cgroups`` are (directory name, path) of the container's own cgroup in
    each hierarchy, the name empty on a unified host; they are bound where the container has no
    cgroup namespace. ``selinux`` says that ``linux.mountLabel`` means something here. Raises
    ``InvalidRequest``.
    """
    steps: list[step.Step] = []
    terminal = spec.process is not None and spec.process.terminal
    linux = spec.linux
    label = linux.mount_label if linux is not None and selinux else None
    wanted = (linux.rootfs_propagation if linux is not None else None) or "private"
    if wanted not in PROPAGATION:
        raise RuntimeFailure(f"rootfsPropagation {wanted!r} is none of private, slave, shared")
    steps.append(mask_steps.RootPropagation(*PROPAGATION[wanted]))
    isolated = linux is None or any(entry.type == "cgroup" for entry in linux.namespaces)
    legacy = bool(v1_hierarchies) or any(name for name, _ in cgroups)
    late: list[step.Step] = []
    unfrozen: list[str] = []  # cgroup trees, on which something may still be mounted
    for index, mount in enumerate(spec.mounts):
        options = mount_options.of(mount)
        while unfrozen and _covers(mount.destination, unfrozen[-1]):
            steps.append(mask_steps.Freeze(unfrozen.pop()))
        if options.remount:
            steps.append(_remount(mount, options))
        elif needs_preparation(mount, options):
            steps.append(mount_steps.AttachPrepared(index, mount.destination))
            if not options.bind and options.set & MOUNT_ATTR.RDONLY:
                late.append(mask_steps.Freeze(mount.destination))
        elif mount.type == "cgroup" and not isolated and cgroups:
            steps.extend(_bound_cgroup(mount, options, cgroups))
        elif mount.type == "cgroup":
            steps.extend(_cgroup(mount, options, v1_hierarchies))
        else:
            steps.append(_fresh(mount, options, label))
        if mount.type == "cgroup" and legacy and options.set & MOUNT_ATTR.RDONLY:
            unfrozen.append(mount.destination)
    steps.extend(mask_steps.Freeze(destination) for destination in reversed(unfrozen))
    listed = linux.devices if linux is not None else ()
    steps.extend(_nodes(spec, devices.wanted(listed)))
    if not _dev_is_bound(spec):
        steps.extend(_LINKS)
    if terminal:
        steps.append(dev_steps.Console())
    steps.extend(late)
    if linux is not None:
        steps.extend(mask_steps.Sysctl(name, value) for name, value in sorted(linux.sysctl.items()))
        steps.extend(mask_steps.ReadonlyPath(path) for path in linux.readonly_paths)
        steps.extend(mask_steps.MaskPath(path) for path in linux.masked_paths)
    if spec.root is not None and spec.root.readonly:
        steps.append(mask_steps.ReadonlyRoot())
    return tuple(steps)


def _fresh(mount: Mount, options: MountOptions, label: str | None) -> step.Step:
    if not mount.type or mount.type == "none":
        raise InvalidRequest(
            f"mount at {mount.destination} has no type", hint="name one, or the option bind"
        )
    data = options.data
    if label and mount.type in _LABELLED and not any(key == "context" for key, _ in data):
        data = (*data, ("context", label))
    return mount_steps.MountFilesystem(
        mount.type,
        mount.destination,
        data,
        options.set,
        options.copy_up,
        mount.source or "",
        options.superblock,
        (options.recursive_set, options.recursive_clear),
        options.propagation,
    )


def _remount(mount: Mount, options: MountOptions) -> step.Step:
    return mount_steps.Remount(
        mount.destination,
        options.bind,
        options.data,
        (options.set, options.clear),
        (options.recursive_set, options.recursive_clear),
        options.superblock,
        options.propagation,
    )


def _cgroup(
    mount: Mount, options: MountOptions, hierarchies: tuple[tuple[str, str], ...]
) -> list[step.Step]:
    """The cgroup tree as the container's cgroup namespace shows it."""
    if not hierarchies:
        return [mount_steps.MountFilesystem("cgroup2", mount.destination, (), options.set)]
    steps = [_cgroup_directory(mount, options)]
    for name, data in hierarchies:
        pairs = tuple(
            (key, value if separator else None)
            for key, separator, value in (item.partition("=") for item in data.split(","))
        )
        destination = f"{mount.destination}/{name}"
        steps.append(mount_steps.MountFilesystem("cgroup", destination, pairs, options.set))
    steps.extend(_shared(mount, [name for name, _ in hierarchies]))
    return steps


def _bound_cgroup(
    mount: Mount, options: MountOptions, cgroups: tuple[tuple[str, str], ...]
) -> list[step.Step]:
    """The container's own directories, without a cgroup namespace that would show just them."""
    if len(cgroups) == 1 and not cgroups[0][0]:
        return [mount_steps.BindHost(cgroups[0][1], mount.destination, options.set)]
    steps = [_cgroup_directory(mount, options)]
    steps.extend(
        mount_steps.BindHost(path, f"{mount.destination}/{name}", options.set)
        for name, path in cgroups
    )
    steps.extend(_shared(mount, [name for name, _ in cgroups]))
    return steps


def _cgroup_directory(mount: Mount, options: MountOptions) -> step.Step:
    attributes = options.set & ~MOUNT_ATTR.RDONLY
    return mount_steps.MountFilesystem("tmpfs", mount.destination, (("mode", "755"),), attributes)


def _shared(mount: Mount, names: Sequence[str]) -> list[step.Step]:
    """Links from each controller to the hierarchy that it shares with others."""
    place = "/".join(components(mount.destination))
    return [
        dev_steps.Link(name, f"{place}/{controller}")
        for name in names
        if "," in name
        for controller in name.split(",")
    ]


def _covers(destination: str, below: str) -> bool:
    """Whether a mount at ``destination`` hides what is at ``below``, or is at the same place."""
    first = components(destination)
    return components(below)[: len(first)] == first
