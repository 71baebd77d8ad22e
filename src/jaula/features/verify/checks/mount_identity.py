"""Identity of the mounts: each place has the file system that the engine put there, and no other.

Evidence: the mount table of the mount namespace; the mount that the kernel finds at each place, by
descriptor; device and inode of the sources. Flags are the subject of the check ``mounts``. A place
with more mounts than the spec has entries for it was mounted over. Mounts below a recursive bind
were cloned with it: they directly follow it in the table, which the kernel keeps in the order of
creation (Linux 6.8; before that, of attachment). A later mount does not.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator

from jaula.config import OWN_RUNTIME
from jaula.features.verify.checks.cgroups import CgroupDirs
from jaula.features.verify.checks.mounts import clean, is_source, secret_targets
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, quantity, verdict_of
from jaula.kernel.mountinfo import MountInfo
from jaula.kernel.openat2 import RESOLVE, is_within, open_in_root, openat2
from jaula.spec.runtime_spec import Mount

CGROUP_TYPES = ("cgroup", "cgroup2")
OWN_TYPES = ("proc", "sysfs", "mqueue", "devpts", "tmpfs", *CGROUP_TYPES)
"""Types of which the container has file systems of its own."""
RECEIVERS = ("slave", "rslave", "shared", "rshared")

INFO = CheckInfo(
    id="mount-identity",
    layer="mounts",
    title="Identity of mounts",
    reason="A file system with the right flags in the right place can still be another one: the "
    "host's, another container's, or one that another program mounted over it.",
    references=("I6", "I17", "CVE-2025-31133", "CVE-2025-52565", "mount_namespaces(7)"),
    evidence="mountinfo of the mount namespace, mnt_id of each place, stat(2) of the sources",
    advice="restart it: the mount table is created again; find the program that mounted there",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield one row."""
    wrong = [
        *_stacks(container),
        *_filesystems(container),
        *_sources(container),
        *_restricted(container),
        *_below(container),
    ]
    unique = list(dict.fromkeys(wrong))
    yield Result(
        "mount identity", "mounts", "the engine's mounts, none over another",
        "; ".join(unique) or f"{quantity(len(container.mounts), 'mount')}, each is the engine's",
        container.path("mountinfo"), verdict_of(not unique, None),
    )  # fmt: skip


def _places(container: AuditedContainer) -> list[str]:
    """Return the places of the spec, once for each entry."""
    linux = container.linux
    places = [clean(mount.destination) for mount in container.spec.mounts]
    places += [clean(path) for path in (*linux.masked_paths, *linux.readonly_paths)]
    if binds_devices(container):
        places += [clean(device.path) for device in linux.devices]
    return [*places, "/", "/dev/console"]


def binds_devices(container: AuditedContainer) -> bool:
    """Return whether the nodes in /dev are mounts: nodes cannot be created in a user namespace."""
    return container.rootless is not None or container.text("Runtime") not in ("", OWN_RUNTIME)


def _stacks(container: AuditedContainer) -> Iterator[str]:
    """Yield the places with more mounts than entries of the spec."""
    allowed = Counter(_places(container))
    for path in list(allowed):
        mount = container.mount_at(path)
        if mount is not None and mount.target != path:  # a symbolic link of the image
            allowed[mount.target] += allowed[path]
    present = Counter(mount.target for mount in container.mounts)
    for bind in container.spec.mounts:  # what a recursive bind brought may lie below others
        first = next((m for m in container.mounts if m.target == clean(bind.destination)), None)
        if "rbind" in bind.options and first is not None:
            present.subtract(mount.target for mount in clones(container.mounts, first))
    recursive = [clean(path) for path in container.linux.readonly_paths]
    for target, count in present.items():
        limit = allowed.get(target, 1)
        if any(target != path and is_within(target, path) for path in recursive):
            limit *= 2  # a read-only path is a recursive bind of itself
        if count > limit:
            yield f"{target} is mounted over, {quantity(count, 'mount')}"


def _filesystems(container: AuditedContainer) -> Iterator[str]:
    """Yield the places whose file system is not one of the container's own."""
    host_devices = {mount.device for mount in container.host_mounts}
    for mount in container.spec.mounts:
        if mount.type not in OWN_TYPES or "bind" in mount.options or "rbind" in mount.options:
            continue
        place = clean(mount.destination)
        actual = container.mount_at(place)
        if actual is None:
            continue  # the check of the mounts reports it
        if mount.type in CGROUP_TYPES:
            yield from _cgroups(container, actual)
        elif actual.fstype != mount.type:
            yield f"{place} is {actual.fstype}, not {mount.type}"
        elif actual.root != "/":
            yield f"{place} is {actual.root} of a {actual.fstype}"
        elif actual.device in host_devices and not shares_filesystem(container, mount):
            yield f"{place} is the host's {actual.fstype}"
        elif mount.type == "proc" and container.own_pids and not _is_own_proc(container, place):
            yield f"{place} shows another pid namespace"


def shares_filesystem(container: AuditedContainer, mount: Mount) -> bool:
    """Return whether a namespace of the host makes this file system the host's."""
    keys = {"sysfs": "NetworkMode", "proc": "PidMode", "mqueue": "IpcMode"}
    return container.text(keys.get(mount.type or "", "")) == "host"


def _is_own_proc(container: AuditedContainer, place: str) -> bool:
    """Return whether process 1 of a procfs is in the container's pid namespace."""
    proc = open_in_root(container.root, place, os.O_PATH | os.O_DIRECTORY)
    try:
        directory = openat2(
            proc, "1/ns", os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE.BENEATH | RESOLVE.NO_XDEV
        )
        try:
            return os.readlink("pid", dir_fd=directory) == container.link("ns/pid")
        finally:
            os.close(directory)
    finally:
        os.close(proc)


def _cgroups(container: AuditedContainer, top: MountInfo) -> Iterator[str]:
    """Yield what is wrong with the cgroup mounts: each is the container's cgroup."""
    if container.rootless is not None:
        return  # it has the engine's cgroup
    own = container.text("CgroupnsMode") != "host"
    groups = CgroupDirs(container)
    devices = {m.device: m for m in container.host_mounts if m.fstype in CGROUP_TYPES}
    parents = {top.mount_id}
    for mount in container.mounts:
        if mount is not top and mount.parent_id not in parents:
            continue
        parents.add(mount.mount_id)
        if mount is top and mount.fstype == "tmpfs" and mount.root == "/":
            continue  # the directory of the v1 hierarchies
        if mount.fstype not in CGROUP_TYPES or mount.device not in devices:
            yield f"{mount.target} is {mount.fstype}, not a hierarchy of the host"
        elif own and not _holds_one_of(mount.root, groups.paths):
            yield f"{mount.target} is the cgroup {mount.root}"


def _holds_one_of(cgroup: str, members: set[str]) -> bool:
    """Return whether a process in one of ``members`` is in ``cgroup``, which is not the root's."""
    return cgroup != "/" and any(is_within(member, cgroup) for member in members)


def _sources(container: AuditedContainer) -> Iterator[str]:
    """Yield the engine's own bind mounts that are not their source.

    The check of the mounts compares those of the request. The source of a secret is unmounted after
    the start.
    """
    requested = {
        clean(str(mount.get("Destination"))) for mount in container.inspect.get("Mounts") or ()
    }
    for target in secret_targets(container):
        requested |= {target, os.path.dirname(target)}
    for mount in container.spec.mounts:
        place = clean(mount.destination)
        if mount.type != "bind" or place in requested or mount.source is None:
            continue
        try:
            same = is_source(container, mount.source, place)
        except FileNotFoundError:
            same = False
        if not same:
            yield f"{place} is not {mount.source}"


def _restricted(container: AuditedContainer) -> Iterator[str]:
    """Yield the read-only paths that are another file system, and mounts on device nodes."""
    for path in container.linux.readonly_paths:
        actual, parent = container.mount_at(clean(path)), container.mount_of(os.path.dirname(path))
        if actual is not None and parent is not None and actual.device != parent.device:
            yield f"{path} is another file system than {parent.target}"
    if not binds_devices(container):
        for device in container.linux.devices:
            actual = container.mount_at(clean(device.path))
            if actual is not None:
                yield f"{device.path} is mounted over"


def _below(container: AuditedContainer) -> Iterator[str]:
    """Yield mounts below a recursive bind that were not cloned with it."""
    own = set(_places(container))
    propagation = {
        clean(str(mount.get("Destination"))): str(mount.get("Propagation") or "")
        for mount in container.inspect.get("Mounts") or ()
    }
    for bind in container.spec.mounts:
        place = clean(bind.destination)
        if "rbind" not in bind.options or propagation.get(place) in ("shared", "rshared"):
            continue
        top = container.mount_at(place)
        if top is None:
            continue
        cloned = clones(container.mounts, top)
        receives = propagation.get(place) in RECEIVERS
        others = [path for path in own if path != place and is_within(path, place)]
        for mount in container.mounts:
            if mount is top or mount in cloned or not is_within(mount.target, top.target):
                continue
            if any(is_within(mount.target, path) for path in others):
                continue
            if receives and any(tag.startswith("master:") for tag in mount.propagation):
                continue
            yield f"{mount.target} was mounted below {place} later"


def clones(mounts: tuple[MountInfo, ...], top: MountInfo) -> list[MountInfo]:
    """Return the mounts that directly follow ``top`` in the table and are below it. Pure."""
    return list(
        itertools.takewhile(
            lambda mount: mount.target != top.target and is_within(mount.target, top.target),
            mounts[mounts.index(top) + 1 :],
        )
    )
