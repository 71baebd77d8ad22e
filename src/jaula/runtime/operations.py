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


class Stage:
    """What the steps work on.

    ``prepared`` holds detached mounts by their index in ``spec.mounts``. ``null`` is a descriptor
    of the engine's own /dev/null in the new root, the source of file masks. :class:`Console` sets
    ``master`` and ``slave``.
    """

    def __init__(self, root: int, prepared: dict[int, int]) -> None:
        self.root = root
        self.prepared = prepared
        self.master = -1
        self.slave = -1
        self._null = -1

    def null(self) -> int:
        """The /dev/null that the engine put into the new root, checked to be that device."""
        if self._null < 0:
            fd = openat2(
                self.root,
                "dev/null",
                os.O_PATH | os.O_NOFOLLOW,
                resolve=RESOLVE.IN_ROOT | RESOLVE.NO_SYMLINKS,
            )
            facts = os.fstat(fd)
            if not stat.S_ISCHR(facts.st_mode) or facts.st_rdev != os.makedev(1, 3):
                raise OSError(22, "not the null device", "/dev/null")
            self._null = fd
        return self._null


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
    if destination.startswith("/proc") or not is_procfs(target):
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
    copy_up: bool

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
        mode = None
        if self.fstype == "tmpfs" and not any(key == "mode" for key, _ in data):
            mode = stat.S_IMODE(os.fstat(target).st_mode)  # as the directory below, like Docker
            data = (*data, ("mode", f"{mode:o}"))
        tree = mounts.new_filesystem(self.fstype, data, self.attributes)
        try:
            if self.copy_up:
                copy_tree(stage.root, self.destination, tree)
            _attach(tree, target)
        finally:
            os.close(tree)


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


def copy_tree(root: int, source: str, target: int) -> None:
    """Copy a small directory tree of the image into a fresh mount (``tmpcopyup``)."""
    fd = open_in_root(root, source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _copy_directory(fd, target)
    finally:
        os.close(fd)


def _copy_directory(source: int, target: int) -> None:
    for name in os.listdir(source):
        facts = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(facts.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=source)
            into = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=target)
            try:
                _copy_directory(below, into)
                os.fchown(into, facts.st_uid, facts.st_gid)
                os.fchmod(into, stat.S_IMODE(facts.st_mode))
            finally:
                os.close(below)
                os.close(into)
        elif stat.S_ISLNK(facts.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif stat.S_ISREG(facts.st_mode):
            _copy_file(name, source, target, facts)


def _copy_file(name: str, source: int, target: int, facts: os.stat_result) -> None:
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=source)
    try:
        writing = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=target)
        try:
            while chunk := os.read(reading, 1 << 16):
                os.write(writing, chunk)
            os.fchown(writing, facts.st_uid, facts.st_gid)
            os.fchmod(writing, stat.S_IMODE(facts.st_mode))
        finally:
            os.close(writing)
    finally:
        os.close(reading)


class Link(NamedTuple):
    """A symbolic link that every /dev has, unless the image's own is there."""

    target: str
    path: str

    def describe(self) -> str:
        return f"link /{self.path} to {self.target}"

    def execute(self, stage: Stage) -> None:
        names = parts(self.path)
        try:
            parent = open_in_root(stage.root, "/".join(names[:-1]), os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            return
        try:
            os.symlink(self.target, names[-1], dir_fd=parent)
        except (FileExistsError, PermissionError):
            return  # the directory is somebody's bind mount, or has the name
        finally:
            os.close(parent)


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
            tree = mounts.clone_tree("", dir_fd=stage.null())
        try:
            _attach(tree, place)
        finally:
            os.close(tree)


class RootPropagation(NamedTuple):
    """How mounts below the root travel."""

    propagation: int
    recursive: bool

    def describe(self) -> str:
        return f"set the root's propagation to {mounts.MS(self.propagation).name}"

    def execute(self, stage: Stage) -> None:
        mounts.mount_setattr(stage.root, propagation=self.propagation, recursive=self.recursive)


class ReadonlyRoot(NamedTuple):
    """The root itself read-only; mounts below it keep their own attributes."""

    def describe(self) -> str:
        return "make the root read-only"

    def execute(self, stage: Stage) -> None:
        mounts.mount_setattr(stage.root, set=mounts.MOUNT_ATTR.RDONLY)
