"""Steps that close the root when all is mounted: sysctls, read-only paths, masks."""

from __future__ import annotations

import errno
import os
import stat

import msgspec

from jaula.kernel import mounts, process
from jaula.kernel.paths import (
    RESOLVE,
    open_in_root,
    openat2,
)
from jaula.runtime.init.step import RootfsContext, attach, is_procfs

_DOMAINNAME = "kernel/domainname"


class Sysctl(msgspec.Struct, frozen=True):
    """Write a namespaced sysctl through the container's own /proc, and read it back.

    The file of the domain name belongs to the host's root, whoever owns the namespace
    (kernel/utsname_sysctl.c): that one is set by its system call, and read back from the file.
    """

    name: str
    value: str

    def describe(self) -> str:
        return f"set {self.name} to {self.value}"

    def execute(self, stage: RootfsContext) -> None:
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
            by_call = path == _DOMAINNAME
            if by_call:
                process.setdomainname(self.value)
            access = os.O_RDONLY if by_call else os.O_RDWR
            fd = openat2(proc, f"sys/{path}", access, resolve=beneath)
        finally:
            os.close(proc)
        try:
            if not by_call:
                os.write(fd, self.value.encode())
                os.lseek(fd, 0, os.SEEK_SET)
            found = os.read(fd, 4096).decode().split()
        finally:
            os.close(fd)
        if found != self.value.split():
            raise OSError(
                22, f"sysctl {self.name} reads {' '.join(found)} after writing {self.value}"
            )


class ReadonlyPath(msgspec.Struct, frozen=True):
    """A read-only mount of a path over itself; a path that is not there needs none."""

    path: str

    def describe(self) -> str:
        return f"make {self.path} read-only"

    def execute(self, stage: RootfsContext) -> None:
        try:
            place = open_in_root(stage.root, self.path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return
        tree = mounts.clone_tree("", recursive=True, dir_fd=place)
        try:
            mounts.mount_setattr(tree, set=mounts.MOUNT_ATTR.RDONLY, recursive=True)
            attach(tree, place)
        finally:
            os.close(tree)


class Freeze(msgspec.Struct, frozen=True):
    """Make one mount read-only once its content is complete."""

    path: str

    def describe(self) -> str:
        return f"make the mount at {self.path} read-only"

    def execute(self, stage: RootfsContext) -> None:
        place = open_in_root(stage.root, self.path, os.O_PATH)
        try:
            mounts.mount_setattr(place, set=mounts.MOUNT_ATTR.RDONLY)
        finally:
            os.close(place)


class MaskPath(msgspec.Struct, frozen=True):
    """Hide a path: the null device over a file, an empty read-only tmpfs over a directory."""

    path: str

    def describe(self) -> str:
        return f"mask {self.path}"

    def execute(self, stage: RootfsContext) -> None:
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
            attach(tree, place)
        finally:
            os.close(tree)


_PROPAGATION: dict[int, str] = {
    mounts.MS.PRIVATE: "PRIVATE",
    mounts.MS.SLAVE: "SLAVE",
    mounts.MS.SHARED: "SHARED",
    mounts.MS.UNBINDABLE: "UNBINDABLE",
}


class RootPropagation(msgspec.Struct, frozen=True):
    """How mounts below the root travel; comes before what is mounted there keeps its own way.

    A shared root is made so by :meth:`RootfsContext.share` once it is the root.
    """

    propagation: int
    recursive: bool

    def describe(self) -> str:
        return f"set the root's propagation to {_PROPAGATION[self.propagation]}"

    def execute(self, stage: RootfsContext) -> None:
        if self.propagation == mounts.MS.SHARED:
            stage.shared = self.recursive
        else:
            mounts.mount_setattr(stage.root, propagation=self.propagation, recursive=self.recursive)


class ReadonlyRoot(msgspec.Struct, frozen=True):
    """The root itself read-only; mounts below it keep their own attributes."""

    def describe(self) -> str:
        return "make the root read-only"

    def execute(self, stage: RootfsContext) -> None:
        mounts.mount_setattr(stage.root, set=mounts.MOUNT_ATTR.RDONLY)
