"""Translate a spec for an external runtime. Pure.

Our own runtime gets root, binds, device nodes and namespaces as descriptors beside the spec. An
external runtime gets only the document. So prepared objects are written into it as paths:
namespaces as ``linux.namespaces[].path``, prepared mounts as plain bind mounts.

Facts: the id mappings of a user namespace that is joined by path stay in the document. runc up to
1.1 and crun need them; runc from 1.2 on accepts them if they are those of the namespace.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from jaula.runtime.create import mount_options
from jaula.spec.annotations import MOUNT_ANNOTATIONS
from jaula.spec.runtime_spec import OCI_VERSION, Box, Device, Linux, Mount, Namespace, Root, Spec

_MAP_OPTIONS = frozenset({"idmap", "ridmap"})
_DEVICE_OPTIONS = ("bind", "rprivate", "nosuid", "noexec")
_RUNTIME_DEVICES = frozenset(
    f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")
)
"""Every runtime creates these itself (config-linux.md, "Default Devices")."""


def is_bind(mount: Mount) -> bool:
    """Return whether a mount is a bind, which is prepared with the host's view."""
    return mount.type == "bind" or mount_options.for_mount(mount).bind


def extra_devices(linux: Linux) -> tuple[Device, ...]:
    """Return the devices beyond those that every runtime creates.

    A user namespace cannot create nodes, so a runtime binds the host's node of the same path. That
    need not be the device of the spec.
    """
    return tuple(device for device in linux.devices if device.path not in _RUNTIME_DEVICES)


def systemd_path(cgroup: str) -> str:
    """Return the ``cgroupsPath`` of a scope as ``slice:prefix:name``, '' for another cgroup.

    Runtimes read it so with their option ``--systemd-cgroup``.
    """
    above, _, unit = cgroup.rpartition("/")
    prefix, dash, name = unit.removesuffix(".scope").partition("-")
    if not unit.endswith(".scope") or not dash:
        return ""
    return f"{above.rpartition('/')[2] or '-.slice'}:{prefix}:{name}"


def translate(
    spec: Spec,
    *,
    root: str,
    namespaces: Mapping[str, str],
    binds: Mapping[int, str],
    locked: Mapping[int, tuple[str, ...]],
    devices: Mapping[str, str] | None,
    console: tuple[int, int],
    oci_version: str,
) -> Spec:
    """Return the document for an external runtime.

    ``namespaces`` are paths by type, ``binds`` sources by the index of the mount, ``locked`` the
    options that these mounts have. The annotations for their preparation are left out. ``devices``
    are sources by the path inside (None: the runtime creates nodes). ``console`` is (rows,
    columns); 0 keeps the spec's.

    /dev/mqueue is left out if it would be labelled in a user namespace: runtimes set the label of
    its root, which only the host's root owns. mq_open(3) works without the mount.
    """
    linux, process = spec.linux, spec.process
    assert linux is not None
    assert process is not None
    mounts = [
        _bind(mount, binds[index], locked[index]) if index in binds else mount
        for index, mount in enumerate(spec.mounts)
        if not (mount.type == "mqueue" and linux.mount_label and "user" in namespaces)
    ]
    if devices is not None:
        mounts += [Mount(path, source, "bind", _DEVICE_OPTIONS) for path, source in devices.items()]
        runtime_devices = tuple(
            device for device in linux.devices if device.path in _RUNTIME_DEVICES
        )
        linux = structs.replace(linux, devices=runtime_devices)
    if any(console):
        process = structs.replace(process, console_size=Box(height=console[0], width=console[1]))
    readonly = spec.root is not None and spec.root.readonly
    kept = {key: text for key, text in spec.annotations.items() if key not in MOUNT_ANNOTATIONS}
    return structs.replace(
        spec,
        annotations=kept,
        oci_version=min(OCI_VERSION, oci_version, key=_version),
        process=process,
        root=Root(root, readonly=readonly),
        mounts=tuple(mounts),
        linux=structs.replace(
            linux,
            cgroups_path=systemd_path(linux.cgroups_path or "") or linux.cgroups_path,
            namespaces=tuple(
                structs.replace(entry, path=namespaces.get(entry.type, entry.path))
                for entry in _with_sandbox(linux.namespaces, namespaces)
            ),
            rootfs_propagation=_propagation(spec),
        ),
    )


def _with_sandbox(
    entries: tuple[Namespace, ...], namespaces: Mapping[str, str]
) -> tuple[Namespace, ...]:
    added = namespaces.keys() - {entry.type for entry in entries}
    return (*entries, *(Namespace(kind) for kind in sorted(added)))


def _bind(mount: Mount, source: str, locked: tuple[str, ...]) -> Mount:
    """Return a plain bind of a prepared mount.

    The prepared mount has the id map and attributes, and a copy of it has them too. A runtime that
    remounts must keep the locked options: the mount's own, and those of its source (runc 1.1 fails
    otherwise).
    """
    options = tuple(option for option in mount.options if option not in _MAP_OPTIONS)
    if "bind" not in options and "rbind" not in options:
        options = ("bind", *options)
    options += tuple(option for option in locked if option not in options)
    return Mount(mount.destination, source, "bind", options)


def _propagation(spec: Spec) -> str | None:
    """Return a slave root if a mount receives the host's mounts, else the spec's propagation."""
    assert spec.linux is not None
    for mount in spec.mounts:
        if {"slave", "rslave", "shared", "rshared"} & set(mount.options):
            return "rslave"
    return spec.linux.rootfs_propagation


def _version(text: str) -> tuple[int, ...]:
    """Return ``1.0.2-dev`` as numbers, (0,) for a malformed version."""
    numbers = text.partition("-")[0].partition("+")[0].split(".")
    if not all(n.isascii() and n.isdigit() and len(n) < 6 for n in numbers):
        return (0,)
    return tuple(int(n) for n in numbers)
