"""A tar archive unpacked into a directory that somebody else uses at the same time.

Follows the Docker Engine API 1.45, ``PutContainerArchive``: entries replace what has their names,
directories are merged, missing parents are made. ``keep_kinds`` is ``noOverwriteDirNonDir``: no
directory takes the place of another thing, and nothing takes a directory's.

Unlike an image's layer (:mod:`jaula.storage.layers.extract`), which is unpacked where nobody looks,
this is done in the files of a container that may be running and hostile. Therefore

* a parent is opened below the root by the kernel (``RESOLVE_IN_ROOT``): links are followed inside;
* a name is made with ``O_EXCL`` and never followed; what is there is unlinked first;
* owner, mode and times are set through the descriptor of what was made, never through its name;
* nothing is made on a kernel file system, and no device node but with ``devices``.
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

from jaula.errors import Conflict, InvalidRequest, JaulaError, NotAuthorized, Unavailable
from jaula.kernel import paths
from jaula.kernel.paths import RESOLVE
from jaula.storage.path_resolve import on_kernel_filesystem, refuse_kernel_filesystem
from jaula.storage.tar.entry import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    TarEntry,
)
from jaula.storage.tar.entry import quote_name as _shown
from jaula.storage.trees import DIRECTORY_FLAGS, can_mknod, remove_tree

Owner = Callable[[int, int], tuple[int, int]]
"""Turns an entry's owner into the ids that the kernel is told."""


class Archive(Protocol):
    """What is needed of a reader: entries, and the data of the present one in pieces."""

    def __iter__(self) -> Iterator[TarEntry]: ...

    def data(self) -> Iterator[memoryview]: ...


_ATTEMPTS = 16  # at a name that somebody makes again and again
_CACHE = 64  # open directories
_TIMES = 65536  # directories whose times are remembered until the end
_ITSELF = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS
_NODES = {FIFO: stat.S_IFIFO, CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK}
_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class ArchiveExtractor:
    """Unpacks into ``directory`` below ``root_fd``; ``owner`` None leaves owners to the kernel.

    ``parents`` owns the directories that the archive does not mention. Without ``privileges``
    files get no set-user-ID bits and no capabilities. ``devices`` is for a layer, which nobody uses
    yet and which is mounted where device nodes have no effect.
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
        self._folders: OrderedDict[bytes, int] = OrderedDict()
        self._times: dict[bytes, int] = {}

    def run(self, reader: Archive) -> None:
        """Unpack everything; what was unpacked before an error stays."""
        try:
            for entry in reader:
                with _explained(entry.name):
                    self._unpack(entry, reader)
            self._set_times()
        finally:
            self._forget()

    # -- directories ----------------------------------------------------------------------------

    def _folder(self, path: bytes) -> int:
        """An ``O_PATH`` descriptor of a directory below ours, made where it is missing.

        From the deepest one that is there downwards, in a loop: archives hold paths of any depth.
        """
        missing = []
        while (descriptor := self._found(path)) is None:
            missing.append(path)
            path = posixpath.dirname(path)
        for path in reversed(missing):
            descriptor = self._remember(path, self._make_folder(descriptor, path))
        return descriptor

    def _found(self, path: bytes) -> int | None:
        """A directory that is there, or None."""
        descriptor = self._folders.get(path)
        if descriptor is not None:
            self._folders.move_to_end(path)
            return descriptor
        try:
            descriptor = paths.open_in_root(
                self._root, self._whole(path), os.O_PATH | os.O_DIRECTORY
            )
        except FileNotFoundError:
            if not path:
                raise
            return None
        return self._remember(path, descriptor)

    def _whole(self, path: bytes) -> bytes:
        return posixpath.join(self._directory, path) if path else self._directory

    def _remember(self, path: bytes, descriptor: int) -> int:
        """Keep it open for what follows, if it is no directory of the kernel's."""
        try:
            refuse_kernel_filesystem(descriptor, _shown(self._whole(path)))
        except BaseException:
            os.close(descriptor)
            raise
        self._folders[path] = descriptor
        if len(self._folders) > _CACHE:
            os.close(self._folders.popitem(last=False)[1])
        return descriptor

    def _make_folder(self, parent: int, path: bytes) -> int:
        name = posixpath.basename(path)
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        made = paths.openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, resolve=_ITSELF)
        if self._parents is not None:
            os.chown(f"/proc/self/fd/{made}", *self._parents)
        return made

    def _forget(self) -> None:
        for descriptor in self._folders.values():
            os.close(descriptor)
        self._folders.clear()

    def _set_times(self) -> None:
        """Last, since what is made in a directory changes its times."""
        for path, time in self._times.items():
            above, name = posixpath.split(path)
            try:
                place = paths.openat2(
                    self._folder(above), name or ".", os.O_PATH | os.O_NOFOLLOW, resolve=_ITSELF
                )
            except OSError:
                continue  # it was replaced or removed meanwhile
            try:
                if stat.S_ISDIR(os.fstat(place).st_mode):
                    os.utime(f"/proc/self/fd/{place}", ns=(time, time))
            finally:
                os.close(place)

    # -- entries --------------------------------------------------------------------------------

    def _unpack(self, entry: TarEntry, reader: Archive) -> None:
        path = _clean(entry.name)
        if not path:
            return  # the directory itself stays as it is
        above, name = posixpath.split(path)
        parent = self._folder(above)
        if entry.type == DIRECTORY:
            self._make_directory(parent, path, name, entry)
        elif entry.type == REGULAR:
            self._make_file(parent, path, name, entry, reader)
        elif entry.type == HARD_LINK:
            self._make_link(parent, path, name, entry)
        elif entry.type in (SYMLINK, FIFO):
            self._make_node(parent, path, name, entry)
        elif self._devices:
            if can_mknod(_NODES[entry.type], os.makedev(entry.major, entry.minor)):
                self._make_node(parent, path, name, entry)
        else:
            raise InvalidRequest(
                f"entry {_shown(entry.name)} is a device node; none is made in a container",
                hint="give the container the device with --device",
            )

    def _make_directory(self, parent: int, path: bytes, name: bytes, entry: TarEntry) -> None:
        for _ in range(_ATTEMPTS):
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                pass
            try:
                place = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
            except (NotADirectoryError, FileNotFoundError):
                place = -1
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                place = -1
            if place >= 0:
                break
            self._clear(parent, path, name, directory=True)
        else:
            raise _busy(name)
        try:
            if on_kernel_filesystem(place):
                return
            self._describe(place, entry)
        finally:
            os.close(place)
        if len(self._times) < _TIMES:
            self._times[path] = entry.mtime

    def _make_file(
        self, parent: int, path: bytes, name: bytes, entry: TarEntry, reader: Archive
    ) -> None:
        def make() -> int:
            return os.open(name, _NEW, 0o600, dir_fd=parent)

        place = self._made(make, parent, path, name)
        try:
            for piece in reader.data():
                written = os.write(place, piece)
                while written < len(piece):
                    written += os.write(place, piece[written:])
            self._describe(place, entry)
            os.utime(place, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(place)

    def _make_link(self, parent: int, path: bytes, name: bytes, entry: TarEntry) -> None:
        target = _clean(entry.link)
        if target == path or not target:
            raise InvalidRequest(f"entry {_shown(entry.name)} is a hard link to itself")
        above, target_name = posixpath.split(target)
        parent = os.dup(parent)  # the cache may let go of either
        source = -1
        try:
            source = os.dup(self._folder(above))

            def make() -> int:
                os.link(
                    target_name,
                    name,
                    src_dir_fd=source,
                    dst_dir_fd=parent,
                    follow_symlinks=False,
                )
                return 0

            self._made(make, parent, path, name)
        finally:
            os.close(parent)
            if source >= 0:
                os.close(source)

    def _make_node(self, parent: int, path: bytes, name: bytes, entry: TarEntry) -> None:
        def make() -> int:
            if entry.type == SYMLINK:
                os.symlink(entry.link, name, dir_fd=parent)
            else:
                number = os.makedev(entry.major, entry.minor)
                os.mknod(name, _NODES[entry.type] | 0o600, number, dir_fd=parent)
            return paths.openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, resolve=_ITSELF)

        place = self._made(make, parent, path, name)
        try:
            facts = os.fstat(place)
            wanted = stat.S_IFLNK if entry.type == SYMLINK else _NODES[entry.type]
            if stat.S_IFMT(facts.st_mode) != wanted:
                return  # it was replaced meanwhile: not ours to describe
            if self._owner is not None:
                os.chown(f"/proc/self/fd/{place}", *self._owner(entry.uid, entry.gid))
            if entry.type != SYMLINK:
                os.chmod(f"/proc/self/fd/{place}", entry.mode)
            os.utime(f"/proc/self/fd/{place}", ns=(entry.mtime, entry.mtime))
        finally:
            os.close(place)

    def _made(self, make: Callable[[], int], parent: int, path: bytes, name: bytes) -> int:
        """What ``make`` answers, once there is nothing in its way."""
        for _ in range(_ATTEMPTS):
            try:
                return make()
            except FileExistsError:
                self._clear(parent, path, name, directory=False)
        raise _busy(name)

    def _clear(self, parent: int, path: bytes, name: bytes, *, directory: bool) -> None:
        """Take away what an entry replaces; ``directory`` says that the entry is one."""
        try:
            facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        there = stat.S_ISDIR(facts.st_mode)
        if there == directory and there:
            return
        if self._keep_kinds and there != directory:
            old, new = ("directory", "non-directory") if there else ("non-directory", "directory")
            raise InvalidRequest(f"cannot overwrite {old} {_shown(path)} with {new} of that name")
        if there:
            remove_tree(parent, name)
            self._forget_below(path)
        else:
            try:
                os.unlink(name, dir_fd=parent)
            except FileNotFoundError:
                return
            self._forget_below(path)

    def _forget_below(self, path: bytes) -> None:
        """Directories that were reached through what is gone are opened anew."""
        start = path + b"/"
        for known in [k for k in self._folders if k == path or k.startswith(start)]:
            os.close(self._folders.pop(known))

    def _describe(self, place: int, entry: TarEntry) -> None:
        if self._owner is not None:
            os.fchown(place, *self._owner(entry.uid, entry.gid))
        mode = entry.mode if self._privileges else entry.mode & 0o1777
        os.fchmod(place, mode)  # after chown, which clears set-user-ID
        for attribute, value in entry.xattrs.items():
            users = attribute.startswith("user.") and not attribute.startswith("user.overlay.")
            if users or (attribute == "security.capability" and self._privileges):
                try:
                    os.setxattr(place, attribute, value)
                except OSError as error:
                    if error.errno not in (errno.ENOTSUP, errno.EPERM):
                        raise


def _clean(name: bytes) -> bytes:
    """An entry's path below the directory. Raises :class:`InvalidRequest` where it leads out."""
    path = posixpath.normpath(name.lstrip(b"/") or b".")
    if path == b".":
        return b""
    if path == b".." or path.startswith(b"../"):
        raise InvalidRequest(f"entry {_shown(name)} leads out of the directory")
    return path


def _busy(name: bytes) -> Conflict:
    return Conflict(f"{_shown(name)} cannot be made: something makes it again and again")


@contextmanager
def _explained(name: bytes) -> Iterator[None]:
    """What the kernel refuses, as an error about the entry."""
    try:
        yield
    except OSError as error:
        text = f"cannot copy {_shown(name)}: {error.strerror or error}"
        if error.errno == errno.EROFS:
            raise NotAuthorized(text, hint="its file system is mounted read-only") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unavailable(text, hint="free some space and try again") from error
        if error.errno in (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise JaulaError(text) from error
        raise InvalidRequest(text) from error
    except (OverflowError, ValueError) as error:
        raise InvalidRequest(f"cannot copy {_shown(name)}: {error}") from error
