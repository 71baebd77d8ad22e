"""Plan the mounts of a container from its spec, in order. Pure, except for reading mountinfo.

Follows runtime-spec config.md "Mounts" and config-linux.md "Default Devices", "Masked Paths",
"Readonly Paths". Each step has ``describe``, and ``execute`` for the new root, where every
destination is resolved with RESOLVE_IN_ROOT.

The directories for a container's cgroup mount are read from proc_pid_mountinfo(5): type, source and
super options come after the separator `` - ``.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence

from jaula.errors import InvalidRequest, RuntimeFailure
from jaula.kernel import mountinfo
from jaula.kernel.mountinfo import MountInfo
from jaula.kernel.mounts import MOUNT_ATTR, MS
from jaula.kernel.openat2 import components
from jaula.runtime.create import device_nodes, mount_options
from jaula.runtime.create.mount_options import (
    PROPAGATION,
    MountOptions,
    known_options,
    parse_options,
)
from jaula.runtime.create.namespace_plan import FILE_SYSTEMS
from jaula.runtime.init import mask_steps, mount_steps, step
from jaula.spec.runtime_spec import Linux, Mount, Spec

__all__ = ["host_propagation", "known_options", "needs_preparation", "parse_options", "plan"]

_LABELLED = frozenset({"tmpfs", "ramfs", "devpts", "overlay"})  # take context= in a userns too
LINKS = (
    device_nodes.Link("/proc/self/fd", "dev/fd"),
    device_nodes.Link("/proc/self/fd/0", "dev/stdin"),
    device_nodes.Link("/proc/self/fd/1", "dev/stdout"),
    device_nodes.Link("/proc/self/fd/2", "dev/stderr"),
    device_nodes.Link("/proc/kcore", "dev/core", needs="/proc/kcore"),
    device_nodes.Link("pts/ptmx", "dev/ptmx", replace=True),
)


def host_propagation(linux: Linux | None) -> int:
    """Return the propagation flags of mount(2) for the host's tree in the container's namespace.

    Mounts of the container never propagate out. Mounts of the host propagate in until the root is
    entered, and below it afterwards if the spec asks for a slave or shared root.
    """
    propagation = linux.rootfs_propagation if linux is not None else None
    return int(
        MS.REC | (MS.PRIVATE if propagation in (None, "", "private", "rprivate") else MS.SLAVE)
    )


def needs_preparation(mount: Mount, options: MountOptions, foreign: Collection[str] = ()) -> bool:
    """Return whether the parent creates this mount with the host's view: a bind, or /dev.

    ``foreign`` are joined namespaces, by type, that another user namespace owns. The container may
    not mount their file systems.
    """
    if options.remount:
        return False
    return options.bind or is_device_directory(mount) or shows_foreign(mount, foreign)


def shows_foreign(mount: Mount, foreign: Collection[str]) -> bool:
    """Return whether the mount is a file system of one of these namespaces."""
    return FILE_SYSTEMS.get(mount.type or "") in foreign


def inside_sources(spec: Spec, root: str, bundle: str) -> dict[int, str]:
    """Return the binds whose source an earlier mount of the spec makes, by index.

    ``root`` is the path of the root on the host, without links. The value is the source's path in
    the root. Such a source has another content, or does not exist, in the host's mount namespace.
    """
    inside: dict[int, str] = {}
    for index, mount in enumerate(spec.mounts):
        options = parse_options(mount.options)
        if not (options.bind or mount.type == "bind") or options.remount or options.idmap:
            continue
        if mount.uid_mappings or not mount.source:
            continue
        source = os.path.realpath(os.path.join(bundle, mount.source))
        if not source.startswith(f"{root}/"):
            continue
        relative = source[len(root) + 1 :]
        if any(_covers(earlier.destination, relative) for earlier in spec.mounts[:index]):
            inside[index] = relative
    return inside


def is_device_directory(mount: Mount) -> bool:
    """Return whether the mount is a tmpfs on /dev.

    It is created outside, since a user namespace cannot create device nodes.
    """
    if components(mount.destination) != ["dev"] or mount.type != "tmpfs":
        return False
    return not {"bind", "rbind", "remount", "tmpcopyup"} & set(mount.options)


def _dev_is_bound(spec: Spec) -> bool:
    """Return whether /dev is a bind mount, which brings its own nodes."""
    return any(
        components(m.destination) == ["dev"] and mount_options.for_mount(m).bind
        for m in spec.mounts
    )


def _nodes(spec: Spec, nodes: Sequence[device_nodes.Node]) -> tuple[device_nodes.Node, ...]:
    """Return the nodes to create: none below a bind-mounted /dev."""
    bound = _dev_is_bound(spec)
    return tuple(node for node in nodes if not (bound and components(node.path)[0] == "dev"))


def needs_store(spec: Spec, nodes: Sequence[device_nodes.Node]) -> bool:
    """Return whether a node is needed outside a /dev created by us: a device, or a mask."""
    if not any(is_device_directory(mount) for mount in spec.mounts):
        return True
    return any(
        components(node.path)[0] != "dev"
        or (node.path == "/dev/null" and node.number != device_nodes.NULL_NUMBER)
        for node in nodes
    )


def plan(
    spec: Spec,
    *,
    v1_hierarchies: tuple[tuple[str, str], ...],
    cgroups: tuple[tuple[str, str], ...] = (),
    selinux: bool = False,
    inside: Mapping[int, str] | None = None,
    foreign: Collection[str] = (),
) -> tuple[step.Step, ...]:
    """Return all steps for the new root, in order.

    ``v1_hierarchies`` are (directory name, mount options) of the host's cgroup v1 hierarchies,
    empty on a unified host. ``cgroups`` are (directory name, path) of the container's own cgroup in
    each hierarchy; the name is empty on a unified host. They are bound if the container has no
    cgroup namespace, and in a new one, which has its root there, if the mount is read-only: to
    mount a v1 hierarchy anew takes 0.2 ms. ``inside`` is from :func:`inside_sources`. ``foreign``
    is as for :func:`needs_preparation`. ``selinux`` says that ``linux.mountLabel`` applies on this
    host.

    :raises InvalidRequest: when a mount of the spec is invalid.
    """
    steps: list[step.Step] = []
    terminal = spec.process is not None and spec.process.terminal
    linux = spec.linux
    label = linux.mount_label if linux is not None and selinux else None
    propagation = (linux.rootfs_propagation if linux is not None else None) or "private"
    if propagation not in PROPAGATION:
        raise RuntimeFailure(
            f"rootfsPropagation {propagation!r} must be one of private, slave, shared, unbindable"
        )
    steps.append(mask_steps.RootPropagation(*PROPAGATION[propagation]))
    legacy = bool(v1_hierarchies) or any(name for name, _ in cgroups)
    after_devices: list[step.Step] = []
    writable_cgroups: list[str] = []  # cgroup trees with later mounts on them
    for index, mount in enumerate(spec.mounts):
        options = mount_options.for_mount(mount)
        while writable_cgroups and _covers(mount.destination, writable_cgroups[-1]):
            steps.append(mask_steps.Freeze(writable_cgroups.pop()))
        if options.remount:
            steps.append(_remount(mount, options))
        elif inside and index in inside:
            steps.append(mount_steps.BindInside(inside[index], mount.destination, options))
        elif needs_preparation(mount, options, foreign):
            made = not options.bind
            steps.append(mount_steps.AttachPrepared(index, mount.destination, made))
            if made and options.set & MOUNT_ATTR.RDONLY:
                after_devices.append(mask_steps.Freeze(mount.destination))
        elif mount.type == "cgroup" and (
            bound := _bound_directories(linux, options, v1_hierarchies, cgroups)
        ):
            steps.extend(_bound_cgroup(mount, options, bound))
        elif mount.type == "cgroup":
            steps.extend(_cgroup(mount, options, v1_hierarchies))
        else:
            steps.append(new_filesystem(mount, options, label))
        if mount.type == "cgroup" and legacy and options.set & MOUNT_ATTR.RDONLY:
            writable_cgroups.append(mount.destination)
    steps.extend(mask_steps.Freeze(destination) for destination in reversed(writable_cgroups))
    device_list = linux.devices if linux is not None else ()
    steps.extend(_nodes(spec, device_nodes.device_nodes(device_list)))
    if not _dev_is_bound(spec):
        steps.extend(LINKS)
    if terminal:
        steps.append(device_nodes.Console())
    steps.extend(after_devices)
    if spec.process is not None:
        steps.append(mask_steps.WorkingDirectory(spec.process.cwd))
    if linux is not None:
        steps.extend(mask_steps.Sysctl(name, value) for name, value in sorted(linux.sysctl.items()))
        steps.extend(mask_steps.ReadonlyPath(path) for path in linux.readonly_paths)
        steps.extend(mask_steps.MaskPath(path) for path in linux.masked_paths)
    if spec.root is not None and spec.root.readonly:
        steps.append(mask_steps.ReadonlyRoot())
    return tuple(steps)


def plan_in_cgroup(
    spec: Spec,
    directories: Collection[str],
    *,
    selinux: bool = False,
    inside: Mapping[int, str] | None = None,
    foreign: Collection[str] = (),
) -> tuple[step.Step, ...]:
    """Return :func:`plan` for a container with these cgroup directories; none: the caller's own.

    :raises InvalidRequest: when a mount of the spec is invalid.
    """
    mounts = cgroup_mounts()
    directories = directories or own_cgroup_directories(mounts)
    return plan(
        spec,
        v1_hierarchies=mounted_v1_hierarchies(directories, mounts),
        cgroups=cgroup_directories(directories, mounts),
        selinux=selinux,
        inside=inside,
        foreign=foreign,
    )


def new_filesystem(mount: Mount, options: MountOptions, label: str | None) -> step.Step:
    """Return the step that mounts a file system of the container's namespaces.

    :raises InvalidRequest: when the mount has no type.
    """
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
    """Return the steps for the cgroup tree of the container's cgroup namespace."""
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
    steps.extend(_controller_links(mount, [name for name, _ in hierarchies]))
    return steps


def _bound_directories(
    linux: Linux | None,
    options: MountOptions,
    v1_hierarchies: tuple[tuple[str, str], ...],
    cgroups: tuple[tuple[str, str], ...],
) -> tuple[tuple[str, str], ...]:
    """Return those of ``cgroups`` that a cgroup mount binds; empty if it is mounted anew. Pure.

    In a container the mounts of the hierarchies are read-only, and a bind mount of one remains so:
    a writable mount in a new cgroup namespace is mounted anew.
    """
    if linux is None:
        return ()
    namespace = next((entry for entry in linux.namespaces if entry.type == "cgroup"), None)
    if namespace is None:
        return cgroups
    if namespace.path or not options.set & MOUNT_ATTR.RDONLY:
        return ()
    names = {name for name, _ in v1_hierarchies}
    return tuple((name, directory) for name, directory in cgroups if name in names)


def _bound_cgroup(
    mount: Mount, options: MountOptions, cgroups: tuple[tuple[str, str], ...]
) -> list[step.Step]:
    """Return the steps that bind the container's cgroup."""
    if len(cgroups) == 1 and not cgroups[0][0]:
        return [mount_steps.BindHost(cgroups[0][1], mount.destination, options.set)]
    steps = [_cgroup_directory(mount, options)]
    steps.extend(
        mount_steps.BindHost(path, f"{mount.destination}/{name}", options.set)
        for name, path in cgroups
    )
    steps.extend(_controller_links(mount, [name for name, _ in cgroups]))
    return steps


def _cgroup_directory(mount: Mount, options: MountOptions) -> step.Step:
    attributes = options.set & ~MOUNT_ATTR.RDONLY
    return mount_steps.MountFilesystem("tmpfs", mount.destination, (("mode", "755"),), attributes)


def _controller_links(mount: Mount, names: Sequence[str]) -> list[step.Step]:
    """Return links from each controller to the hierarchy that it shares with other controllers."""
    directory = "/".join(components(mount.destination))
    return [
        device_nodes.Link(name, f"{directory}/{controller}")
        for name in names
        if "," in name
        for controller in name.split(",")
    ]


def _covers(destination: str, below: str) -> bool:
    """Return whether a mount at ``destination`` hides ``below``, or is at the same path."""
    first = components(destination)
    return components(below)[: len(first)] == first


_GENERIC = frozenset({"rw", "ro", "xattr", "noprefix", "clone_children", "favordynmods"})


def cgroup_mounts(path: str = mountinfo.OWN) -> tuple[MountInfo, ...]:
    """Return the mounted cgroup hierarchies."""
    return tuple(mount for mount in mountinfo.read(path) if mount.fstype in ("cgroup", "cgroup2"))


def mounted_v1_hierarchies(
    directories: Collection[str], mounts: Sequence[MountInfo]
) -> tuple[tuple[str, str], ...]:
    """Return (mount point name, selecting options) of the host's v1 hierarchies, sorted.

    The result is empty on v2 hosts. ``directories`` are those of the container's cgroup. A
    hierarchy without one is left out: the container would see the host's whole tree in it, if
    read-only.
    """
    hierarchies: dict[str, str] = {}
    for mount in mounts:
        selectors = [
            option
            for option in mount.super_options
            if option not in _GENERIC and not option.startswith("release_agent=")
        ]
        if mount.fstype == "cgroup" and selectors and _directories_below(mount, directories):
            hierarchies[mount.target.rsplit("/", 1)[-1]] = ",".join(selectors)
    return tuple(sorted(hierarchies.items()))


def cgroup_directories(
    directories: Collection[str], mounts: Sequence[MountInfo]
) -> tuple[tuple[str, str], ...]:
    """Return (name below the cgroup mount, host directory) of a container's cgroup, sorted.

    On a unified host there is one, and its name is empty.
    """
    v1: dict[str, str] = {}
    v2: dict[str, str] = {}
    for mount in mounts:
        hierarchies = v1 if mount.fstype == "cgroup" else v2
        for directory in _directories_below(mount, directories):
            hierarchies[mount.target.rsplit("/", 1)[-1]] = directory
    if v1:
        return tuple(sorted({**v2, **v1}.items()))
    return tuple(("", directory) for directory in v2.values())


def _directories_below(mount: MountInfo, directories: Collection[str]) -> list[str]:
    prefix = f"{mount.target}/"
    return [directory for directory in directories if directory.startswith(prefix)]


def own_cgroup_directories(
    mounts: Sequence[MountInfo], cgroup: str = "/proc/self/cgroup"
) -> tuple[str, ...]:
    """Return the directories of our own cgroup, for a container without a cgroup, sorted.

    A cgroup outside of what is mounted is left out. The path of a hierarchy's root ends in a slash.
    """
    with open(cgroup, encoding="utf-8", errors="surrogateescape") as file:
        own_cgroups = [line.rstrip("\n").split(":", 2)[1:] for line in file]
    directories: set[str] = set()
    for mount in mounts:
        root = mount.root.rstrip("/")
        for controllers, path in own_cgroups:
            own_controllers = set(controllers.split(",")) if controllers else set()
            if (mount.fstype == "cgroup2") == bool(own_controllers):
                continue
            if not own_controllers <= set(mount.super_options):
                continue
            if path == mount.root or path.startswith(f"{root}/"):
                directories.add(f"{mount.target}/{path[len(root) :].lstrip('/')}")
    return tuple(sorted(directories))
