"""Device nodes of a container: the plan, and the steps that fill /dev.

Follows runtime-spec config-linux.md "Devices" and "Default Devices". A user namespace may not
create device nodes, and a tmpfs mounted inside one is nodev. So the parent creates the nodes
outside, on a detached tmpfs. That is the container's whole /dev if the spec mounts a tmpfs there,
or a node store, from which nodes are attached one by one. The nodes are the container's own:
changing their mode or owner inside changes nothing on the host.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

import msgspec

from jaula.errors import InvalidRequest
from jaula.kernel import mounts, tty
from jaula.kernel.openat2 import (
    RESOLVE,
    components,
    open_in_root,
    openat2,
)
from jaula.runtime.create.mount_options import MountOptions
from jaula.runtime.init.step import (
    NODES,
    RootfsContext,
    attach,
    directory_target,
    file_target,
    host_node,
    mount_target,
)
from jaula.spec.runtime_spec import Device

FILE_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
_DEFAULT_DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
NULL_NAME = "null"  # the null device in a node store
NULL_NUMBER = os.makedev(1, 3)


def device_nodes(device_list: Sequence[Device]) -> tuple[Node, ...]:
    """Return the default devices and those of the spec, which override them by path.

    :raises InvalidRequest: when a device has a bad type or path.
    """
    devices: dict[str, Device] = {
        f"/dev/{name}": Device(f"/dev/{name}", "c", major, minor)
        for name, major, minor in _DEFAULT_DEVICES
    }
    for device in device_list:
        names = components(device.path)
        if device.type not in FILE_TYPES:
            raise InvalidRequest(
                f"device {device.path}: type {device.type!r} must be one of c, b, u, p"
            )
        if not device.path.startswith("/") or not names or ".." in names:
            raise InvalidRequest(
                f"device {device.path}: the path must be absolute and without '..'"
            )
        devices["/" + "/".join(names)] = device
    return tuple(
        Node(
            str(index),
            path,
            FILE_TYPES[device.type],
            0 if device.type == "p" else os.makedev(device.major, device.minor),
            stat.S_IMODE(device.file_mode if device.file_mode is not None else 0o666),
            device.uid or 0,
            device.gid or 0,
        )
        for index, (path, device) in enumerate(devices.items())
    )


def make_dev(
    options: MountOptions, nodes: Sequence[Node], owner: tuple[int, int], data: tuple[str, ...] = ()
) -> int:
    """Create a detached tmpfs for /dev with its nodes.

    ``owner`` is the host uid and gid of the container's root. A node that cannot be created, since
    this process is in a user namespace, is left out.
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
                    _make_node(tree, names[1:], node, owner)
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


def make_node_store(nodes: Sequence[Node], owner: tuple[int, int]) -> int:
    """Create a detached tmpfs that holds all nodes by their names.

    :raises OSError: when a node cannot be created.
    """
    tree = mounts.new_filesystem("tmpfs", (("mode", "0700"),))
    try:
        os.chown(f"/proc/self/fd/{tree}", *owner)
        for node in nodes:
            _make_node(tree, [node.name], node, owner)
        os.mknod(NULL_NAME, stat.S_IFCHR | 0o666, NULL_NUMBER, dir_fd=tree)
        os.chmod(f"/proc/self/fd/{tree}/{NULL_NAME}", 0o666)
        os.chown(NULL_NAME, *owner, dir_fd=tree)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _make_node(tree: int, names: Sequence[str], node: Node, owner: tuple[int, int]) -> None:
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


class Node(msgspec.Struct, frozen=True):
    """Create a device node, unless that device exists.

    The node is attached from the node store if there is one: only an empty file stays in a root
    that outlives the container. Without a store this process is in a user namespace, which may
    create pipes only. The host's node of the same path is bound then.
    """

    name: str  # in the node store
    path: str
    kind: int  # S_IFCHR, S_IFBLK or S_IFIFO
    number: int
    mode: int
    uid: int
    gid: int

    def describe(self) -> str:
        return f"device {self.path}"

    def execute(self, context: RootfsContext) -> None:
        names = components(self.path)
        parent = directory_target(context, "/".join(names[:-1]))
        try:
            if self._exists(parent, names[-1]):
                return
            store = context.prepared.get(NODES)
            if store is not None:
                flags = os.O_PATH | os.O_NOFOLLOW
                node = os.open(self.name, flags, dir_fd=store)
            elif self._mknod(parent, names[-1]):
                return
            else:
                node = host_node(self.path, self.kind, self.number)
        finally:
            os.close(parent)
        try:
            tree = context.clone_node(node)
        finally:
            os.close(node)
        try:
            attach(tree, mount_target(context, self.path, tree))
        finally:
            os.close(tree)

    def _exists(self, parent: int, name: str) -> bool:
        try:
            st = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_IFMT(st.st_mode) == self.kind and st.st_rdev == self.number

    def _mknod(self, parent: int, name: str) -> bool:
        try:
            os.mknod(name, self.kind | 0o600, self.number, dir_fd=parent)
        except (FileExistsError, PermissionError):
            return False
        os.chown(name, self.uid, self.gid, dir_fd=parent, follow_symlinks=False)
        os.chmod(f"/proc/self/fd/{parent}/{name}", self.mode)
        return True


class Link(msgspec.Struct, frozen=True):
    """Create a symbolic link that every /dev has, unless the image has one.

    ``replace`` removes a file of that name that is not a link. ``needs`` is a path of the host
    without which the link would dangle.
    """

    target: str
    path: str
    replace: bool = False
    needs: str = ""

    def describe(self) -> str:
        return f"link /{self.path} to {self.target}"

    def execute(self, context: RootfsContext) -> None:
        if self.needs and not os.path.exists(self.needs):
            return
        names = components(self.path)
        try:
            parent = open_in_root(context.root, "/".join(names[:-1]), os.O_PATH | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            context.refuse_bound(parent)
            if self.replace:
                _remove_node(parent, names[-1])
            os.symlink(self.target, names[-1], dir_fd=parent)
        except OSError as error:
            if error.errno not in _IGNORED_ERRORS:
                raise
        finally:
            os.close(parent)


_IGNORED_ERRORS = (errno.EEXIST, errno.EPERM, errno.EACCES, errno.EROFS, errno.EBUSY)
# The directory is a bind mount, or has a file of that name: the link is left out.


def _remove_node(parent: int, name: str) -> None:
    try:
        st = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISLNK(st.st_mode) and not stat.S_ISDIR(st.st_mode):
        os.unlink(name, dir_fd=parent)


class Console(msgspec.Struct, frozen=True):
    """Open a terminal of the container's own devpts; bind its slave at /dev/console."""

    def describe(self) -> str:
        return "open a terminal and bind it at /dev/console"

    def execute(self, context: RootfsContext) -> None:
        ptmx = openat2(
            context.root,
            "dev/pts/ptmx",
            os.O_RDWR | os.O_NOCTTY,
            resolve=RESOLVE.IN_ROOT | RESOLVE.NO_SYMLINKS,
        )
        context.master, context.slave = tty.unlock_pair(ptmx)
        tree = mounts.clone_tree("", dir_fd=context.slave)
        try:
            attach(tree, file_target(context, "dev/console", 0o600))
        finally:
            os.close(tree)
