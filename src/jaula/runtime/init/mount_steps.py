"""Steps that mount: what was prepared outside, fresh file systems, cgroup directories."""

from __future__ import annotations

import errno
import os
import stat

import msgspec

from jaula.kernel import mounts
from jaula.kernel.mounts import MOUNT_ATTR, MS
from jaula.kernel.paths import (
    RESOLVE,
    make_directory_in_root,
    open_in_root,
    openat2,
)
from jaula.runtime.init.step import RootfsContext, attach, not_in_proc, place_for, shape


class AttachPrepared(msgspec.Struct, frozen=True):
    """Attach a mount that the shim made with the host's view."""

    slot: int
    destination: str

    def describe(self) -> str:
        return f"attach prepared mount {self.slot} at {self.destination}"

    def execute(self, stage: RootfsContext) -> None:
        tree = stage.prepared.pop(self.slot)
        try:
            attach(tree, place_for(stage, self.destination, tree))
        finally:
            os.close(tree)


class MountFilesystem(msgspec.Struct, frozen=True):
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

    def execute(self, stage: RootfsContext) -> None:
        like_below = (
            self.fstype == "tmpfs"
            and not any(key == "mode" for key, _ in self.data)
            and _exists(stage, self.destination)
        )
        target = not_in_proc(make_directory_in_root(stage.root, self.destination), self.destination)
        if self.fstype == "proc" or self.fstype == "sysfs":
            _refuse_link(stage, self.destination)
        data = self.data
        if like_below:
            mode = stat.S_IMODE(os.fstat(target).st_mode)  # where there is none, the kernel's 1777
            data = (*data, ("mode", f"{mode:o}"))
        late = mounts.MOUNT_ATTR.RDONLY if self.copy_up else 0
        source = self.source or self.fstype
        attributes = self.attributes & ~late
        tree = make_filesystem(self.fstype, source, data, self.superblock, attributes, target)
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
                attach(tree, target)
        finally:
            os.close(tree)


class Remount(msgspec.Struct, frozen=True):
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

    def execute(self, stage: RootfsContext) -> None:
        place = not_in_proc(open_in_root(stage.root, self.destination, os.O_PATH), self.destination)
        try:
            if not self.bind and (self.data or self.superblock):
                flags = mounts.MS.REMOUNT | mount_flags(self.one[0], self.superblock)
                data = mount_data(self.data)
                mounts.mount(None, f"/proc/self/fd/{place}", None, flags, data)
            shape(place, self.one, self.recursive, self.propagation)
        finally:
            os.close(place)


class BindHost(msgspec.Struct, frozen=True):
    """Bind a directory of the host's tree, which is ``/`` here, such as the container's cgroup."""

    source: str
    destination: str
    attributes: int

    def describe(self) -> str:
        return f"bind {self.source} at {self.destination}"

    def execute(self, stage: RootfsContext) -> None:
        tree = mounts.clone_tree(self.source, recursive=True)
        try:
            private = ((int(mounts.MS.PRIVATE), True),)
            shape(tree, (0, 0), (self.attributes, 0), private)
            attach(tree, place_for(stage, self.destination, tree))
        finally:
            os.close(tree)


def _exists(stage: RootfsContext, destination: str) -> bool:
    try:
        os.close(open_in_root(stage.root, destination, os.O_PATH))
    except FileNotFoundError:
        return False
    return True


def _refuse_link(stage: RootfsContext, destination: str) -> None:
    """Proc and sysfs are mounted only on real directories of the image (CVE-2019-19921)."""
    os.close(
        openat2(
            stage.root,
            destination.lstrip("/"),
            os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW,
            resolve=RESOLVE.IN_ROOT | RESOLVE.NO_SYMLINKS,
        )
    )


Data = tuple[tuple[str, str | None], ...]

_STRING_LIMIT = 256
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
_WITHOUT_DEVICE = frozenset(
    {"proc", "sysfs", "tmpfs", "ramfs", "devpts", "mqueue", "cgroup", "cgroup2", "overlay"}
)
_INSTEAD = {"proc": "/proc", "sysfs": "/sys"}
_OLD_WAY = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


def needs_mount2(data: Data, superblock: int) -> bool:
    """Whether only mount(2) can be asked for this."""
    known = sum(flag for flag, _ in _FLAGS)
    return bool(superblock & ~known) or any(
        len(os.fsencode(value)) >= _STRING_LIMIT for _, value in data if value is not None
    )


def mount_flags(attributes: int, superblock: int) -> int:
    """Attributes of mount_setattr(2) and superblock flags as flags of mount(2)."""
    flags = superblock
    for attribute, flag in _ATTRIBUTES:
        if attributes & attribute:
            flags |= flag
    return flags


def mount_data(data: Data) -> str | None:
    """Options as mount(2) takes them; a context with commas in quotes."""
    words = []
    for key, value in data:
        if value is not None and key == "context":
            value = f'"{value}"'
        words.append(key if value is None else f"{key}={value}")
    return ",".join(words) or None


def make_detached(fstype: str, source: str, data: Data, superblock: int, attributes: int) -> int:
    """A detached mount. Raises ``OSError`` with the kernel's explanation."""
    context = mounts.fsopen(fstype)
    try:
        mounts.fsconfig_set_string(context, "source", source)
        for flag, name in _FLAGS:
            if superblock & flag:
                mounts.fsconfig_set_flag(context, name)
        if attributes & MOUNT_ATTR.RDONLY and fstype not in _WITHOUT_DEVICE:
            mounts.fsconfig_set_flag(context, "ro")
        for key, value in data:
            if value is None:
                mounts.fsconfig_set_flag(context, key)
            else:
                mounts.fsconfig_set_string(context, key, value)
        mounts.fsconfig_create(context)
        return mounts.fsmount(context, attributes)
    finally:
        os.close(context)


def make_filesystem(
    fstype: str, source: str, data: Data, superblock: int, attributes: int, target: int
) -> int:
    """A detached mount of the file system; -1 where mount(2) has put it on ``target`` already."""
    if needs_mount2(data, superblock):
        return _on(target, fstype, source, data, superblock, attributes)
    try:
        return make_detached(fstype, source, data, superblock, attributes)
    except OSError as error:
        if error.errno == errno.EPERM and fstype in _INSTEAD:
            return _host_tree(_INSTEAD[fstype], attributes, read_only=fstype == "sysfs")
        if error.errno not in _OLD_WAY:
            raise
        first = error
    try:
        return _on(target, fstype, source, data, superblock, attributes)
    except OSError:
        raise first from None


def _on(target: int, fstype: str, source: str, data: Data, superblock: int, attributes: int) -> int:
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
    """Copy ``source`` below ``root`` into the directory ``target``. Raises ``OSError``."""
    fd = open_in_root(root, source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        top = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=target)
        try:
            _copy_directory(fd, top, top, "", {})
            facts = os.fstat(fd)
            os.fchown(top, facts.st_uid, facts.st_gid)
        finally:
            os.close(top)
    finally:
        os.close(fd)


def _copy_directory(source: int, target: int, top: int, below: str, links: Links) -> None:
    for name in os.listdir(source):
        facts = os.stat(name, dir_fd=source, follow_symlinks=False)
        place = f"{below}{name}"
        key = (facts.st_dev, facts.st_ino)
        if not stat.S_ISDIR(facts.st_mode) and facts.st_nlink > 1:
            if key in links:
                os.link(links[key], place, src_dir_fd=top, dst_dir_fd=top, follow_symlinks=False)
                continue
            links[key] = place
        if stat.S_ISDIR(facts.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            fd, into = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=target)
            try:
                _copy_directory(fd, into, top, f"{place}/", links)
                _copy_metadata(fd, into, facts)
            finally:
                os.close(fd)
                os.close(into)
        elif stat.S_ISREG(facts.st_mode):
            _copy_file(name, source, target, facts)
        elif not stat.S_ISSOCK(facts.st_mode):
            _copy_special(name, source, target, facts)


def _copy_file(name: str, source: int, target: int, facts: os.stat_result) -> None:
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        writing = os.open(name, flags, 0o600, dir_fd=target)
        try:
            while chunk := os.read(reading, 1 << 16):
                while chunk:
                    chunk = chunk[os.write(writing, chunk) :]
            _copy_metadata(reading, writing, facts)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _copy_special(name: str, source: int, target: int, facts: os.stat_result) -> None:
    if stat.S_ISLNK(facts.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        try:
            os.mknod(name, facts.st_mode, facts.st_rdev, dir_fd=target)
        except PermissionError:
            return  # a device node in a user namespace, where it could not be opened either
    os.chown(name, facts.st_uid, facts.st_gid, dir_fd=target, follow_symlinks=False)


def _copy_metadata(source: int, target: int, facts: os.stat_result) -> None:
    os.fchown(target, facts.st_uid, facts.st_gid)
    os.fchmod(target, stat.S_IMODE(facts.st_mode))
    try:
        for name in os.listxattr(source):
            os.setxattr(target, name, os.getxattr(source, name))
    except OSError as error:
        if error.errno not in _NO_XATTR:
            raise
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))
