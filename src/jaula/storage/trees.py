"""Walk, copy and remove file trees below a directory descriptor.

No function recurses or joins paths to a root. A tree that a container wrote may be deeper than the
stack and longer than PATH_MAX, and it may change during the walk. Symbolic links are not followed.

The functions at the end work on directories of the store itself (layers, volumes, snapshots). Their
paths are the engine's, so only the last component is checked not to be a symbolic link.

Facts about overlayfs (``filesystems/overlayfs.rst``): in an upper directory a character device 0:0
is a whiteout. ``trusted.overlay.opaque`` = ``y`` on a directory hides the lower directories. In a
user namespace that attribute cannot be set; it is ``user.overlay.opaque`` there.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import sys
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from jaula.kernel import namespaces, openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

Entry = TypeVar("Entry")

OPAQUE = "trusted.overlay.opaque"
USER_OPAQUE = "user.overlay.opaque"
_OVERLAY = ("trusted.overlay.", "user.overlay.")

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags of open(2) for a directory; a symbolic link in its place is an error."""
_HOLE = 64 << 10  # bytes of the smallest hole that is kept
_ZEROS = bytes(_HOLE)
_BENEATH = openat2.RESOLVE.BENEATH | openat2.RESOLVE.NO_SYMLINKS


def is_whiteout(status: os.stat_result) -> bool:
    """Return whether a file is an overlayfs whiteout, a character device 0:0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(descriptor: int) -> bool:
    """Return whether a directory of an upper directory or layer hides the lower layers."""
    try:
        return os.getxattr(descriptor, opaque_xattr()) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise


def opaque_xattr() -> str:
    """Return the name of overlayfs's opaque attribute in this user namespace."""
    return OPAQUE if namespaces.is_initial_userns() else USER_OPAQUE


def can_mknod(kind: int, number: int) -> bool:
    """Return whether mknod(2) is permitted.

    A user namespace cannot create devices. FIFOs and whiteouts are permitted.
    """
    return kind == stat.S_IFIFO or number == 0 or namespaces.is_initial_userns()


def set_xattr(file: int | bytes, attribute: str, value: bytes, *, follow: bool = True) -> None:
    """Set an extended attribute. Skip one that cannot be set in a user namespace.

    Such a namespace can set ``security.capability``, but no other ``security.`` attribute and no
    ``trusted.`` one.
    """
    try:
        os.setxattr(file, attribute, value, follow_symlinks=follow)
    except PermissionError:
        reserved = attribute.startswith(("trusted.", "security."))
        if namespaces.is_initial_userns() or not reserved or attribute == "security.capability":
            raise


def open_subdirectory(root_fd: int, path: bytes) -> int:
    """Open a directory of the tree for reading.

    :raises OSError: when a component is absent or is a symbolic link.
    """
    return openat2.openat2(root_fd, path or b".", os.O_RDONLY | os.O_DIRECTORY, resolve=_BENEATH)


def walk(root_fd: int) -> Iterator[tuple[bytes, int, list[tuple[bytes, os.stat_result]]]]:
    """Yield each directory with its entries by name: ``(path, descriptor, [(name, status)])``.

    A directory comes before its entries. The descriptor is closed at the next iteration. Files that
    disappear meanwhile are left out. To skip a directory, remove it from the list.
    """
    return _walk(root_fd, _statuses, lambda status: stat.S_ISDIR(status.st_mode))


def walk_types(root_fd: int) -> Iterator[tuple[bytes, int, list[tuple[bytes, int]]]]:
    """Yield as :func:`walk`, with S_IFREG, S_IFDIR or 0 instead of the status of each entry.

    Most file systems have the type in the directory, so no entry is looked up.
    """
    return _walk(root_fd, _types, lambda kind: kind == stat.S_IFDIR)


def _walk(
    root_fd: int,
    read: Callable[[int], list[tuple[bytes, Entry]]],
    is_directory: Callable[[Entry], bool],
) -> Iterator[tuple[bytes, int, list[tuple[bytes, Entry]]]]:
    pending = [b""]
    while pending:
        path = pending.pop()
        try:
            descriptor = open_subdirectory(root_fd, path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            entries = read(descriptor)
            yield path, descriptor, entries
        finally:
            os.close(descriptor)
        subdirectories = [
            path + b"/" + name if path else name for name, entry in entries if is_directory(entry)
        ]
        pending.extend(reversed(subdirectories))


def _statuses(descriptor: int) -> list[tuple[bytes, os.stat_result]]:
    entries = []
    for name in sorted(map(os.fsencode, os.listdir(descriptor))):
        try:
            entries.append((name, os.stat(name, dir_fd=descriptor, follow_symlinks=False)))
        except FileNotFoundError:
            continue
    return entries


def _types(descriptor: int) -> list[tuple[bytes, int]]:
    with os.scandir(descriptor) as scan:
        return sorted((os.fsencode(entry.name), _type(entry)) for entry in scan)


def _type(entry: os.DirEntry[str]) -> int:
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    return stat.S_IFDIR if entry.is_dir(follow_symlinks=False) else 0


def remove_tree(parent_fd: int, name: bytes) -> None:
    """Remove the file or directory ``name`` if it exists.

    Subdirectories are renamed into the top directory before they are emptied, so neither depth nor
    path length matters. The new names cannot be predicted: a program that owned the tree could
    have made directories with them, and rename(2) replaces an empty one.

    :raises OSError: when something is mounted inside (EXDEV, EBUSY); the mount is not touched.
    """
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent_fd)
            return
    except FileNotFoundError:
        return
    top = openat2.openat2(parent_fd, name, DIRECTORY_FLAGS, resolve=openat2.RESOLVE.NO_XDEV)
    try:
        prefix = b".removed-" + os.urandom(8).hex().encode()
        names = (b"%s-%d" % (prefix, number) for number in itertools.count())
        deeper = _unlink_files(top)
        while deeper:
            moved: list[bytes] = []
            for directory in deeper:
                descriptor = openat2.openat2(
                    top, directory, DIRECTORY_FLAGS, resolve=openat2.RESOLVE.NO_XDEV
                )
                try:
                    for child in _unlink_files(descriptor):
                        name_at_top = next(names)
                        os.rename(child, name_at_top, src_dir_fd=descriptor, dst_dir_fd=top)
                        moved.append(name_at_top)
                finally:
                    os.close(descriptor)
                os.rmdir(directory, dir_fd=top)
            deeper = moved
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent_fd)


def _unlink_files(descriptor: int) -> list[bytes]:
    """Unlink everything in a directory but its directories, and return the names of these."""
    directories: list[bytes] = []
    with os.scandir(descriptor) as entries:
        listing = [
            (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries
        ]
    for name, is_directory in listing:
        if is_directory:
            directories.append(name)
        else:
            os.unlink(name, dir_fd=descriptor)
    return directories


def tree_usage(root_fd: int, check: Callable[[], None] = lambda: None) -> tuple[int, int]:
    """Return the bytes of a tree's regular files, and its inodes with that of the root directory.

    Each inode counts once. ``check`` is called for each directory, and raises to end the work.
    """
    size, inodes = 0, 1
    seen: set[tuple[int, int]] = set()
    for _, _, entries in walk(root_fd):
        check()
        for _, status in entries:
            if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
                key = (status.st_dev, status.st_ino)
                if key in seen:
                    continue
                seen.add(key)
            inodes += 1
            if stat.S_ISREG(status.st_mode):
                size += status.st_size
    return size, inodes


def size_on_disk(root_fd: int) -> int:
    """Return the bytes of a tree's regular files, each inode once, as Docker reports a size."""
    return tree_usage(root_fd)[0]


def read_xattrs(descriptor: int, name: bytes | None = None) -> dict[str, bytes]:
    """Return the extended attributes of a file, or of ``name`` in it, without overlayfs's."""
    file: int | bytes = descriptor
    follow = True
    if name is not None:
        file, follow = b"/proc/self/fd/%d/%s" % (descriptor, name), False
    try:
        names = os.listxattr(file, follow_symlinks=follow)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOENT):
            return {}
        raise
    return {
        attribute: os.getxattr(file, attribute, follow_symlinks=follow)
        for attribute in names
        if not attribute.startswith(_OVERLAY)
    }


def copy_metadata(source_fd: int, target_fd: int) -> None:
    """Copy owner, mode, extended attributes and times of a file or directory."""
    status = os.fstat(source_fd)
    os.fchown(target_fd, status.st_uid, status.st_gid)
    os.fchmod(target_fd, stat.S_IMODE(status.st_mode))
    for attribute, value in read_xattrs(source_fd).items():
        os.setxattr(target_fd, attribute, value)
    os.utime(target_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def copy_tree(
    source_fd: int,
    target_fd: int,
    *,
    whiteout: Callable[[int, bytes], None] | None = None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Copy the content and the metadata of directory ``source_fd`` to ``target_fd``.

    Owners, modes, times, extended attributes, hard links, devices and FIFOs are kept. Sockets are
    skipped. With ``whiteout`` the source is a layer that is applied to the target: its entries
    replace existing ones. ``whiteout`` is called with the directory and the name to hide.
    ``check`` is called before each entry, and raises to end the copy.
    """
    links: dict[tuple[int, int], bytes] = {}
    for path, directory, entries in walk(source_fd):
        target = os.dup(target_fd) if not path else open_subdirectory(target_fd, path)
        try:
            if whiteout is not None and is_opaque(directory):
                for hidden in os.listdir(target):
                    remove_tree(target, os.fsencode(hidden))
            for name, status in entries:
                check()
                if whiteout is not None:
                    if is_whiteout(status):
                        whiteout(target, name)
                        continue
                    if not stat.S_ISDIR(status.st_mode) or not _is_directory(target, name):
                        remove_tree(target, name)
                first = links.get((status.st_dev, status.st_ino))
                if first is not None:
                    os.link(
                        first, name, src_dir_fd=target_fd, dst_dir_fd=target, follow_symlinks=False
                    )
                    continue
                if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                    links[status.st_dev, status.st_ino] = path + b"/" + name if path else name
                copy_entry(directory, target, name, status)
        finally:
            os.close(target)
    _copy_directory_metadata(source_fd, target_fd)


def _copy_directory_metadata(source_fd: int, target_fd: int) -> None:
    """Copy the metadata of all directories, last: a new entry changes a directory's times."""
    for path, directory, _ in walk(source_fd):
        target = os.dup(target_fd) if not path else open_subdirectory(target_fd, path)
        try:
            copy_metadata(directory, target)
        finally:
            os.close(target)


def _is_directory(parent: int, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def copy_entry(
    source: int, target: int, name: bytes, status: os.stat_result, *, limit: int | None = None
) -> None:
    """Copy one entry of a directory; of a directory itself only the name.

    ``limit`` is the most bytes of a file that are copied: a program may write to it meanwhile.
    Sockets are skipped.
    """
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        try:
            os.mkdir(name, 0o700, dir_fd=target)
        except FileExistsError:
            if not _is_directory(target, name):
                raise
        return
    if kind == stat.S_IFREG:
        _copy_file(source, target, name, limit)
        return
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO):
        if not can_mknod(kind, status.st_rdev):
            return
        os.mknod(name, kind | 0o600, status.st_rdev, dir_fd=target)
    else:
        return
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    if kind != stat.S_IFLNK:
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
    for attribute, value in read_xattrs(source, name).items():
        os.setxattr(
            b"/proc/self/fd/%d/%s" % (target, name), attribute, value, follow_symlinks=False
        )
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def _copy_file(source: int, target: int, name: bytes, limit: int | None) -> None:
    source_file = os.open(
        name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source
    )
    try:
        target_file = os.open(
            name,
            os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
            dir_fd=target,
        )
        try:
            copy_data(source_file, target_file, limit)
            copy_metadata(source_file, target_file)
        finally:
            os.close(target_file)
    finally:
        os.close(source_file)


def copy_data(source: int, target: int, limit: int | None = None) -> None:
    """Copy the data from the current offset on, by reflinks where the file system can.

    At most ``limit`` bytes are copied.
    """
    left = sys.maxsize if limit is None else limit
    try:
        while left and (count := os.copy_file_range(source, target, min(left, 1 << 30))):
            left -= count
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        while left and (data := os.read(source, min(left, 1 << 20))):
            write_all(target, memoryview(data))
            left -= len(data)


def write_all(fd: int, data: memoryview) -> None:
    """Write all of ``data``."""
    while data:
        data = data[os.write(fd, data) :]


def write_sparse(fd: int, data: memoryview) -> None:
    """Write ``data`` and leave holes for blocks of zeros; ftruncate(2) sets the size at the end."""
    start = 0
    for offset in range(0, len(data), _HOLE):
        block = data[offset : offset + _HOLE]
        # Bytes are compared by memcmp(3), and views item by item.
        if block[0] or block.tobytes() != _ZEROS[: len(block)]:
            continue
        write_all(fd, data[start:offset])
        os.lseek(fd, len(block), os.SEEK_CUR)
        start = offset + len(block)
    write_all(fd, data[start:])


# -- changes of files ---------------------------------------------------------------------------

RECENT = 100_000_000
"""Nanoseconds, longer than a tick of the clock of ctime: a file may change twice within one."""


class Fingerprint(NamedTuple):
    """The marks of a file that a change of it changes; the size in bytes, ``ctime`` in nanoseconds.

    Every change of content, metadata or links sets ctime.
    """

    device: int
    inode: int
    mode: int
    size: int
    ctime: int

    @classmethod
    def of(cls, status: os.stat_result) -> Fingerprint:
        """Return the fingerprint of a file. Pure."""
        return cls(status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_ctime_ns)


# -- directories of the store ---------------------------------------------------------------------


@contextmanager
def open_directory(path: str | Path, *, dir_fd: int | None = None) -> Iterator[int]:
    """Yield a descriptor of the directory, and close it."""
    descriptor = os.open(path, DIRECTORY_FLAGS, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_new(parent: int, name: str, data: bytes) -> None:
    """Write a small new file with mode 0600.

    :raises FileExistsError: when it exists.
    """
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=parent)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def remove_entries(directory: Path, names: Iterable[str]) -> bool:
    """Remove ``names`` from a directory, then the directory if it is empty.

    Return whether the directory existed.
    """
    try:
        parent = os.open(directory, DIRECTORY_FLAGS)
    except FileNotFoundError:
        return False
    try:
        for name in names:
            remove_tree(parent, name.encode())
    finally:
        os.close(parent)
    try:
        directory.rmdir()
    except OSError:
        return True  # it has other entries, which their owner removes
    return True


def list_with_prefix(directory: Path, *prefixes: str, before: int | None = None) -> list[str]:
    """Return the names with one of the prefixes, sorted.

    ``before`` selects those whose ctime is earlier, in nanoseconds since the epoch.
    """
    listing = []
    for entry in os.scandir(directory):
        if not entry.name.startswith(prefixes):
            continue
        try:
            changed = entry.stat(follow_symlinks=False).st_ctime_ns
        except FileNotFoundError:
            continue
        if before is None or changed < before:
            listing.append(entry.name)
    return sorted(listing)


def remove_with_prefix(directory: Path, *prefixes: str) -> list[str]:
    """Remove all names with one of the prefixes, which a crash left incomplete. Return them."""
    names = list_with_prefix(directory, *prefixes)
    with open_directory(directory) as parent:
        for name in names:
            remove_tree(parent, name.encode())
    return names
