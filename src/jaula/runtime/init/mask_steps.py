"""Steps that complete the root: working directory, sysctls, read-only paths, masked paths."""

from __future__ import annotations

import errno
import os
import stat

import msgspec

from jaula.kernel import mounts, process_calls
from jaula.kernel.openat2 import RESOLVE, make_directory_in_root, open_in_root, openat2
from jaula.runtime.init.process_setup import ExecError
from jaula.runtime.init.step import RootfsContext, attach, is_procfs

_DOMAINNAME = "kernel/domainname"
_BENEATH = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS | RESOLVE.NO_XDEV


class WorkingDirectory(msgspec.Struct, frozen=True):
    """Create a missing working directory, owned by the container's root, as Docker does.

    Where it cannot be created, chdir(2) reports that later.
    """

    path: str

    def describe(self) -> str:
        return f"create the working directory {self.path}"

    def execute(self, context: RootfsContext) -> None:
        try:
            os.close(make_directory_in_root(context.root, self.path, check=context.refuse_bound))
        except (FileExistsError, NotADirectoryError):
            raise ExecError(f"working directory {self.path!r} is not a directory") from None
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise ExecError(f"working directory {self.path!r}: {error.strerror}") from None
            return


class Sysctl(msgspec.Struct, frozen=True):
    """Write a namespaced sysctl through the container's own /proc, and read it back.

    The file kernel/domainname belongs to the host's root, whichever user owns the namespace
    (kernel/utsname_sysctl.c). So setdomainname(2) sets it, and the file is only read back.
    """

    name: str
    value: str

    def describe(self) -> str:
        return f"set {self.name} to {self.value}"

    def execute(self, context: RootfsContext) -> None:
        path = self.name.replace(".", "/")
        by_call = path == _DOMAINNAME
        if by_call:
            process_calls.setdomainname(self.value)
        proc = _procfs(context)
        try:
            access = os.O_RDONLY if by_call else os.O_RDWR
            fd = openat2(proc, f"sys/{path}", access, resolve=_BENEATH)
        finally:
            os.close(proc)
        try:
            if not by_call:
                os.write(fd, self.value.encode())
                os.lseek(fd, 0, os.SEEK_SET)
            actual = os.read(fd, 4096).decode().split()
        finally:
            os.close(fd)
        if actual != self.value.split():
            raise OSError(
                errno.EINVAL,
                f"sysctl {self.name} reads {' '.join(actual)} after writing {self.value}",
            )


def _procfs(context: RootfsContext) -> int:
    """Open the container's procfs, or a detached one if its own has no sys (``subset=pid``)."""
    proc = openat2(
        context.root,
        "proc",
        os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW,
        resolve=RESOLVE.IN_ROOT | RESOLVE.NO_SYMLINKS,
    )
    try:
        if not is_procfs(proc):
            raise OSError(errno.EPERM, "not a proc file system", "/proc")
        os.close(openat2(proc, "sys", os.O_PATH | os.O_DIRECTORY, resolve=_BENEATH))
    except FileNotFoundError:
        os.close(proc)
        return mounts.new_filesystem("proc")
    except BaseException:
        os.close(proc)
        raise
    return proc


class ReadonlyPath(msgspec.Struct, frozen=True):
    """Mount a path read-only over itself, if the path exists."""

    path: str

    def describe(self) -> str:
        return f"make {self.path} read-only"

    def execute(self, context: RootfsContext) -> None:
        try:
            target = open_in_root(context.root, self.path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return
        tree = mounts.clone_tree("", recursive=True, dir_fd=target)
        try:
            mounts.mount_setattr(tree, set=mounts.MOUNT_ATTR.RDONLY, recursive=True)
            attach(tree, target)
        finally:
            os.close(tree)


class Freeze(msgspec.Struct, frozen=True):
    """Make a mount read-only once its content is complete."""

    path: str

    def describe(self) -> str:
        return f"make the mount at {self.path} read-only"

    def execute(self, context: RootfsContext) -> None:
        target = open_in_root(context.root, self.path, os.O_PATH)
        try:
            mounts.mount_setattr(target, set=mounts.MOUNT_ATTR.RDONLY)
        finally:
            os.close(target)


class MaskPath(msgspec.Struct, frozen=True):
    """Hide a path: the null device over a file, an empty read-only tmpfs over a directory."""

    path: str

    def describe(self) -> str:
        return f"mask {self.path}"

    def execute(self, context: RootfsContext) -> None:
        try:
            target = open_in_root(context.root, self.path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISDIR(os.fstat(target).st_mode):
            tree = context.empty_directory()
        else:
            tree = context.null()
        try:
            attach(tree, target)
        finally:
            os.close(tree)


_PROPAGATION: dict[int, str] = {
    mounts.MS.PRIVATE: "PRIVATE",
    mounts.MS.SLAVE: "SLAVE",
    mounts.MS.SHARED: "SHARED",
    mounts.MS.UNBINDABLE: "UNBINDABLE",
}


class RootPropagation(msgspec.Struct, frozen=True):
    """Set the propagation of the root, before mounts on it set their own.

    :meth:`RootfsContext.share` makes the root shared, once it is the root.
    """

    propagation: int
    recursive: bool

    def describe(self) -> str:
        return f"set the root's propagation to {_PROPAGATION[self.propagation]}"

    def execute(self, context: RootfsContext) -> None:
        if self.propagation == mounts.MS.SHARED:
            context.shared_recursive = self.recursive
        else:
            mounts.mount_setattr(
                context.root, propagation=self.propagation, recursive=self.recursive
            )


class ReadonlyRoot(msgspec.Struct, frozen=True):
    """Make the root read-only; mounts below it keep their own attributes."""

    def describe(self) -> str:
        return "make the root read-only"

    def execute(self, context: RootfsContext) -> None:
        mounts.mount_setattr(context.root, set=mounts.MOUNT_ATTR.RDONLY)
