"""Trees of files below a directory descriptor: walk, remove, copy.

Nothing here recurses or joins paths to a root: a tree that a container wrote may be deeper than the
stack and longer than PATH_MAX, and may change while it is read. A symbolic link is never followed.

Facts about overlayfs (``filesystems/overlayfs.rst``): in an upper directory a character device 0:0
is a whiteout, and ``trusted.overlay.opaque`` = ``y`` hides what is below a directory. In a user
namespace, where that cannot be set, it is ``user.overlay.opaque``.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager

from jaula.kernel import paths, userns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

OPAQUE = "trusted.overlay.opaque"
USER_OPAQUE = "user.overlay.opaque"
_OVERLAY = ("trusted.overlay.", "user.overlay.")

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags that open a directory itself, never what a link in its place leads to."""
_BENEATH = paths.RESOLVE.BENEATH | paths.RESOLVE.NO_SYMLINKS


def is_whiteout(facts: os.stat_result) -> bool:
    """A character device 0:0."""
    return stat.S_ISCHR(facts.st_mode) and facts.st_rdev == 0


def is_opaque(descriptor: int) -> bool:
    """Whether a directory of an upper or a layer hides what lower layers have."""
    try:
        return os.getxattr(descriptor, opaque_xattr()) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise


def opaque_xattr() -> str:
    """The attribute that counts here."""
    return OPAQUE if userns.is_initial() else USER_OPAQUE


def can_mknod(kind: int, number: int) -> bool:
    """Whether a node can be made: in a user namespace no device can, but a whiteout is none."""
    return kind == stat.S_IFIFO or number == 0 or userns.is_initial()


def set_xattr(where: int | bytes, attribute: str, value: bytes, *, follow: bool = True) -> None:
    """Set an extended attribute; one that a user namespace cannot have is left out there.

    Only file capabilities of the ``security.`` and none of the ``trusted.`` ones can be set in one.
    """
    try:
        os.setxattr(where, attribute, value, follow_symlinks=follow)
    except PermissionError:
        reserved = attribute.startswith(("trusted.", "security."))
        if userns.is_initial() or not reserved or attribute == "security.capability":
            raise


def open_subdirectory(root_fd: int, path: bytes) -> int:
    """A directory of the tree, for reading; fails where a component is a link."""
    return paths.openat2(root_fd, path or b".", os.O_RDONLY | os.O_DIRECTORY, resolve=_BENEATH)


def walk(root_fd: int) -> Iterator[tuple[bytes, int, list[tuple[bytes, os.stat_result]]]]:
    """Each directory with its entries in order of name: ``(path, descriptor, [(name, facts)])``.

    A directory comes before what it holds. The descriptor is closed when the next is asked for.
    What disappears in between is left out. To leave out a directory, delete it from the list.
    """
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        try:
            descriptor = open_subdirectory(root_fd, path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            entries = []
            for name in sorted(map(os.fsencode, os.listdir(descriptor))):
                try:
                    entries.append((name, os.stat(name, dir_fd=descriptor, follow_symlinks=False)))
                except FileNotFoundError:
                    continue
            yield path, descriptor, entries
        finally:
            os.close(descriptor)
        below = [
            path + b"/" + name if path else name for name, f in entries if stat.S_ISDIR(f.st_mode)
        ]
        waiting.extend(reversed(below))


def remove_tree(parent_fd: int, name: bytes) -> None:
    """Remove ``name``, whatever it is; nothing there is no error.

    Directories that are found inside are moved up beside the first before they are emptied, so
    that neither depth nor the length of a path matters. What is mounted inside is left alone: that
    raises ``OSError`` (EXDEV, EBUSY).
    """
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent_fd)
            return
    except FileNotFoundError:
        return
    top = paths.openat2(parent_fd, name, DIRECTORY_FLAGS, resolve=paths.RESOLVE.NO_XDEV)
    try:
        serial = 0
        deeper = _empty(top, top, None)
        while deeper:
            moved: list[bytes] = []
            for folder in deeper:
                descriptor = paths.openat2(
                    top, folder, DIRECTORY_FLAGS, resolve=paths.RESOLVE.NO_XDEV
                )
                try:
                    for found in _empty(descriptor, top, serial):
                        moved.append(found)
                        serial += 1
                finally:
                    os.close(descriptor)
                os.rmdir(folder, dir_fd=top)
            deeper = moved
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent_fd)


def _empty(descriptor: int, top: int, serial: int | None) -> list[bytes]:
    """Unlink all but directories; move those to ``top`` under new names, which are returned."""
    folders: list[bytes] = []
    with os.scandir(descriptor) as entries:
        found = [
            (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries
        ]
    for name, is_folder in found:
        if not is_folder:
            os.unlink(name, dir_fd=descriptor)
        elif serial is None:
            folders.append(name)
        else:
            while True:
                target = b".removed-%d-%d" % (serial, len(folders))
                try:
                    os.rename(name, target, src_dir_fd=descriptor, dst_dir_fd=top)
                except OSError as error:
                    if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                        raise
                    serial += 1_000_000
                    continue
                folders.append(target)
                break
    return folders


def size_on_disk(root_fd: int) -> int:
    """Bytes of the regular files of a tree, each inode once (what Docker reports as a size)."""
    total = 0
    seen: set[tuple[int, int]] = set()
    for _, _, entries in walk(root_fd):
        for _, facts in entries:
            if stat.S_ISREG(facts.st_mode):
                if facts.st_nlink > 1:
                    key = (facts.st_dev, facts.st_ino)
                    if key in seen:
                        continue
                    seen.add(key)
                total += facts.st_size
    return total


def read_xattrs(descriptor: int, name: bytes | None = None) -> dict[str, bytes]:
    """Extended attributes of a file (or of ``name`` in a directory) but overlayfs's own."""
    where: int | bytes = descriptor
    follow = True
    if name is not None:
        where, follow = b"/proc/self/fd/%d/%s" % (descriptor, name), False
    try:
        names = os.listxattr(where, follow_symlinks=follow)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOENT):
            return {}
        raise
    return {
        attribute: os.getxattr(where, attribute, follow_symlinks=follow)
        for attribute in names
        if not attribute.startswith(_OVERLAY)
    }


def copy_metadata(source_fd: int, target_fd: int) -> None:
    """Owner, mode, attributes and times of a file or directory."""
    facts = os.fstat(source_fd)
    os.fchown(target_fd, facts.st_uid, facts.st_gid)
    os.fchmod(target_fd, stat.S_IMODE(facts.st_mode))
    for attribute, value in read_xattrs(source_fd).items():
        os.setxattr(target_fd, attribute, value)
    os.utime(target_fd, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def copy_tree(
    source_fd: int,
    target_fd: int,
    *,
    whiteout: Callable[[int, bytes], None] | None = None,
) -> None:
    """Copy what ``source_fd`` holds into ``target_fd``, and that directory's own facts.

    Ownership, modes, times, attributes, hard links, devices and FIFOs are kept; sockets are not.
    With ``whiteout`` the source is a layer that is laid over the target: what it holds replaces
    what is there, and the function is called with a directory and a name that a whiteout hides.
    """
    links: dict[tuple[int, int], bytes] = {}
    for path, folder, entries in walk(source_fd):
        target = os.dup(target_fd) if not path else open_subdirectory(target_fd, path)
        try:
            if whiteout is not None and is_opaque(folder):
                for hidden in os.listdir(target):
                    remove_tree(target, os.fsencode(hidden))
            for name, facts in entries:
                if whiteout is not None:
                    if is_whiteout(facts):
                        whiteout(target, name)
                        continue
                    if not stat.S_ISDIR(facts.st_mode) or not _is_folder(target, name):
                        remove_tree(target, name)
                first = links.get((facts.st_dev, facts.st_ino))
                if first is not None:
                    os.link(
                        first, name, src_dir_fd=target_fd, dst_dir_fd=target, follow_symlinks=False
                    )
                    continue
                if facts.st_nlink > 1 and not stat.S_ISDIR(facts.st_mode):
                    links[facts.st_dev, facts.st_ino] = path + b"/" + name if path else name
                _copy_entry(folder, target, name, facts)
        finally:
            os.close(target)
    _copy_folder_facts(source_fd, target_fd)


def _copy_folder_facts(source_fd: int, target_fd: int) -> None:
    """Once all is in place, since what is made in a directory changes its times."""
    for path, folder, _ in walk(source_fd):
        target = os.dup(target_fd) if not path else open_subdirectory(target_fd, path)
        try:
            copy_metadata(folder, target)
        finally:
            os.close(target)


def _is_folder(parent: int, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _copy_entry(source: int, target: int, name: bytes, facts: os.stat_result) -> None:
    kind = stat.S_IFMT(facts.st_mode)
    if kind == stat.S_IFDIR:
        try:
            os.mkdir(name, 0o700, dir_fd=target)
        except FileExistsError:
            if not _is_folder(target, name):
                raise
        return
    if kind == stat.S_IFREG:
        _copy_file(source, target, name)
        return
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO):
        if not can_mknod(kind, facts.st_rdev):
            return
        os.mknod(name, kind | 0o600, facts.st_rdev, dir_fd=target)
    else:
        return
    os.chown(name, facts.st_uid, facts.st_gid, dir_fd=target, follow_symlinks=False)
    if kind != stat.S_IFLNK:
        os.chmod(name, stat.S_IMODE(facts.st_mode), dir_fd=target)
    for attribute, value in read_xattrs(source, name).items():
        os.setxattr(
            b"/proc/self/fd/%d/%s" % (target, name), attribute, value, follow_symlinks=False
        )
    times = (facts.st_atime_ns, facts.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def _copy_file(source: int, target: int, name: bytes) -> None:
    reading = os.open(
        name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source
    )
    try:
        writing = os.open(
            name,
            os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
            dir_fd=target,
        )
        try:
            copy_data(reading, writing)
            copy_metadata(reading, writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def copy_data(reading: int, writing: int) -> None:
    """All data from here on; shared by the file system where it can (reflinks)."""
    try:
        while os.copy_file_range(reading, writing, 1 << 30):
            pass
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        while data := os.read(reading, 1 << 20):
            view = memoryview(data)
            while view:
                view = view[os.write(writing, view) :]


# -- directories of the store ---------------------------------------------------------------------


@contextmanager
def open_directory(path: str | Path, *, dir_fd: int | None = None) -> Iterator[int]:
    """A descriptor of the directory, closed at the end."""
    descriptor = os.open(path, DIRECTORY_FLAGS, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_new(parent: int, name: str, data: bytes) -> None:
    """Write a small file that must not be there yet; nobody else may read it."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=parent)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def remove_entries(directory: Path, names: Iterable[str]) -> bool:
    """Remove ``names`` from a directory, and itself once it is empty; whether it was there."""
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
        return True  # it holds more, which is its owner's to remove
    return True


def list_with_prefix(directory: Path, *marks: str, before: int | None = None) -> list[str]:
    """Names that start with one of ``marks``; last changed ``before`` a moment, in nanoseconds."""
    found = []
    for entry in os.scandir(directory):
        if not entry.name.startswith(marks):
            continue
        try:
            changed = entry.stat(follow_symlinks=False).st_ctime_ns
        except FileNotFoundError:
            continue
        if before is None or changed < before:
            found.append(entry.name)
    return sorted(found)


def remove_with_prefix(directory: Path, *marks: str) -> list[str]:
    """Remove all whose name starts with one of ``marks``: what a crash left half-made."""
    swept = list_with_prefix(directory, *marks)
    with open_directory(directory) as parent:
        for name in swept:
            remove_tree(parent, name.encode())
    return swept
