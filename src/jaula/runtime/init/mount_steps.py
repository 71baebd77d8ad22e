"""Steps that mount: prepared mounts, new file systems, cgroup directories.

Follows fsopen(2), fsconfig(2), mount(2).

Facts about fsconfig: it takes strings of less than 256 bytes, so a long ``lowerdir`` must go
through mount(2). The flag ``iversion``, which has no parameter, must as well. Some file systems
parse their options only there. Sysfs is refused with EPERM in a network namespace, and proc in a
pid namespace, that the user namespace does not own. The host's tree is bound instead then; sysfs
read-only throughout.

Facts about ``tmpcopyup``: it copies a directory of the image into the new tmpfs that covers it.
Owners, modes, times, extended attributes, symbolic and hard links, pipes and device nodes are kept;
sockets are not. No symbolic link is followed: every name is opened in the directory opened before.
Only the tmpfs limits the size.
"""

from __future__ import annotations

import errno
import os
import stat

import msgspec

from jaula.kernel import mounts
from jaula.kernel.mounts import MOUNT_ATTR, MS
from jaula.kernel.openat2 import (
    RESOLVE,
    open_in_root,
    openat2,
)
from jaula.runtime.create.mount_options import MountOptions
from jaula.runtime.init.step import (
    RootfsContext,
    attach,
    directory_target,
    mount_target,
    refuse_procfs,
    set_attributes,
)


class AttachPrepared(msgspec.Struct, frozen=True):
    """Attach a mount that the parent created with the host's view."""

    slot: int
    destination: str
    made: bool = False  # a new file system, not a bind mount

    def describe(self) -> str:
        return f"attach prepared mount {self.slot} at {self.destination}"

    def execute(self, context: RootfsContext) -> None:
        tree = context.prepared.pop(self.slot)
        try:
            if self.made:
                context.made(tree)
            attach(tree, mount_target(context, self.destination, tree))
        finally:
            os.close(tree)


class BindInside(msgspec.Struct, frozen=True):
    """Bind a path of the new root, where an earlier mount of the spec is."""

    source: str  # relative to the root
    destination: str
    options: MountOptions

    def describe(self) -> str:
        return f"bind {self.source} of the root at {self.destination}"

    def execute(self, context: RootfsContext) -> None:
        options = self.options
        source = open_in_root(context.root, self.source, os.O_PATH)
        try:
            tree = mounts.clone_tree("", recursive=options.recursive, dir_fd=source)
        finally:
            os.close(source)
        try:
            set_attributes(
                tree,
                (options.set, options.clear),
                (options.recursive_set, options.recursive_clear),
                options.propagation or ((int(MS.PRIVATE), True),),
            )
            attach(tree, mount_target(context, self.destination, tree))
        finally:
            os.close(tree)


class MountFilesystem(msgspec.Struct, frozen=True):
    """Mount a new file system that belongs to the container's namespaces."""

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

    def execute(self, context: RootfsContext) -> None:
        inherit_mode = (
            self.fstype == "tmpfs"
            and not any(key == "mode" for key, _ in self.data)
            and _exists(context, self.destination)
        )
        target = directory_target(context, self.destination)
        if self.fstype == "proc" or self.fstype == "sysfs":
            _refuse_link(context, self.destination)
        data = self.data
        if inherit_mode:
            mode = stat.S_IMODE(os.fstat(target).st_mode)
            data = (*data, ("mode", f"{mode:o}"))
        read_only_bit = mounts.MOUNT_ATTR.RDONLY if self.copy_up else 0
        source = self.source or self.fstype
        attributes = self.attributes & ~read_only_bit
        tree = make_filesystem(self.fstype, source, data, self.superblock, attributes, target)
        mounted = tree < 0
        if mounted:
            os.close(target)
            tree = open_in_root(context.root, self.destination, os.O_PATH)
        try:
            context.made(tree)
            if self.copy_up:
                copy_tree(context.root, self.destination, tree)
            if self.attributes & read_only_bit:
                mounts.mount_setattr(tree, set=read_only_bit)
            set_attributes(tree, (0, 0), self.recursive, self.propagation)
            if not mounted:
                attach(tree, target)
        finally:
            os.close(tree)


class Remount(msgspec.Struct, frozen=True):
    """Change the attributes of a mount or, without ``bind``, the flags of its file system."""

    destination: str
    bind: bool
    data: tuple[tuple[str, str | None], ...]
    attributes: tuple[int, int]
    recursive: tuple[int, int]
    superblock: int
    propagation: tuple[tuple[int, bool], ...]

    def describe(self) -> str:
        return f"remount {self.destination}"

    def execute(self, context: RootfsContext) -> None:
        target = refuse_procfs(
            open_in_root(context.root, self.destination, os.O_PATH), self.destination
        )
        try:
            if not self.bind and (self.data or self.superblock):
                flags = mounts.MS.REMOUNT | mount_flags(self.attributes[0], self.superblock)
                data = mount_data(self.data)
                mounts.mount(None, f"/proc/self/fd/{target}", None, flags, data)
            set_attributes(target, self.attributes, self.recursive, self.propagation)
        finally:
            os.close(target)


class BindHost(msgspec.Struct, frozen=True):
    """Bind a directory of the host's tree, which is at ``/``, such as the container's cgroup."""

    source: str
    destination: str
    attributes: int

    def describe(self) -> str:
        return f"bind {self.source} at {self.destination}"

    def execute(self, context: RootfsContext) -> None:
        tree = mounts.clone_tree(self.source, recursive=True)
        try:
            private = ((int(mounts.MS.PRIVATE), True),)
            set_attributes(tree, (0, 0), (self.attributes, 0), private)
            attach(tree, mount_target(context, self.destination, tree))
        finally:
            os.close(tree)


def _exists(context: RootfsContext, destination: str) -> bool:
    try:
        os.close(open_in_root(context.root, destination, os.O_PATH))
    except FileNotFoundError:
        return False
    return True


def _refuse_link(context: RootfsContext, destination: str) -> None:
    """Require real directories of the image for proc and sysfs (CVE-2019-19921)."""
    os.close(
        openat2(
            context.root,
            destination.lstrip("/"),
            os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW,
            resolve=RESOLVE.IN_ROOT | RESOLVE.NO_SYMLINKS,
        )
    )


Data = tuple[tuple[str, str | None], ...]

_STRING_LIMIT = 256  # bytes that fsconfig(2) takes, the NUL included
_FLAGS = ((MS.SYNCHRONOUS, "sync"), (MS.DIRSYNC, "dirsync"), (MS.LAZYTIME, "lazytime"))
_ATTRIBUTES = (
    (MOUNT_ATTR.RDONLY, MS.RDONLY),
    (MOUNT_ATTR.NOSUID, MS.NOSUID),
    (MOUNT_ATTR.NODEV, MS.NODEV),
    (MOUNT_ATTR.NOEXEC, MS.NOEXEC),
    (MOUNT_ATTR.NOATIME, MS.NOATIME),
    (MOUNT_ATTR.STRICTATIME, MS.STRICTATIME),
    (MOUNT_ATTR.NODIRATIME, MS.NODIRATIME),
    (MOUNT_ATTR.NOSYMFOLLOW, MS.NOSYMFOLLOW),
)
_NO_BACKING_DEVICE = frozenset(
    {"proc", "sysfs", "tmpfs", "ramfs", "devpts", "mqueue", "cgroup", "cgroup2", "overlay"}
)
_HOST_TREES = {"proc": "/proc", "sysfs": "/sys"}
_NEEDS_MOUNT = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


def needs_mount2(data: Data, superblock: int) -> bool:
    """Return whether only mount(2) takes these options."""
    fsconfig_flags = sum(flag for flag, _ in _FLAGS)
    return bool(superblock & ~fsconfig_flags) or any(
        len(os.fsencode(value)) >= _STRING_LIMIT for _, value in data if value is not None
    )


def mount_flags(attributes: int, superblock: int) -> int:
    """Return mount_setattr(2) attributes and superblock flags as flags of mount(2)."""
    flags = superblock
    for attribute, flag in _ATTRIBUTES:
        if attributes & attribute:
            flags |= flag
    return flags


def mount_data(data: Data) -> str | None:
    """Return options as the data string of mount(2); a context is quoted for its commas."""
    entries = []
    for key, value in data:
        if value is not None and key == "context":
            value = f'"{value}"'
        entries.append(key if value is None else f"{key}={value}")
    return ",".join(entries) or None


def make_detached(fstype: str, source: str, data: Data, superblock: int, attributes: int) -> int:
    """Create a detached mount.

    :raises OSError: with the kernel's explanation.
    """
    flags = [name for flag, name in _FLAGS if superblock & flag]
    if attributes & MOUNT_ATTR.RDONLY and fstype not in _NO_BACKING_DEVICE:
        flags.append("ro")
    options = (*((name, None) for name in flags), *data)
    return mounts.new_filesystem(fstype, options, attributes, source=source)


def make_filesystem(
    fstype: str, source: str, data: Data, superblock: int, attributes: int, target: int
) -> int:
    """Create a detached mount of a file system; -1 if mount(2) has mounted it on ``target``."""
    if needs_mount2(data, superblock):
        return _mount_on(target, fstype, source, data, superblock, attributes)
    try:
        return make_detached(fstype, source, data, superblock, attributes)
    except OSError as error:
        if error.errno == errno.EPERM and fstype in _HOST_TREES:
            return _host_tree(_HOST_TREES[fstype], attributes, read_only=fstype == "sysfs")
        if error.errno not in _NEEDS_MOUNT:
            raise
        fsconfig_error = error
    try:
        return _mount_on(target, fstype, source, data, superblock, attributes)
    except OSError:
        raise fsconfig_error from None


def _mount_on(
    target: int, fstype: str, source: str, data: Data, superblock: int, attributes: int
) -> int:
    flags = mount_flags(attributes, superblock)
    mounts.mount(source, f"/proc/self/fd/{target}", fstype, flags, mount_data(data))
    return -1


def _host_tree(path: str, attributes: int, *, read_only: bool) -> int:
    tree = mounts.clone_tree(path, recursive=True)
    try:
        if read_only:
            attributes |= MOUNT_ATTR.RDONLY
        mounts.mount_setattr(tree, set=attributes, recursive=True)
        mounts.mount_setattr(tree, propagation=MS.PRIVATE, recursive=True)
    except BaseException:
        os.close(tree)
        raise
    return tree


_NO_XATTR = (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENODATA)

Links = dict[tuple[int, int], str]


def copy_tree(root: int, source: str, target: int) -> None:
    """Copy the directory ``source`` below ``root`` into the directory ``target``.

    :raises OSError: when a file cannot be copied.
    """
    fd = open_in_root(root, source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        top = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=target)
        try:
            _copy_directory(fd, top, top, "", {})
            st = os.fstat(fd)
            os.fchown(top, st.st_uid, st.st_gid)
        finally:
            os.close(top)
    finally:
        os.close(fd)


def _copy_directory(source: int, target: int, top: int, prefix: str, links: Links) -> None:
    for name in os.listdir(source):
        st = os.stat(name, dir_fd=source, follow_symlinks=False)
        path = f"{prefix}{name}"
        key = (st.st_dev, st.st_ino)
        if not stat.S_ISDIR(st.st_mode) and st.st_nlink > 1:
            if key in links:
                os.link(links[key], path, src_dir_fd=top, dst_dir_fd=top, follow_symlinks=False)
                continue
            links[key] = path
        if stat.S_ISDIR(st.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            fd, target_fd = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=target)
            try:
                _copy_directory(fd, target_fd, top, f"{path}/", links)
                _copy_metadata(fd, target_fd, st)
            finally:
                os.close(fd)
                os.close(target_fd)
        elif stat.S_ISREG(st.st_mode):
            _copy_file(name, source, target, st)
        elif not stat.S_ISSOCK(st.st_mode):
            _copy_special(name, source, target, st)


def _copy_file(name: str, source: int, target: int, st: os.stat_result) -> None:
    source_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        target_fd = os.open(name, flags, 0o600, dir_fd=target)
        try:
            while chunk := os.read(source_fd, 1 << 16):
                while chunk:
                    chunk = chunk[os.write(target_fd, chunk) :]
            _copy_metadata(source_fd, target_fd, st)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


def _copy_special(name: str, source: int, target: int, st: os.stat_result) -> None:
    if stat.S_ISLNK(st.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        try:
            os.mknod(name, st.st_mode, st.st_rdev, dir_fd=target)
        except PermissionError:
            return  # a device node in a user namespace, which could not be opened there
    os.chown(name, st.st_uid, st.st_gid, dir_fd=target, follow_symlinks=False)


def _copy_metadata(source: int, target: int, st: os.stat_result) -> None:
    os.fchown(target, st.st_uid, st.st_gid)
    os.fchmod(target, stat.S_IMODE(st.st_mode))
    try:
        for name in os.listxattr(source):
            os.setxattr(target, name, os.getxattr(source, name))
    except OSError as error:
        if error.errno not in _NO_XATTR:
            raise
    os.utime(target, ns=(st.st_atime_ns, st.st_mtime_ns))
