"""Device nodes of a container, made with the host's privileges where that is possible.

Follows runtime-spec config-linux.md "Devices" and "Default Devices". A user namespace may not make
device nodes, and a tmpfs mounted inside one is nodev. So nodes are made outside on a tmpfs that is
passed on detached: the container's whole /dev where the spec mounts a tmpfs there, or a store from
which nodes are attached one by one. The nodes are the container's own: changing their mode or owner
inside changes nothing of the host's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from jaula.errors import InvalidRequest
from jaula.kernel import mounts
from jaula.kernel.paths import components
from jaula.runtime.create.mount_options import MountOptions
from jaula.runtime.init.dev_steps import Node
from jaula.spec.runtime import Device

_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
_DEFAULT = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
NULL_NAME = "null"  # in a store
NULL_NUMBER = os.makedev(1, 3)


def wanted(listed: Sequence[Device]) -> tuple[Node, ...]:
    """The default devices and those of the spec, which win; the last of a path counts.

    Raises ``InvalidRequest``.
    """
    found: dict[str, Device] = {
        f"/dev/{name}": Device(f"/dev/{name}", "c", major, minor) for name, major, minor in _DEFAULT
    }
    for device in listed:
        names = components(device.path)
        if device.type not in _TYPES:
            raise InvalidRequest(
                f"device {device.path}: type {device.type!r} is none of c, b, u, p"
            )
        if not device.path.startswith("/") or not names or ".." in names:
            raise InvalidRequest(f"device {device.path}: the path is not absolute and plain")
        found["/" + "/".join(names)] = device
    return tuple(
        Node(
            str(index),
            path,
            _TYPES[device.type],
            0 if device.type == "p" else os.makedev(device.major, device.minor),
            stat.S_IMODE(device.file_mode if device.file_mode is not None else 0o666),
            device.uid or 0,
            device.gid or 0,
        )
        for index, (path, device) in enumerate(found.items())
    )


def make(
    options: MountOptions, nodes: Sequence[Node], owner: tuple[int, int], data: tuple[str, ...] = ()
) -> int:
    """A detached tmpfs for /dev with its nodes; ``owner`` is the host id of the container's root.

    A node that may not be made, since we run in a user namespace, is left out.
    """
    extra = tuple(("context", label) for label in data)
    attributes = options.set & ~mounts.MOUNT_ATTR.RDONLY
    tree = mounts.new_filesystem("tmpfs", (*options.data, *extra), attributes)
    try:
        os.chown(f"/proc/self/fd/{tree}", *owner)
        for node in nodes:
            names = components(node.path)
            if names[0] == "dev" and len(names) > 1:
                try:
                    _make(tree, names[1:], node, owner)
                except PermissionError:
                    continue
        for name in ("pts", "shm", "mqueue"):
            if not os.path.isdir(f"/proc/self/fd/{tree}/{name}"):
                os.mkdir(name, 0o755, dir_fd=tree)
                os.chown(name, *owner, dir_fd=tree, follow_symlinks=False)
    except BaseException:
        os.close(tree)
        raise
    return tree


def store(nodes: Sequence[Node], owner: tuple[int, int]) -> int:
    """A detached tmpfs that holds all nodes by their names. Raises ``OSError``."""
    tree = mounts.new_filesystem("tmpfs", (("mode", "0700"),))
    try:
        os.chown(f"/proc/self/fd/{tree}", *owner)
        for node in nodes:
            _make(tree, [node.name], node, owner)
        os.mknod(NULL_NAME, stat.S_IFCHR | 0o666, NULL_NUMBER, dir_fd=tree)
        os.chmod(f"/proc/self/fd/{tree}/{NULL_NAME}", 0o666)
        os.chown(NULL_NAME, *owner, dir_fd=tree)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _make(tree: int, names: Sequence[str], node: Node, owner: tuple[int, int]) -> None:
    directory = "."
    for part in names[:-1]:
        directory = f"{directory}/{part}"
        if not os.path.isdir(f"/proc/self/fd/{tree}/{directory}"):
            os.mkdir(directory, 0o755, dir_fd=tree)
            os.chown(directory, *owner, dir_fd=tree)
    path = "/".join(names)
    os.mknod(path, node.kind | node.mode, node.number, dir_fd=tree)
    os.chmod(f"/proc/self/fd/{tree}/{path}", node.mode)  # mknod applies the umask
    os.chown(path, owner[0] + node.uid, owner[1] + node.gid, dir_fd=tree, follow_symlinks=False)
