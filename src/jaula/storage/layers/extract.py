"""Extract one layer into a directory, by directory descriptors.

Follows opencontainers/image-spec 1.1 ``layer.md`` (change sets, whiteouts) and the kernel's
``filesystems/overlayfs.rst`` for whiteouts on disk: a character device 0:0, and the attribute
``trusted.overlay.opaque`` = ``y`` on a directory that hides the lower layers.

The directory is empty, and no other process uses it. No path is joined to it: the parent of a name
is opened once with ``RESOLVE_IN_ROOT``. So links of the layer are followed inside the layer, and
the last component is never followed. Names with ``..`` are refused.

Ids, modes (set-user-ID included), times in nanoseconds, extended attributes, hard links and devices
are those of the archive. Attributes of overlayfs and of security modules are dropped, because the
host would interpret them. In a user namespace devices are left out, because it cannot create them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jaula.errors import InvalidRequest
from jaula.kernel import namespaces, openat2
from jaula.storage import free_space
from jaula.storage.file_errors import file_error
from jaula.storage.tar.tar_entry import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    TarEntry,
    quote_name,
)
from jaula.storage.trees import (
    DIRECTORY_FLAGS,
    can_mknod,
    is_whiteout,
    opaque_xattr,
    remove_tree,
    set_xattr,
    size_on_disk,
    write_all,
    write_sparse,
)

if TYPE_CHECKING:
    from jaula.storage.erofs.erofs_tree import BlobWriter
    from jaula.storage.tar.tar_reader import Archive

WHITEOUT_PREFIX = b".wh."
_AUFS_PREFIX = b".wh..wh."
OPAQUE_NAME = b".wh..wh..opq"
_CACHE = 512  # open directories
DROPPED_XATTRS = ("trusted.overlay.", "user.overlay.", "security.selinux", "security.apparmor")

_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Extractor:
    """Extracts one archive.

    ``size`` is the total size of the regular files in bytes. ``states_root`` says whether the
    archive has an entry for the root directory. Without ``whiteouts`` a name that begins with
    ``.wh.`` is a file like any other. With ``sparse`` blocks of zeros become holes. With ``blob``
    the contents of files go there, and the files have the right size and no data. The directory can
    be on another file system then.
    """

    def __init__(
        self,
        root_fd: int,
        *,
        whiteouts: bool = True,
        sparse: bool = False,
        blob: BlobWriter | None = None,
    ) -> None:
        self._root = root_fd
        self._blob = blob
        self._whiteouts = whiteouts
        self._sparse = sparse
        self._directories: dict[bytes, int] = {}
        self._times: dict[bytes, int] = {}
        self._unchecked = 0
        self._has_replaced = False
        self.size = 0
        self.states_root = False

    def run(self, reader: Archive) -> None:
        """Extract all entries.

        :raises InvalidRequest: when an entry is not valid in a layer.
        :raises Unavailable: when the disk is full.
        """
        try:
            for entry in reader:
                with _errors_for(entry):
                    self._extract(entry, reader)
            self._set_times()
            if self._has_replaced:
                self.size = size_on_disk(self._root)
        finally:
            self._close_directories()

    @property
    def timed_directories(self) -> Collection[bytes]:
        """The directories whose times the archive has. Others have their creation time."""
        return self._times.keys()

    # -- directories ----------------------------------------------------------------------------

    def _open_directory(self, path: bytes) -> int:
        """Return a descriptor of a directory of the layer, and create it if absent."""
        if not path:
            return self._root
        descriptor = self._directories.pop(path, None)  # reinserted as the newest
        if descriptor is not None:
            self._directories[path] = descriptor
        else:
            try:
                descriptor = openat2.open_in_root(self._root, path, os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                descriptor = openat2.make_directory_in_root(self._root, os.fsdecode(path))
            self._remember(path, descriptor)
        return descriptor

    def _remember(self, path: bytes, descriptor: int) -> None:
        if len(self._directories) > _CACHE:
            for oldest in list(self._directories)[: _CACHE // 2]:
                os.close(self._directories.pop(oldest))
        previous = self._directories.pop(path, None)
        if previous is not None:
            os.close(previous)
        self._directories[path] = descriptor

    def _close_directories(self) -> None:
        """Close all directories. A replaced directory or link may have changed their paths."""
        for descriptor in self._directories.values():
            os.close(descriptor)
        self._directories.clear()

    def _set_times(self) -> None:
        """Set the times of directories, last: a new entry changes a directory's times."""
        for path, time in self._times.items():
            parent_path, _, name = path.rpartition(b"/")
            try:
                if not path:
                    os.utime(self._root, ns=(time, time))
                else:
                    os.utime(
                        name,
                        ns=(time, time),
                        dir_fd=self._open_directory(parent_path),
                        follow_symlinks=False,
                    )
            except (FileNotFoundError, NotADirectoryError):
                continue  # a later entry replaced it

    # -- entries --------------------------------------------------------------------------------

    def _extract(self, entry: TarEntry, reader: Archive) -> None:
        path = clean_path(entry.name)
        if not path:
            self._extract_root(entry)
            return
        parent_path, _, name = path.rpartition(b"/")
        if self._whiteouts and name.startswith(WHITEOUT_PREFIX):
            self._apply_whiteout(parent_path, name)
            return
        parent = self._open_directory(parent_path)
        if entry.type == REGULAR:
            self._extract_file(parent, path, name, entry, reader)
        elif entry.type == DIRECTORY:
            self._extract_directory(parent, path, name, entry)
        elif entry.type == HARD_LINK:
            self._extract_hard_link(parent, path, name, entry)
        else:
            self._extract_node(parent, path, name, entry)

    def _extract_root(self, entry: TarEntry) -> None:
        if entry.type != DIRECTORY:
            raise InvalidRequest(f"entry {quote_name(entry.name)} would replace the root directory")
        self._set_metadata(self._root, entry)
        self._times[b""] = entry.mtime
        self.states_root = True

    def _set_metadata(self, descriptor: int, entry: TarEntry) -> None:
        """Set owner, mode and attributes. Skip equal values: fstat(2) is cheaper than a change."""
        status = os.fstat(descriptor)
        changed = (status.st_uid, status.st_gid) != (entry.uid, entry.gid)
        if changed:
            os.fchown(descriptor, entry.uid, entry.gid)
        if changed or stat.S_IMODE(status.st_mode) != entry.mode:
            # after chown, which clears set-user-ID and capabilities
            os.fchmod(descriptor, entry.mode)
        for attribute, value in entry.xattrs.items():
            if not attribute.startswith(DROPPED_XATTRS):
                set_xattr(descriptor, attribute, value)

    def _extract_file(
        self, parent: int, path: bytes, name: bytes, entry: TarEntry, reader: Archive
    ) -> None:
        try:
            descriptor = os.open(name, _NEW_FILE, entry.mode & 0o777, dir_fd=parent)
        except FileExistsError:
            parent = self._clear(path, name)
            descriptor = os.open(name, _NEW_FILE, entry.mode & 0o777, dir_fd=parent)
        try:
            if entry.size:
                if self._blob is not None:
                    inode = os.fstat(descriptor).st_ino
                    self._blob.append(inode, entry.size, reader.data())
                else:
                    self._reserve(descriptor, entry.size)
                    write = write_sparse if self._sparse else write_all
                    for chunk in reader.data():
                        write(descriptor, chunk)
                if self._sparse or self._blob is not None:
                    os.ftruncate(descriptor, entry.size)
            self._set_metadata(descriptor, entry)
            os.utime(descriptor, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(descriptor)
        self.size += entry.size

    def _reserve(self, descriptor: int, size: int) -> None:
        """Check that a file leaves enough free space, at most once in an eighth of it.

        :raises OSError: when it would not (ENOSPC).
        """
        self._unchecked -= size
        if self._unchecked < 0:
            self._unchecked = free_space.check(descriptor, size) // 8

    def _extract_directory(self, parent: int, path: bytes, name: bytes, entry: TarEntry) -> None:
        opaque_directory = False
        try:
            os.mkdir(name, entry.mode & 0o777, dir_fd=parent)
        except FileExistsError:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                opaque_directory = is_whiteout(status)
                parent = self._clear(path, name)
                os.mkdir(name, entry.mode & 0o777, dir_fd=parent)
        descriptor = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
        self._remember(path, descriptor)
        self._set_metadata(descriptor, entry)
        if opaque_directory:
            os.setxattr(descriptor, opaque_xattr(), b"y")
        self._times[path] = entry.mtime

    def _extract_hard_link(self, parent: int, path: bytes, name: bytes, entry: TarEntry) -> None:
        target = clean_path(entry.link)
        if target == path:
            raise InvalidRequest(f"entry {quote_name(entry.name)} is a hard link to itself")
        parent_path, _, target_name = target.rpartition(b"/")
        if _exists(parent, name):
            self._clear(path, name)
        source = self._open_directory(parent_path)
        parent = self._open_directory(path.rpartition(b"/")[0])
        os.link(target_name, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def _extract_node(self, parent: int, path: bytes, name: bytes, entry: TarEntry) -> None:
        if _exists(parent, name):
            parent = self._clear(path, name)
        if entry.type == SYMLINK:
            os.symlink(entry.link, name, dir_fd=parent)
        else:
            kind = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}[
                entry.type
            ]
            if not can_mknod(kind, os.makedev(entry.major, entry.minor)):
                return
            os.mknod(name, kind | 0o600, os.makedev(entry.major, entry.minor), dir_fd=parent)
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.type != SYMLINK:
            os.chmod(name, entry.mode, dir_fd=parent)
        for attribute, value in entry.xattrs.items():
            if not attribute.startswith(DROPPED_XATTRS):
                link = b"/proc/self/fd/%d/%s" % (parent, name)
                set_xattr(link, attribute, value, follow=False)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _clear(self, path: bytes, name: bytes) -> int:
        """Remove the file that a later entry replaces. Return the parent, opened again."""
        parent_path = path.rpartition(b"/")[0]
        parent = self._open_directory(parent_path)
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        self._times.pop(path, None)
        self._has_replaced = True
        if stat.S_ISDIR(status.st_mode):
            remove_tree(parent, name)
            self._close_directories()
        else:
            os.unlink(name, dir_fd=parent)
            if stat.S_ISLNK(status.st_mode):
                self._close_directories()
        return self._open_directory(parent_path)

    # -- whiteouts ------------------------------------------------------------------------------

    def _apply_whiteout(self, parent_path: bytes, name: bytes) -> None:
        """Apply a whiteout. It hides files of lower layers, never files of this layer."""
        if name == OPAQUE_NAME:
            self._make_opaque(parent_path)
            return
        if name.startswith(_AUFS_PREFIX):
            return  # metadata of aufs
        hidden = name.removeprefix(WHITEOUT_PREFIX)
        if hidden in (b"", b".", b".."):
            raise InvalidRequest(f"whiteout {quote_name(name)} does not name a file")
        parent = self._open_directory(parent_path)
        try:
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        except FileExistsError:
            status = os.stat(hidden, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                self._make_opaque(parent_path + b"/" + hidden if parent_path else hidden)

    def _make_opaque(self, parent_path: bytes) -> None:
        descriptor = openat2.open_in_root(
            self._root, parent_path or b".", os.O_RDONLY | os.O_DIRECTORY
        )
        try:
            os.setxattr(descriptor, opaque_xattr(), b"y")
        finally:
            os.close(descriptor)


def clean_path(name: bytes) -> bytes:
    """Return a name relative to the layer's root, without empty and ``.`` components.

    :raises InvalidRequest: when a component is ``..``.
    """
    if b"//" not in name and b"./" not in name and not name.startswith(b"/"):
        path = name.rstrip(b"/")
        if path not in (b".", b"..") and not path.endswith((b"/.", b"/..")):
            return path
    components = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in components:
        raise InvalidRequest(f"entry {quote_name(name)} leaves the layer's directory")
    return b"/".join(components)


def _exists(parent: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _errors_for(entry: TarEntry) -> Iterator[None]:
    """Convert errors of the kernel to errors about the entry."""
    name = quote_name(entry.name)
    try:
        yield
    except (OSError, OverflowError, ValueError) as error:
        bad_owner = isinstance(error, OSError) and error.errno == errno.EINVAL
        if bad_owner and not namespaces.is_initial_userns():
            raise InvalidRequest(
                f"cannot unpack entry {name}: one of its owners {entry.uid}:{entry.gid}"
                " is not an id of this engine's user namespace",
                hint="give the user more ids in /etc/subuid and /etc/subgid",
            ) from error
        raise file_error(error, f"cannot unpack entry {name}") from error
