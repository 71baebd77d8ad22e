"""The confinement that a restored container must have, from its spec."""

from __future__ import annotations

import os
import resource

from jaula.errors import InvalidRequest, RuntimeFailure
from jaula.features.checkpoint.runtime.check_images import CONSOLE, UNCONFINED, Expected, refuse
from jaula.kernel import selinuxfs
from jaula.kernel.landlock import LANDLOCK_SCOPE
from jaula.kernel.mounts import MS
from jaula.kernel.openat2 import components
from jaula.runtime.create import device_nodes, mount_options, mount_plan
from jaula.runtime.create.clone_process import FdStack
from jaula.runtime.create.namespace_plan import KINDS
from jaula.runtime.init import process_labels, process_setup
from jaula.runtime.init.process_setup import ProcessConfig
from jaula.runtime.interfaces import Interfaces
from jaula.spec.annotations import LANDLOCK_ANNOTATION, decode_ruleset
from jaula.spec.runtime_spec import Mount, Spec, State

_ATTRIBUTES = int(MS.RDONLY | MS.NOSUID | MS.NODEV | MS.NOEXEC)
_OWN = frozenset({"pid", "network", "ipc", "uts", "mount", "user"})
"""Namespaces that a container has for itself, or joins."""
_INHERITABLE = frozenset({"network", "ipc", "uts"})
_WAYS = {
    "pid": "--pid",
    "network": "--network host or --network container:NAME",
    "ipc": "--ipc host or --ipc container:NAME",
    "uts": "--uts host",
    "mount": "its mounts",
    "cgroup": "--cgroupns=host",
}


def destination(mount: Mount) -> str:
    """Return the destination of a mount as the kernel shows it. Pure."""
    return "/" + "/".join(components(mount.destination))


def is_external(mount: Mount) -> bool:
    """Return whether the engine makes the mount for a restore: a bind, or /dev. Pure."""
    return mount_plan.needs_preparation(mount, mount_options.for_mount(mount))


def external_mounts(spec: Spec) -> dict[str, int]:
    """Return the destinations of the mounts that the engine makes, with their index. Pure."""
    return {
        destination(mount): index for index, mount in enumerate(spec.mounts) if is_external(mount)
    }


def joined_namespaces(spec: Spec) -> frozenset[str]:
    """Return the types of namespaces of another container that this one has joined. Pure."""
    assert spec.linux is not None
    return frozenset(entry.type for entry in spec.linux.namespaces if entry.path)


def inherited_namespaces(spec: Spec) -> frozenset[str]:
    """Return the types of namespaces that processes have from CRIU, which is in them. Pure.

    These are network, IPC and UTS namespaces of another container, and the host's UTS namespace.
    Without a user namespace they may all be the host's.
    """
    assert spec.linux is not None
    kinds = {entry.type: entry.path for entry in spec.linux.namespaces}
    own = {kind for kind, path in kinds.items() if not path}
    shared = _INHERITABLE - own
    return frozenset(shared & (kinds.keys() | {"uts"}) if "user" in kinds else shared)


def check_spec(spec: Spec) -> None:
    """Check that containers of a spec can be dumped and restored. Pure.

    :raises InvalidRequest: with the way out, when they cannot.
    """
    linux, process = spec.linux, spec.process
    if linux is None or process is None:
        raise RuntimeFailure("the spec has no linux or no process section")
    own = {entry.type for entry in linux.namespaces if not entry.path}
    kinds = {*_OWN - {"user"}, "cgroup"}
    for kind in sorted(kinds - own - inherited_namespaces(spec)):
        raise refuse(
            f"the container shares its {kind} namespace, which a checkpoint cannot hold",
            f"create it without {_WAYS[kind]}",
        )
    profile = _named(process.apparmor_profile)
    if any(part in profile for part in (" ", ":", "//")):
        raise refuse(
            f"CRIU cannot restore the AppArmor profile {profile!r}, whose name has a space, ':'"
            " or '//'",
            "create it with a profile of a plain name",
        )
    if spec.hooks is not None:
        raise refuse("the container has OCI hooks, which a restore would not run", "remove them")
    if linux.memory_policy is not None or linux.intel_rdt is not None or linux.time_offsets:
        raise refuse(
            "a restore does not set up memory policy, RDT or time offsets again",
            "create the container without them",
        )
    if linux.seccomp is not None and linux.seccomp.listener_path:
        raise refuse(
            "the container's filter has a listener, which no checkpoint can hold",
            "use a profile without SCMP_ACT_NOTIFY",
        )
    _check_landlock(spec)
    for mount in spec.mounts:
        if mount_options.for_mount(mount).shared:
            raise refuse(
                f"the mount at {mount.destination} is shared with the host",
                "use the propagation rslave or rprivate",
            )


def _check_landlock(spec: Spec) -> None:
    """Check that CRIU can open the files of programs in the container's Landlock domain.

    It opens them by name, among them those that init opened before it entered its domain.
    """
    text = spec.annotations.get(LANDLOCK_ANNOTATION)
    if text is None:
        return
    rules = decode_ruleset(text)
    if rules.scoped & LANDLOCK_SCOPE.ABSTRACT_UNIX_SOCKET:
        raise refuse(
            "CRIU cannot reach processes in a Landlock domain that scopes abstract unix sockets",
            "create the container without that scope",
        )


def expect(spec: Spec, config: ProcessConfig) -> Expected:
    """Return the confinement by a spec and its compiled process.

    :raises InvalidRequest: when containers of the spec cannot be restored.
    """
    check_spec(spec)
    linux, process = spec.linux, spec.process
    assert linux is not None
    assert process is not None
    label = _selinux_label(process.selinux_label)
    mounts = _mounts(spec)
    oom_score_adj, scheduler = process.oom_score_adj, process.scheduler
    return Expected(
        namespaces=frozenset(
            entry.type for entry in linux.namespaces if not entry.path and entry.type in KINDS
        ),
        joined=joined_namespaces(spec),
        ids=sum(row.size for row in linux.uid_mappings),
        bounding=config.bounding,
        no_new_privileges=config.no_new_privileges,
        filter=config.filter[0] if config.filter is not None else None,
        external=frozenset(external_mounts(spec)),
        mounts=mounts,
        mount_points=_mount_points(spec),
        rlimits={
            getattr(resource, limit.type): limit.hard
            for limit in process.rlimits
            if hasattr(resource, limit.type)
        },
        oom_score_adj=_own_oom_score() if oom_score_adj is None else oom_score_adj,
        apparmor=_named(process.apparmor_profile),
        selinux=label,
        context=process_labels.mount_label(spec) or "",
        nice=min(os.getpriority(os.PRIO_PROCESS, 0), scheduler.nice if scheduler else 0),
        realtime=scheduler.priority if scheduler else 0,
        roots=_roots(spec),
    )


def of_container(
    spec: Spec, state: State, interfaces: Interfaces, *, seccomp_cache: str | None
) -> Expected:
    """Compile the process of a spec as a start does, and return the confinement.

    :raises InvalidRequest: when containers of the spec cannot be restored.
    """
    check_spec(spec)
    assert spec.linux is not None
    assert spec.process is not None
    fd_stack = FdStack()
    try:
        config = process_setup.prepare(
            spec.process,
            spec.linux,
            state,
            interfaces,
            fd_stack,
            seccomp_cache=seccomp_cache,
            annotations=spec.annotations,
        )
        return expect(spec, config)
    finally:
        fd_stack.close()


def _named(profile: str | None) -> str:
    """Return the name of an AppArmor profile, '' for none. Pure."""
    return "" if profile in (None, UNCONFINED) else str(profile)


def _selinux_label(label: str | None) -> str:
    """Return the label of the container's processes; '' without SELinux.

    :raises InvalidRequest: when the policy does not let them connect to CRIU for a dump.
    """
    own = selinuxfs.own_label()
    if not own or not label:
        return own
    if not selinuxfs.allowed(label, own, "unix_stream_socket", "connectto"):
        raise refuse(
            f"the container's SELinux label ({label}) does not let it connect to CRIU",
            "create it with --security-opt label=disable",
        )
    return selinuxfs.canonical(label)


def _own_oom_score() -> int:
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        return int(file.read())


def masked_paths(spec: Spec) -> list[str]:
    """Return the masked paths that exist in /proc and /sys of this host."""
    assert spec.linux is not None
    return [path for path in spec.linux.masked_paths if _of_kernel(path) and os.path.exists(path)]


def readonly_paths(spec: Spec) -> list[str]:
    """Return the read-only paths that exist in /proc and /sys of this host."""
    assert spec.linux is not None
    return [path for path in spec.linux.readonly_paths if _of_kernel(path) and os.path.exists(path)]


def _of_kernel(path: str) -> bool:
    return components(path)[:1] in (["proc"], ["sys"])


def _mounts(spec: Spec) -> dict[str, int]:
    """Return the attributes that each mount has at least."""
    found: dict[str, int] = {}
    for mount in spec.mounts:
        options = mount_options.for_mount(mount)
        if options.remount:
            raise InvalidRequest(f"the mount at {mount.destination} is a remount")
        found[destination(mount)] = int(options.set) & _ATTRIBUTES
    for path in readonly_paths(spec):
        found[path] = found.get(path, 0) | int(MS.RDONLY)
    for path in masked_paths(spec):
        found.setdefault(path, 0)
    if spec.root is not None and spec.root.readonly:
        found["/"] = int(MS.RDONLY)
    return found


def _roots(spec: Spec) -> dict[str, frozenset[str]]:
    """Return what the mounts of masked and read-only paths show of their file systems."""
    assert spec.linux is not None
    mounts = sorted((destination(mount) for mount in spec.mounts), key=len)
    found = {}
    for path in spec.linux.readonly_paths:
        above = [each for each in mounts if path.startswith(f"{each}/")]
        found[path] = frozenset({path[len(above[-1]) :] if above else path})
    for path in spec.linux.masked_paths:
        found[path] = frozenset({"/", "/null"})
    return found


def _mount_points(spec: Spec) -> frozenset[str]:
    linux = spec.linux
    assert linux is not None
    assert spec.process is not None
    points = {destination(mount) for mount in spec.mounts}
    points |= {*linux.masked_paths, *linux.readonly_paths}
    for mount in spec.mounts:
        if mount.type == "cgroup":
            for hierarchy in mount_plan.cgroup_mounts():
                name = hierarchy.target.rpartition("/")[2]
                points.add(f"{destination(mount)}/{name}")
    if spec.process.terminal:
        points.add(CONSOLE)
    if not any(mount_plan.is_device_directory(mount) for mount in spec.mounts):
        points |= {node.path for node in device_nodes.device_nodes(linux.devices)}
    return frozenset(points)
