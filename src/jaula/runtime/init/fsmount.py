"""Mounting a fresh file system of any type the kernel has: detached, or straight on its place.

Follows fsopen(2), fsconfig(2), mount(2).

Facts: fsconfig takes strings of less than 256 bytes, so that a long ``lowerdir`` has to go through
mount(2), as does the flag ``iversion``, which has no parameter. Some types parse their options only
there. Sysfs is refused with EPERM in a network namespace, and proc in a pid namespace, that the
user namespace does not own; the host's tree is bound instead then, sysfs read-only throughout.
"""

from __future__ import annotations

import errno
import os

from jaula.kernel import mounts
from jaula.kernel.mounts import MOUNT_ATTR, MS

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


def flags_of(attributes: int, superblock: int) -> int:
    """Attributes of mount_setattr(2) and superblock flags as flags of mount(2)."""
    flags = superblock
    for attribute, flag in _ATTRIBUTES:
        if attributes & attribute:
            flags |= flag
    return flags


def data_text(data: Data) -> str | None:
    """Options as mount(2) takes them; a context with commas in quotes."""
    words = []
    for key, value in data:
        if value is not None and key == "context":
            value = f'"{value}"'
        words.append(key if value is None else f"{key}={value}")
    return ",".join(words) or None


def detached(fstype: str, source: str, data: Data, superblock: int, attributes: int) -> int:
    """A detached mount. Raises ``OSError`` with the kernel's explanation."""
    flags = [name for flag, name in _FLAGS if superblock & flag]
    if attributes & MOUNT_ATTR.RDONLY and fstype not in _WITHOUT_DEVICE:
        flags.append("ro")
    options = (*((name, None) for name in flags), *data)
    return mounts.new_filesystem(fstype, options, attributes, source=source)


def make(
    fstype: str, source: str, data: Data, superblock: int, attributes: int, target: int
) -> int:
    """A detached mount of the file system; -1 where mount(2) has put it on ``target`` already."""
    if needs_mount2(data, superblock):
        return _on(target, fstype, source, data, superblock, attributes)
    try:
        return detached(fstype, source, data, superblock, attributes)
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
    flags = flags_of(attributes, superblock)
    mounts.mount(source, f"/proc/self/fd/{target}", fstype, flags, data_text(data))
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
