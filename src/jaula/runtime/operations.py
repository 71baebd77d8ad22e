"""The steps that build a container's root, each a value with ``describe`` and ``execute``.

They run in the container's init before pivot_root: in the container's namespaces, with all
capabilities over them, the host's tree still reachable as ``/``. The new root is a descriptor;
nothing below it is ever named by a host path.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple, Protocol

from jaula.kernel import mounts, tty
from jaula.kernel.paths import (
    RESOLVE,
    make_directory_in_root,
    make_file_in_root,
    open_in_root,
    openat2,
    parts,
)
from jaula.runtime import filesystems
from jaula.runtime.copyup import copy_tree

NODES = -1
"""The slot of the store: a detached tmpfs with device nodes, by :class:`Node`'s names."""
NULL = -2
"""The slot of the null device that masks are made of: a descriptor in a tmpfs made outside."""


class Stage:
    """What the steps work on.

    ``prepared`` holds detached mounts by their index in ``spec.mounts``, besides ``NODES`` and
    ``NULL``. :class:`Console` sets ``master`` and ``slave``.
    """

    def __init__(self, root: int, prepared: dict[int, int]) -> None:
        self.root = root
        self.prepared = prepared
        self.master = -1
        self.slave = -1
        self.shared: bool | None = None
        self._null = prepared.get(NULL, -1)
        self._nodes_attached = False

    def null(self) -> int:
        """The null device that covers masked files: never looked up in the container's tree.

        It was made outside; where nodes could not be made there, it is that of the host's tree,
        which is still ``/`` here.
        """
        if self._null < 0:
            self._null = host_node("/dev/null", stat.S_IFCHR, os.makedev(1, 3))
        return self.clone_node(self._null)

    def clone_node(self, node: int) -> int:
        """A detached mount of one node of the store, or of any attached node."""
        try:
            return mounts.clone_tree("", dir_fd=node)
        except OSError as error:
            if error.errno != errno.EINVAL or NODES not in self.prepared or self._nodes_attached:
                raise
        # Before Linux 6.15 only attached mounts can be cloned: it covers the root for the while.
        mounts.move_mount(self.prepared[NODES], "", to_fd=self.root)
        self._nodes_attached = True
        return mounts.clone_tree("", dir_fd=node)

    def finish(self) -> None:
        """Nothing but the container's mounts is left."""
        if self._nodes_attached:
            mounts.umount2(f"/proc/self/fd/{self.prepared[NODES]}", mounts.MNT.DETACH)
            self._nodes_attached = False

    def share(self) -> None:
        """What pivot_root(2) does not take before it: a root whose mounts are shared."""
        if self.shared is not None:
            mounts.mount_setattr(self.root, propagation=mounts.MS.SHARED, recursive=self.shared)


def host_node(path: str, kind: int, number: int) -> int:
    """A device node of the host's tree, checked to be that device. Raises ``OSError``."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    facts = os.fstat(fd)
    if stat.S_IFMT(facts.st_mode) != kind or facts.st_rdev != number:
        os.close(fd)
        raise OSError(
            errno.ENXIO,
            "this node cannot be made without rights, and the host's of that path is another",
            path,
        )
    return fd


class Operation(Protocol):
    """One step."""

    def describe(self) -> str: ...
    def execute(self, stage: Stage) -> None: ...


def _target(stage: Stage, destination: str, source: int) -> int:
    """The place of a mount, made when missing as a directory or a file like the source."""
    if stat.S_ISDIR(os.fstat(source).st_mode):
        return _not_in_proc(make_directory_in_root(stage.root, destination), destination)
    return _not_in_proc(make_file_in_root(stage.root, destination), destination)


def _not_in_proc(target: int, destination: str) -> int:
    """The target, unless a link of the image led from elsewhere into /proc (CVE-2019-16884)."""
    if parts(destination)[:1] == ["proc"] or not is_procfs(target):
        return target
    os.close(target)
    raise OSError(errno.EPERM, "a link leads into /proc", destination)


def is_procfs(fd: int) -> bool:
    """Whether a descriptor is of a proc file system."""
    return mounts.filesystem_magic(fd) == mounts.PROC_SUPER_MAGIC


def _attach(tree: int, target: int) -> None:
    try:
        mounts.move_mount(tree, "", to_fd=target)
    finally:
        os.close(target)


class AttachPrepared(NamedTuple):
    """Attach a mount that the shim made with the host's view."""

    slot: int
    destination: str

    def describe(self) -> str:
        return f"attach prepared mount {self.slot} at {self.destination}"

    def execute(self, stage: Stage) -> None:
        tree = stage.prepared.pop(self.slot)
        try:
            _attach(tree, _target(stage, self.destination, tree))
        finally:
            os.close(tree)


class MountFilesystem(NamedTuple):
    """Mount a fresh file system that belongs to the container's namespaces."""

    fstype: str
    destination: str
    data: tuple[tuple[str, str | None], ...]
    attributes: int
    copy_up: bool = False
    source: str = ""
    superblock: int = 0
    recursive: tuple[int, int] = (0, 0)  # attributes set and cleared in the whole tree
    propagation: tuple[tuple[int, bool], ...] = ()

    def describe(self) -> str:
        data = ",".join(k if v is None else f"{k}={v}" for k, v in self.data)
        return f"mount {self.fstype} at {self.destination} ({data})"

    def execute(self, stage: Stage) -> None:
        target = _not_in_proc(
            make_directory_in_root(stage.root, self.destination), self.destination
        )
        if self.fstype == "proc" or self.fstype == "sysfs":
            _refuse_link(stage, self.destination)
        data = self.data
        if self.fstype == "tmpfs" and not any(key == "mode" for key, _ in data):
            mode = stat.S_IMODE(os.fstat(target).st_mode)  # as the directory below, like Docker
            data = (*data, ("mode", f"{mode:o}"))
        late = mounts.MOUNT_ATTR.RDONLY if self.copy_up else 0
        source = self.source or self.fstype
        attributes = self.attributes & ~late
        tree = filesystems.make(self.fstype, source, data, self.superblock, attributes, target)
        placed = tree < 0
        if placed:
            os.close(target)
            tree = open_in_root(stage.root, self.destination, os.O_PATH)
        try:
            if self.copy_up:
                copy_tree(stage.root, self.destination, tree)
            if self.attributes & late:
                mounts.mount_setattr(tree, set=late)
            shape(tree, (0, 0), self.recursive, self.propagation)
            if not placed:
                _attach(tree, target)
        finally:
            os.close(tree)


def shape(
    tree: int,
    one: tuple[int, int],
    recursive: tuple[int, int],
    propagation: tuple[tuple[int, bool], ...],
) -> None:
    """Set and clear attributes of a mount, then of its tree; then how mounts travel, in order."""
    if any(one):
        mounts.mount_setattr(tree, set=one[0], clear=one[1])
    if any(recursive):
        mounts.mount_setattr(tree, set=recursive[0], clear=recursive[1], recursive=True)
    for flag, below in propagation:
        mounts.mount_setattr(tree, propagation=flag, recursive=below)


class Remount(NamedTuple):
    """Change what is mounted already: its attributes or, not ``bind``, its file system's flags."""

    destination: str
    bind: bool
    data: tuple[tuple[str, str | None], ...]
    one: tuple[int, int]
    recursive: tuple[int, int]
    superblock: int
    propagation: tuple[tuple[int, bool], ...]

    def describe(self) -> str:
        return f"remount {self.destination}"

    def execute(self, stage: Stage) -> None:
        place = _not_in_proc(
            open_in_root(stage.root, self.destination, os.O_PATH), self.destination
        )
        try:
            if not self.bind and (self.data or self.superblock):
                flags = mounts.MS.REMOUNT | filesystems.flags_of(self.one[0], self.superblock)
                data = filesystems.data_text(self.data)
                mounts.mount(None, f"/proc/self/fd/{place}", None, flags, data)
            shape(place, self.one, self.recursive, self.propagation)
        finally:
            os.close(place)


class BindHost(NamedTuple):
    """Bind a directory of the host's tree, which is ``/`` here, such as the container's cgroup."""

    source: str
    destination: str
    attributes: int

    def describe(self) -> str:
        return f"bind {self.source} at {self.destination}"

    def execute(self, stage: Stage) -> None:
        tree = mounts.clone_tree(self.source, recursive=True)
        try:
            private = ((int(mounts.MS.PRIVATE), True),)
            shape(tree, (0, 0), (self.attributes, 0), private)
            _attach(tree, _target(stage, self.destination, tree))
        finally:
            os.close(tree)


class Node(NamedTuple):
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

    def execute(self, stage: Stage) -> None:
        names = parts(self.path)
        parent = make_directory_in_root(stage.root, "/".join(names[:-1]))
        parent = _not_in_proc(parent, self.path)
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
            _attach(tree, _target(stage, self.path, tree))
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


def _refuse_link(stage: Stage, destination: str) -> None:
    """Proc and sysfs are mounted only on real directories of the image (CVE-2019-19921)."""
    os.close(
        openat2(
            stage.root,
            destination.lstrip("/"),
            os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW,
            resolve=RESOLVE.IN_ROOT | RESOLVE.NO_SYMLINKS,
        )
    )


class Link(NamedTuple):
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

    def execute(self, stage: Stage) -> None:
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


class Console(NamedTuple):
    """A terminal of the container's own devpts; its slave is /dev/console as well."""

    def describe(self) -> str:
        return "open a terminal and bind it at /dev/console"

    def execute(self, stage: Stage) -> None:
        ptmx = openat2(
            stage.root,
            "dev/pts/ptmx",
            os.O_RDWR | os.O_NOCTTY,
            resolve=RESOLVE.IN_ROOT | RESOLVE.NO_SYMLINKS,
        )
        stage.master, stage.slave = tty.unlock_pair(ptmx)
        tree = mounts.clone_tree("", dir_fd=stage.slave)
        try:
            _attach(tree, make_file_in_root(stage.root, "dev/console", 0o600))
        finally:
            os.close(tree)


class Sysctl(NamedTuple):
    """Write a namespaced sysctl through the container's own /proc, and read it back."""

    name: str
    value: str

    def describe(self) -> str:
        return f"set {self.name} to {self.value}"

    def execute(self, stage: Stage) -> None:
        path = self.name.replace(".", "/")
        proc = openat2(
            stage.root,
            "proc",
            os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW,
            resolve=RESOLVE.IN_ROOT | RESOLVE.NO_SYMLINKS,
        )
        try:
            if not is_procfs(proc):
                raise OSError(errno.EPERM, "not the kernel's proc file system", "/proc")
            beneath = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS | RESOLVE.NO_XDEV
            fd = openat2(proc, f"sys/{path}", os.O_RDWR, resolve=beneath)
        finally:
            os.close(proc)
        try:
            os.write(fd, self.value.encode())
            os.lseek(fd, 0, os.SEEK_SET)
            found = os.read(fd, 4096).decode().split()
        finally:
            os.close(fd)
        if found != self.value.split():
            raise OSError(
                22, f"sysctl {self.name} reads {' '.join(found)} after writing {self.value}"
            )


class ReadonlyPath(NamedTuple):
    """A read-only mount of a path over itself; a path that is not there needs none."""

    path: str

    def describe(self) -> str:
        return f"make {self.path} read-only"

    def execute(self, stage: Stage) -> None:
        try:
            place = open_in_root(stage.root, self.path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return
        tree = mounts.clone_tree("", recursive=True, dir_fd=place)
        try:
            mounts.mount_setattr(tree, set=mounts.MOUNT_ATTR.RDONLY, recursive=True)
            _attach(tree, place)
        finally:
            os.close(tree)


class Freeze(NamedTuple):
    """Make one mount read-only once its content is complete."""

    path: str

    def describe(self) -> str:
        return f"make the mount at {self.path} read-only"

    def execute(self, stage: Stage) -> None:
        place = open_in_root(stage.root, self.path, os.O_PATH)
        try:
            mounts.mount_setattr(place, set=mounts.MOUNT_ATTR.RDONLY)
        finally:
            os.close(place)


class MaskPath(NamedTuple):
    """Hide a path: the null device over a file, an empty read-only tmpfs over a directory."""

    path: str

    def describe(self) -> str:
        return f"mask {self.path}"

    def execute(self, stage: Stage) -> None:
        try:
            place = open_in_root(stage.root, self.path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISDIR(os.fstat(place).st_mode):
            tree = mounts.new_filesystem(
                "tmpfs",
                (("size", "4k"), ("nr_inodes", "1"), ("mode", "755"), ("ro", None)),
                mounts.MOUNT_ATTR.RDONLY | mounts.MOUNT_ATTR.NOSUID | mounts.MOUNT_ATTR.NODEV,
            )
        else:
            tree = stage.null()
        try:
            _attach(tree, place)
        finally:
            os.close(tree)


class RootPropagation(NamedTuple):
    """How mounts below the root travel; comes before what is mounted there keeps its own way.

    A shared root is made so by :meth:`Stage.share` once it is the root.
    """

    propagation: int
    recursive: bool

    def describe(self) -> str:
        return f"set the root's propagation to {mounts.MS(self.propagation).name}"

    def execute(self, stage: Stage) -> None:
        if self.propagation == mounts.MS.SHARED:
            stage.shared = self.recursive
        else:
            mounts.mount_setattr(stage.root, propagation=self.propagation, recursive=self.recursive)


class ReadonlyRoot(NamedTuple):
    """The root itself read-only; mounts below it keep their own attributes."""

    def describe(self) -> str:
        return "make the root read-only"

    def execute(self, stage: Stage) -> None:
        mounts.mount_setattr(stage.root, set=mounts.MOUNT_ATTR.RDONLY)
