"""A container's /dev: a tmpfs made with the host's privileges, holding only what the spec lists.

A user namespace may not make device nodes, and a tmpfs mounted inside one is nodev. So the shim
makes the file system outside, gives it to the container's root, and passes it on detached. The
nodes are the container's own: changing their mode or owner inside changes nothing of the host's.
"""

from __future__ import annotations

import os
import stat

from jaula.kernel import mounts
from jaula.runtime.mountplan import MountOptions
from jaula.spec.runtime import Device

_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def make(options: MountOptions, devices: tuple[Device, ...], owner: tuple[int, int]) -> int:
    """A detached tmpfs with the device nodes; ``owner`` is the host id of the container's root."""
    tree = mounts.new_filesystem("tmpfs", options.data, options.set)
    try:
        os.chown(f"/proc/self/fd/{tree}", *owner)
        for device in devices:
            if device.path.startswith("/dev/"):
                _node(tree, device, owner)
        for name in ("pts", "shm", "mqueue"):
            os.mkdir(name, 0o755, dir_fd=tree)
            os.chown(name, *owner, dir_fd=tree, follow_symlinks=False)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _node(tree: int, device: Device, owner: tuple[int, int]) -> None:
    names = [part for part in device.path.removeprefix("/dev/").split("/") if part]
    if not names or ".." in names or "." in names:
        raise OSError(22, "device path leaves /dev", device.path)
    directory = "."
    for part in names[:-1]:
        directory = f"{directory}/{part}"
        if not os.path.isdir(f"/proc/self/fd/{tree}/{directory}"):
            os.mkdir(directory, 0o755, dir_fd=tree)
            os.chown(directory, *owner, dir_fd=tree)
    path = "/".join(names)
    mode = stat.S_IMODE(device.file_mode if device.file_mode is not None else 0o666)
    number = os.makedev(device.major, device.minor)
    os.mknod(path, _TYPES[device.type] | mode, number, dir_fd=tree)
    os.chmod(f"/proc/self/fd/{tree}/{path}", mode)  # mknod applies the umask
    uid = owner[0] + (device.uid or 0)
    gid = owner[1] + (device.gid or 0)
    os.chown(path, uid, gid, dir_fd=tree, follow_symlinks=False)
