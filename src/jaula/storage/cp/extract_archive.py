"""Extract a tar archive into a directory that other processes use at the same time.

Follows the Docker Engine API 1.45, ``PutContainerArchive``: entries replace files of the same name,
directories are merged, missing parents are created. ``keep_kinds`` is ``noOverwriteDirNonDir``: a
directory does not replace a file, and a file does not replace a directory.

A layer of an image (:mod:`jaula.storage.layers.extract`) is extracted in private. These files
belong to a container that may be running and hostile. Therefore:

* The kernel opens a parent below the root (``RESOLVE_IN_ROOT``): links are followed inside it.
* A file is created with ``O_EXCL``, and its name is never followed. An existing file is unlinked.
* Owner, mode and times are set through the descriptor of the new file, never through its name.
* No file is created on a kernel file system, and no device node without ``devices``.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from jaula.errors import Conflict, InvalidRequest, NotAuthorized
from jaula.kernel import openat2
from jaula.kernel.openat2 import RESOLVE
from jaula.storage.file_errors import file_error
from jaula.storage.path_resolve import on_kernel_filesystem, refuse_kernel_filesystem
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
from jaula.storage.trees import DIRECTORY_FLAGS, can_mknod, remove_tree

Owner = Callable[[int, int], tuple[int, int]]
"""Maps an entry's uid and gid to the ids to set on disk."""


class Archive(Protocol):
    """An iterator over entries that has the data of the present entry in chunks."""

    def __iter__(self) -> Iterator[TarEntry]: ...

    def data(self) -> Iterator[memoryview]: ...


_ATTEMPTS = 16  # to create a name that another process keeps recreating
_CACHE = 64  # open directories
_MAX_TIMES = 65536  # directories whose times are remembered until the end
_ITSELF = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS
_NODES = {FIFO: stat.S_IFIFO, CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK}
_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class ArchiveExtractor:
    """Extracts into ``directory`` below ``root_fd``.

    ``owner`` maps owners; without it new files belong to this process. ``parents`` is the owner of
    directories that the archive does not have. Without ``privileges`` files get no set-user-ID bits
    and no capabilities. ``devices`` permits device nodes: it is for a new layer, which no process
    uses and which is mounted where device nodes have no effect.
    """

    def __init__(
        self,
        root_fd: int,
        directory: str,
        *,
        owner: Owner | None = None,
        parents: tuple[int, int] | None = None,
        keep_kinds: bool = False,
        privileges: bool = True,
        devices: bool = False,
    ) -> None:
        self._root = root_fd
        self._directory = os.fsencode(directory)
        self._owner = owner
        self._parents = parents
        self._keep_kinds = keep_kinds
        self._privileges = privileges
        self._devices = devices
        self._directories: OrderedDict[bytes, int] = OrderedDict()
        self._times: dict[bytes, int] = {}

    def run(self, reader: Archive) -> None:
        """Extract all entries. Files that were extracted before an error stay."""
        try:
            for entry in reader:
                with self._errors_for(entry.name):
                    self._extract(entry, reader)
            self._set_times()
        finally:
            self._close_directories()

    @contextmanager
    def _errors_for(self, name: bytes) -> Iterator[None]:
        """Convert errors of the kernel to errors about the entry."""
        what = f"cannot copy {quote_name(name)}"
        try:
            yield
        except (OSError, OverflowError, ValueError) as error:
            if isinstance(error, OSError) and error.errno == errno.EROFS and self._on_ro_mount():
                raise NotAuthorized(
                    f"{what}: {error.strerror}", hint="its file system is mounted read-only"
                ) from error
            raise file_error(error, what) from error

    def _on_ro_mount(self) -> bool:
        """Return whether the directory of the current entry is on a read-only mount.

        After an error of the disk, ext4 refuses writes without a change of the mount.
        """
        directory = next(reversed(self._directories.values()), self._root)
        return bool(os.fstatvfs(directory).f_flag & os.ST_RDONLY)

    # -- directories ----------------------------------------------------------------------------

    def _open_directory(self, path: bytes) -> int:
        """Return an ``O_PATH`` descriptor of a directory below ours, and create it if absent.

        It works in a loop from the deepest existing parent, because a path may have any depth.
        """
        missing = []
        while (descriptor := self._open_existing(path)) is None:
            missing.append(path)
            path = posixpath.dirname(path)
        for path in reversed(missing):
            descriptor = self._remember(path, self._mkdir(descriptor, path))
        return descriptor

    def _open_existing(self, path: bytes) -> int | None:
        """Return a descriptor of an existing directory, or None."""
        descriptor = self._directories.get(path)
        if descriptor is not None:
            self._directories.move_to_end(path)
            return descriptor
        try:
            descriptor = openat2.open_in_root(
                self._root, self._path_in_root(path), os.O_PATH | os.O_DIRECTORY
            )
        except FileNotFoundError:
            if not path:
                raise
            return None
        return self._remember(path, descriptor)

    def _path_in_root(self, path: bytes) -> bytes:
        return posixpath.join(self._directory, path) if path else self._directory

    def _remember(self, path: bytes, descriptor: int) -> int:
        """Keep a directory open for the next entries. Refuse kernel file systems."""
        try:
            refuse_kernel_filesystem(descriptor, quote_name(self._path_in_root(path)))
        except BaseException:
            os.close(descriptor)
            raise
        self._directories[path] = descriptor
        if len(self._directories) > _CACHE:
            os.close(self._directories.popitem(last=False)[1])
        return descriptor

    def _mkdir(self, parent: int, path: bytes) -> int:
        name = posixpath.basename(path)
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        fd = openat2.openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, resolve=_ITSELF)
        if self._parents is not None:
            os.chown(f"/proc/self/fd/{fd}", *self._parents)
        return fd

    def _close_directories(self) -> None:
        for descriptor in self._directories.values():
            os.close(descriptor)
        self._directories.clear()

    def _set_times(self) -> None:
        """Set the times of directories, last: a new entry changes a directory's times."""
        for path, time in self._times.items():
            parent_path, name = posixpath.split(path)
            try:
                fd = openat2.openat2(
                    self._open_directory(parent_path),
                    name or ".",
                    os.O_PATH | os.O_NOFOLLOW,
                    resolve=_ITSELF,
                )
            except OSError:
                continue  # replaced or removed meanwhile
            try:
                if stat.S_ISDIR(os.fstat(fd).st_mode):
                    os.utime(f"/proc/self/fd/{fd}", ns=(time, time))
            finally:
                os.close(fd)

    # -- entries --------------------------------------------------------------------------------

    def _extract(self, entry: TarEntry, reader: Archive) -> None:
        path = _clean(entry.name)
        if not path:
            return  # the directory itself is not changed
        parent_path, name = posixpath.split(path)
        parent = self._open_directory(parent_path)
        if entry.type == DIRECTORY:
            self._extract_directory(parent, path, name, entry)
        elif entry.type == REGULAR:
            self._extract_file(parent, path, name, entry, reader)
        elif entry.type == HARD_LINK:
            self._extract_link(parent, path, name, entry)
        elif entry.type in (SYMLINK, FIFO):
            self._extract_node(parent, path, name, entry)
        elif self._devices:
            if can_mknod(_NODES[entry.type], os.makedev(entry.major, entry.minor)):
                self._extract_node(parent, path, name, entry)
        else:
            raise InvalidRequest(
                f"entry {quote_name(entry.name)} is a device node, which cannot be copied",
                hint="give the container the device with --device",
            )

    def _extract_directory(self, parent: int, path: bytes, name: bytes, entry: TarEntry) -> None:
        for _ in range(_ATTEMPTS):
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                pass
            try:
                fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
            except (NotADirectoryError, FileNotFoundError):
                fd = -1
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                fd = -1
            if fd >= 0:
                break
            self._clear(parent, path, name, directory=True)
        else:
            raise _recreated_error(name)
        try:
            if on_kernel_filesystem(fd):
                return
            self._set_metadata(fd, entry)
        finally:
            os.close(fd)
        if len(self._times) < _MAX_TIMES:
            self._times[path] = entry.mtime

    def _extract_file(
        self, parent: int, path: bytes, name: bytes, entry: TarEntry, reader: Archive
    ) -> None:
        def make() -> int:
            return os.open(name, _NEW_FILE, 0o600, dir_fd=parent)

        fd = self._create(make, parent, path, name)
        try:
            for chunk in reader.data():
                written = os.write(fd, chunk)
                while written < len(chunk):
                    written += os.write(fd, chunk[written:])
            self._set_metadata(fd, entry)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _extract_link(self, parent: int, path: bytes, name: bytes, entry: TarEntry) -> None:
        target = _clean(entry.link)
        if target == path or not target:
            raise InvalidRequest(f"entry {quote_name(entry.name)} is a hard link to itself")
        parent_path, target_name = posixpath.split(target)
        parent = os.dup(parent)  # the cache may close either
        source = -1
        try:
            source = os.dup(self._open_directory(parent_path))

            def make() -> int:
                os.link(
                    target_name,
                    name,
                    src_dir_fd=source,
                    dst_dir_fd=parent,
                    follow_symlinks=False,
                )
                return 0

            self._create(make, parent, path, name)
        finally:
            os.close(parent)
            if source >= 0:
                os.close(source)

    def _extract_node(self, parent: int, path: bytes, name: bytes, entry: TarEntry) -> None:
        def make() -> int:
            if entry.type == SYMLINK:
                os.symlink(entry.link, name, dir_fd=parent)
            else:
                number = os.makedev(entry.major, entry.minor)
                os.mknod(name, _NODES[entry.type] | 0o600, number, dir_fd=parent)
            return openat2.openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, resolve=_ITSELF)

        fd = self._create(make, parent, path, name)
        try:
            status = os.fstat(fd)
            file_type = stat.S_IFLNK if entry.type == SYMLINK else _NODES[entry.type]
            if stat.S_IFMT(status.st_mode) != file_type:
                return  # another process replaced it: do not change its metadata
            if self._owner is not None:
                os.chown(f"/proc/self/fd/{fd}", *self._owner(entry.uid, entry.gid))
            if entry.type != SYMLINK:
                os.chmod(f"/proc/self/fd/{fd}", entry.mode)
            os.utime(f"/proc/self/fd/{fd}", ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _create(self, make: Callable[[], int], parent: int, path: bytes, name: bytes) -> int:
        """Return the result of ``make``, after removing files that are in its way."""
        for _ in range(_ATTEMPTS):
            try:
                return make()
            except FileExistsError:
                self._clear(parent, path, name, directory=False)
        raise _recreated_error(name)

    def _clear(self, parent: int, path: bytes, name: bytes, *, directory: bool) -> None:
        """Remove the file that an entry replaces. ``directory`` says that the entry is one."""
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        is_directory = stat.S_ISDIR(status.st_mode)
        if is_directory == directory and is_directory:
            return
        if self._keep_kinds and is_directory != directory:
            old, new = (
                ("directory", "non-directory") if is_directory else ("non-directory", "directory")
            )
            raise InvalidRequest(
                f"cannot overwrite {old} {quote_name(path)} with {new} of that name"
            )
        if is_directory:
            remove_tree(parent, name)
            self._close_below(path)
        else:
            try:
                os.unlink(name, dir_fd=parent)
            except FileNotFoundError:
                return
            self._close_below(path)

    def _close_below(self, path: bytes) -> None:
        """Close the cached directories at and below a removed path."""
        start = path + b"/"
        for path_below in [k for k in self._directories if k == path or k.startswith(start)]:
            os.close(self._directories.pop(path_below))

    def _set_metadata(self, fd: int, entry: TarEntry) -> None:
        if self._owner is not None:
            os.fchown(fd, *self._owner(entry.uid, entry.gid))
        mode = entry.mode if self._privileges else entry.mode & 0o1777
        os.fchmod(fd, mode)  # after chown, which clears set-user-ID
        for attribute, value in entry.xattrs.items():
            user_xattr = attribute.startswith("user.") and not attribute.startswith("user.overlay.")
            if user_xattr or (attribute == "security.capability" and self._privileges):
                try:
                    os.setxattr(fd, attribute, value)
                except OSError as error:
                    if error.errno not in (errno.ENOTSUP, errno.EPERM):
                        raise


def _clean(name: bytes) -> bytes:
    """Return an entry's path relative to the directory.

    :raises InvalidRequest: when the path leaves the directory.
    """
    path = posixpath.normpath(name.lstrip(b"/") or b".")
    if path == b".":
        return b""
    if path == b".." or path.startswith(b"../"):
        raise InvalidRequest(f"entry {quote_name(name)} leaves the directory")
    return path


def _recreated_error(name: bytes) -> Conflict:
    return Conflict(f"{quote_name(name)} cannot be created: another process keeps recreating it")
