"""Steps that fill /dev: device nodes, links, the console."""

from __future__ import annotations

import errno
import os
import stat

import msgspec

from jaula.kernel import mounts, tty
from jaula.kernel.paths import (
    RESOLVE,
    components,
    make_directory_in_root,
    make_file_in_root,
    open_in_root,
    openat2,
)
from jaula.runtime.init.step import (
    NODES,
    RootfsContext,
    attach,
    host_node,
    not_in_proc,
    place_for,
)


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
        names = components(self.path)
        parent = make_directory_in_root(stage.root, "/".join(names[:-1]))
        parent = not_in_proc(parent, self.path)
        try:
            if self._is_there(parent, names[-1]):
                return
            store = stage.prepared.get(NODES)
            if store is not None:
                flags = os.O_PATH | os.O_NOFOLLOW
                node = os.open(self.name, flags, dir_fd=store)
            elif self._made(parent, names[-1]):
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

    def _is_there(self, parent: int, name: str) -> bool:
        try:
            facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_IFMT(facts.st_mode) == self.kind and facts.st_rdev == self.number

    def _made(self, parent: int, name: str) -> bool:
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
        names = components(self.path)
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
