"""Unpacking the entries of one layer into a directory, by directory descriptors.

Follows opencontainers/image-spec 1.1 ``layer.md`` (change sets, whiteouts) and the kernel's
``filesystems/overlayfs.rst`` for how a whiteout looks on disk: a character device 0:0, and the
attribute ``trusted.overlay.opaque`` = ``y`` on a directory that hides what is below.

The directory is empty and belongs to the caller alone. No path is ever joined to it: a name's
parent is opened once with ``RESOLVE_IN_ROOT``, so links that the layer brings are followed inside
the layer, and the last component is never followed. Names with ``..`` are refused.

Ids, modes (set-user-ID included), times in nanoseconds, attributes, hard links and devices are
kept as the archive has them. Attributes that would speak to overlayfs or to a security module of
the host are dropped. In a user namespace devices are left out, for none can be made there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from jaula.errors import InvalidRequest, JaulaError, Unavailable
from jaula.kernel import paths, userns
from jaula.storage.tar.entry import (
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
from jaula.storage.tar.reader import TarReader
from jaula.storage.trees import (
    DIRECTORY_FLAGS,
    can_mknod,
    is_whiteout,
    opaque_xattr,
    remove_tree,
    set_xattr,
    size_on_disk,
)

_PREFIX = b".wh."
_META = b".wh..wh."
_OPAQUE_MARK = b".wh..wh..opq"
_CACHE = 512  # open directories
_RESERVE = 64 << 20  # bytes that are left free on the file system
_DROPPED = ("trusted.overlay.", "user.overlay.", "security.selinux", "security.apparmor")

_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Extractor:
    """Unpacks one archive; ``size`` is the sum of its regular files' sizes in bytes.

    ``states_root`` says whether the archive describes the root directory itself.
    """

    def __init__(self, root_fd: int) -> None:
        self._root = root_fd
        self._folders: dict[bytes, int] = {}
        self._times: dict[bytes, int] = {}
        self._unchecked = 0
        self._replaced = False
        self.size = 0
        self.states_root = False

    def run(self, reader: TarReader) -> None:
        """Unpack everything; raises :class:`InvalidRequest` for what a layer may not do."""
        try:
            for entry in reader:
                with _explained(entry):
                    self._unpack(entry, reader)
            self._set_times()
            if self._replaced:
                self.size = size_on_disk(self._root)
        finally:
            self._forget()

    @property
    def timed(self) -> Collection[bytes]:
        """Directories whose times the archive states; the others have that of their making."""
        return self._times.keys()

    # -- directories ----------------------------------------------------------------------------

    def _folder(self, path: bytes) -> int:
        """A descriptor of a directory of the layer, made where the archive does not mention it."""
        if not path:
            return self._root
        descriptor = self._folders.pop(path, None)  # put back as the newest
        if descriptor is not None:
            self._folders[path] = descriptor
        else:
            try:
                descriptor = paths.open_in_root(self._root, path, os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                descriptor = paths.make_directory_in_root(self._root, os.fsdecode(path))
            self._remember(path, descriptor)
        return descriptor

    def _remember(self, path: bytes, descriptor: int) -> None:
        if len(self._folders) > _CACHE:
            for oldest in list(self._folders)[: _CACHE // 2]:
                os.close(self._folders.pop(oldest))
        previous = self._folders.pop(path, None)
        if previous is not None:
            os.close(previous)
        self._folders[path] = descriptor

    def _forget(self) -> None:
        """Close all: a directory or link was replaced, so a path may mean something else now."""
        for descriptor in self._folders.values():
            os.close(descriptor)
        self._folders.clear()

    def _set_times(self) -> None:
        """Directories' times come last, since every entry made inside changes them."""
        for path, time in self._times.items():
            folder, _, name = path.rpartition(b"/")
            try:
                if not path:
                    os.utime(self._root, ns=(time, time))
                else:
                    os.utime(
                        name, ns=(time, time), dir_fd=self._folder(folder), follow_symlinks=False
                    )
            except (FileNotFoundError, NotADirectoryError):
                continue  # a later entry took its place

    # -- entries --------------------------------------------------------------------------------

    def _unpack(self, entry: TarEntry, reader: TarReader) -> None:
        path = clean_path(entry.name)
        if not path:
            self._unpack_root(entry)
            return
        folder, _, name = path.rpartition(b"/")
        if name.startswith(_PREFIX):
            self._hide(folder, name)
            return
        parent = self._folder(folder)
        if entry.type == REGULAR:
            self._file(parent, path, name, entry, reader)
        elif entry.type == DIRECTORY:
            self._directory(parent, path, name, entry)
        elif entry.type == HARD_LINK:
            self._hard_link(parent, path, name, entry)
        else:
            self._node(parent, path, name, entry)

    def _unpack_root(self, entry: TarEntry) -> None:
        if entry.type != DIRECTORY:
            raise InvalidRequest(f"entry {quote_name(entry.name)} would replace the root directory")
        self._describe(self._root, entry)
        self._times[b""] = entry.mtime
        self.states_root = True

    def _describe(self, descriptor: int, entry: TarEntry) -> None:
        """Owner, mode and attributes; each change costs the file system more than the look."""
        facts = os.fstat(descriptor)
        changed = (facts.st_uid, facts.st_gid) != (entry.uid, entry.gid)
        if changed:
            os.fchown(descriptor, entry.uid, entry.gid)
        if changed or stat.S_IMODE(facts.st_mode) != entry.mode:
            # after chown, which clears set-user-ID and capabilities
            os.fchmod(descriptor, entry.mode)
        for attribute, value in entry.xattrs.items():
            if not attribute.startswith(_DROPPED):
                set_xattr(descriptor, attribute, value)

    def _file(
        self, parent: int, path: bytes, name: bytes, entry: TarEntry, reader: TarReader
    ) -> None:
        try:
            descriptor = os.open(name, _NEW_FILE, entry.mode & 0o777, dir_fd=parent)
        except FileExistsError:
            parent = self._clear(path, name)
            descriptor = os.open(name, _NEW_FILE, entry.mode & 0o777, dir_fd=parent)
        try:
            if entry.size:
                self._reserve(descriptor, entry.size)
                for piece in reader.data():
                    written = os.write(descriptor, piece)
                    while written < len(piece):
                        written += os.write(descriptor, piece[written:])
            self._describe(descriptor, entry)
            os.utime(descriptor, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(descriptor)
        self.size += entry.size

    def _reserve(self, descriptor: int, size: int) -> None:
        """Refuse what would fill the file system, before it does."""
        self._unchecked -= size
        if self._unchecked < 0:
            facts = os.fstatvfs(descriptor)
            free = facts.f_bavail * facts.f_frsize - _RESERVE
            if free < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._unchecked = free // 8

    def _directory(self, parent: int, path: bytes, name: bytes, entry: TarEntry) -> None:
        hides = False
        try:
            os.mkdir(name, entry.mode & 0o777, dir_fd=parent)
        except FileExistsError:
            facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(facts.st_mode):
                hides = is_whiteout(facts)
                parent = self._clear(path, name)
                os.mkdir(name, entry.mode & 0o777, dir_fd=parent)
        descriptor = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
        self._remember(path, descriptor)
        self._describe(descriptor, entry)
        if hides:
            os.setxattr(descriptor, opaque_xattr(), b"y")
        self._times[path] = entry.mtime

    def _hard_link(self, parent: int, path: bytes, name: bytes, entry: TarEntry) -> None:
        target = clean_path(entry.link)
        if target == path:
            raise InvalidRequest(f"entry {quote_name(entry.name)} is a hard link to itself")
        folder, _, target_name = target.rpartition(b"/")
        if _exists(parent, name):
            self._clear(path, name)
        source = self._folder(folder)
        parent = self._folder(path.rpartition(b"/")[0])
        os.link(target_name, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def _node(self, parent: int, path: bytes, name: bytes, entry: TarEntry) -> None:
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
            if not attribute.startswith(_DROPPED):
                link = b"/proc/self/fd/%d/%s" % (parent, name)
                set_xattr(link, attribute, value, follow=False)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _clear(self, path: bytes, name: bytes) -> int:
        """Take away what a later entry of the same name replaces; the parent, opened anew."""
        folder = path.rpartition(b"/")[0]
        parent = self._folder(folder)
        facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
        self._times.pop(path, None)
        self._replaced = True
        if stat.S_ISDIR(facts.st_mode):
            remove_tree(parent, name)
            self._forget()
        else:
            os.unlink(name, dir_fd=parent)
            if stat.S_ISLNK(facts.st_mode):
                self._forget()
        return self._folder(folder)

    # -- whiteouts ------------------------------------------------------------------------------

    def _hide(self, folder: bytes, name: bytes) -> None:
        """A whiteout hides what lower layers have, never what this layer brings."""
        if name == _OPAQUE_MARK:
            self._make_opaque(folder)
            return
        if name.startswith(_META):
            return  # aufs kept its own notes under these names
        hidden = name.removeprefix(_PREFIX)
        if hidden in (b"", b".", b".."):
            raise InvalidRequest(f"whiteout {quote_name(name)} names nothing that could be hidden")
        parent = self._folder(folder)
        try:
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        except FileExistsError:
            facts = os.stat(hidden, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(facts.st_mode):
                self._make_opaque(folder + b"/" + hidden if folder else hidden)

    def _make_opaque(self, folder: bytes) -> None:
        descriptor = paths.open_in_root(self._root, folder or b".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.setxattr(descriptor, opaque_xattr(), b"y")
        finally:
            os.close(descriptor)


def clean_path(name: bytes) -> bytes:
    """A name relative to the layer's root, without empty and ``.`` parts; ``..`` is refused."""
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
def _explained(entry: TarEntry) -> Iterator[None]:
    """What the kernel refuses, as an error about the entry."""
    name = entry.name
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unavailable(
                f"cannot unpack {quote_name(name)}: {reason}", hint="free some space and try again"
            ) from error
        if error.errno in (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS):
            raise JaulaError(f"cannot unpack {quote_name(name)}: {reason}") from error
        if error.errno == errno.EINVAL and not userns.is_initial():
            raise InvalidRequest(
                f"cannot unpack entry {quote_name(name)}: one of its owners {entry.uid}:{entry.gid}"
                " is no id of this engine's user namespace",
                hint="give the user more ids in /etc/subuid and /etc/subgid",
            ) from error
        raise InvalidRequest(f"cannot unpack entry {quote_name(name)}: {reason}") from error
    except (OverflowError, ValueError) as error:
        raise InvalidRequest(f"cannot unpack entry {quote_name(name)}: {error}") from error
