"""Device nodes of a container, made with the host's privileges where that is possible.

Follows runtime-spec config-linux.md "Devices" and "Default Devices". A user namespace may not make
device nodes, and a tmpfs mounted inside one is nodev. So nodes are made outside on a tmpfs that is
passed on detached: the container's whole /dev where the spec mounts a tmpfs there, or a store from
which nodes are attached one by one. The nodes are the container's own: changing their mode or owner
inside changes nothing of the host's.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

import msgspec

from jaula.errors import InvalidRequest
from jaula.kernel import mounts, tty
from jaula.kernel.paths import (
    RESOLVE,
    make_directory_in_root,
    make_file_in_root,
    open_in_root,
    openat2,
    parts,
)
from jaula.runtime.create.mount_options import MountOptions
from jaula.runtime.init.step import (
    NODES,
    RootfsContext,
    attach,
    host_node,
    not_in_proc,
    place_for,
)
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


def device_nodes(listed: Sequence[Device]) -> tuple[Node, ...]:
    """The default devices and those of the spec, which win; the last of a path counts.

    Raises ``InvalidRequest``.
    """
    found: dict[str, Device] = {
        f"/dev/{name}": Device(f"/dev/{name}", "c", major, minor) for name, major, minor in _DEFAULT
    }
    for device in listed:
        names = parts(device.path)
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


def make_dev(
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
            names = parts(node.path)
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
    """A detached tmpfs that holds all nodes by their names. Raises ``OSError``."""
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
    """A device node, unless that device is there already.

    Taken from the store that was made outside, where there is one: so nothing but an empty file
    stays in a root that outlives the container. Without, we run in a user namespace, which may
    make pipes only: the host's node of the same path is bound there.
    """

    name: str  # in the store
    path: str
    kind: int  # S_IFCHR, S_IFBLK or S_IFIFO
    number: int
    mode: int
    uid: int
    gid: int

    def describe(self) -> str:
        return f"device {self.path}"

    def execute(self, stage: RootfsContext) -> None:
        names = parts(self.path)
        parent = make_directory_in_root(stage.root, "/".join(names[:-1]))
        parent = not_in_proc(parent, self.path)
        try:
            if self._exists(parent, names[-1]):
                return
            store = stage.prepared.get(NODES)
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
            tree = stage.clone_node(node)
        finally:
            os.close(node)
        try:
            attach(tree, place_for(stage, self.path, tree))
        finally:
            os.close(tree)

    def _exists(self, parent: int, name: str) -> bool:
        try:
            facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_IFMT(facts.st_mode) == self.kind and facts.st_rdev == self.number

    def _mknod(self, parent: int, name: str) -> bool:
        try:
            os.mknod(name, self.kind | 0o600, self.number, dir_fd=parent)
        except (FileExistsError, PermissionError):
            return False
        os.chown(name, self.uid, self.gid, dir_fd=parent, follow_symlinks=False)
        os.chmod(f"/proc/self/fd/{parent}/{name}", self.mode)
        return True


class Link(msgspec.Struct, frozen=True):
    """A symbolic link that every /dev has, unless the image's own is there.

    ``replace`` removes what has the name and is no link. ``needs`` is a path of the host's tree
    without which the link would lead to nothing.
    """

    target: str
    path: str
    replace: bool = False
    needs: str = ""

    def describe(self) -> str:
        return f"link /{self.path} to {self.target}"

    def execute(self, stage: RootfsContext) -> None:
        if self.needs and not os.path.exists(self.needs):
            return
        names = parts(self.path)
        try:
            parent = open_in_root(stage.root, "/".join(names[:-1]), os.O_PATH | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            if self.replace:
                _remove_node(parent, names[-1])
            os.symlink(self.target, names[-1], dir_fd=parent)
        except OSError as error:
            if error.errno not in _NAME_STAYS:
                raise
        finally:
            os.close(parent)


_NAME_STAYS = (errno.EEXIST, errno.EPERM, errno.EACCES, errno.EROFS, errno.EBUSY)
# the directory is somebody's bind mount, or has the name


def _remove_node(parent: int, name: str) -> None:
    try:
        facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISLNK(facts.st_mode) and not stat.S_ISDIR(facts.st_mode):
        os.unlink(name, dir_fd=parent)


class Console(msgspec.Struct, frozen=True):
    """A terminal of the container's own devpts; its slave is /dev/console as well."""

    def describe(self) -> str:
        return "open a terminal and bind it at /dev/console"

    def execute(self, stage: RootfsContext) -> None:
        ptmx = openat2(
            stage.root,
            "dev/pts/ptmx",
            os.O_RDWR | os.O_NOCTTY,
            resolve=RESOLVE.IN_ROOT | RESOLVE.NO_SYMLINKS,
        )
        stage.master, stage.slave = tty.unlock_pair(ptmx)
        tree = mounts.clone_tree("", dir_fd=stage.slave)
        try:
            attach(tree, make_file_in_root(stage.root, "dev/console", 0o600))
        finally:
            os.close(tree)
