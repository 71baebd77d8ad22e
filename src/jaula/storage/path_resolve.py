"""Resolve a client's path inside a root file system, and describe the file.

Follows the Docker Engine API 1.45, ``ContainerArchiveInfo``: the last component of a path is not
followed if it is a symbolic link. A trailing ``/`` or ``/.`` asks for the directory that it links
to.

The root is a descriptor. The kernel resolves paths below it (openat2(2), ``RESOLVE_IN_ROOT``), so
renames by the container do not matter. Kernel file systems are not entered: the content of proc and
sysfs depends on the reader, and the engine may read more than a container may.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable

import msgspec

from jaula.errors import InvalidRequest, NotFound
from jaula.kernel import mounts, openat2
from jaula.kernel.openat2 import RESOLVE

_KERNEL_FILESYSTEMS = frozenset(
    {
        0x9FA0,  # proc
        0x62656572,  # sysfs
        0x27E0EB,  # cgroup
        0x63677270,  # cgroup2
        0x1CD1,  # devpts
        0x19800202,  # mqueue
        0x64626720,  # debugfs
        0x74726163,  # tracefs
        0x73636673,  # securityfs
        0xF97CFF8C,  # selinuxfs
        0xCAFE4A11,  # bpf
        0x42494E4D,  # binfmt_misc
        0x62656570,  # configfs
        0x6E736673,  # nsfs
    }
)
"""Magic numbers of kernel file systems (linux/magic.h)."""

MAX_ENTRIES = 10_000  # of a listed directory
_GO_DIRECTORY = 1 << 31
_GO_BITS = (
    (stat.S_ISDIR, _GO_DIRECTORY),
    (stat.S_ISLNK, 1 << 27),
    (stat.S_ISBLK, 1 << 26),
    (stat.S_ISFIFO, 1 << 25),
    (stat.S_ISSOCK, 1 << 24),
    (stat.S_ISCHR, 1 << 26 | 1 << 21),
)


class PathStat(msgspec.Struct, frozen=True):
    """The document of ``X-Docker-Container-Path-Stat``.

    ``mode`` is Go's ``fs.FileMode``, ``mtime`` is RFC 3339.
    """

    name: str
    size: int
    mode: int
    mtime: str
    linkTarget: str = ""


class DirectoryEntry(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """One file of a directory. ``mode`` and ``mtime`` are as in :class:`PathStat`.

    ``text`` is false for a name that is not UTF-8, which no path of the API can name.
    """

    name: str
    size: int
    mode: int
    mtime: str
    uid: int
    gid: int
    link_target: str = ""
    text: bool = True


class DirectoryListing(msgspec.Struct, frozen=True, rename="pascal"):
    """The files of a directory, directories first. ``truncated``: there are more."""

    entries: list[DirectoryEntry]
    truncated: bool


class PathRequest(msgspec.Struct, frozen=True):
    """A requested path, absolute and without ``..``. ``ending`` is ``/``, ``/.`` or empty.

    ``..`` is resolved in the text, as in Docker, before a file is accessed.
    """

    path: str
    ending: str = ""

    @property
    def name(self) -> str:
        """The name of the file in an archive."""
        if self.ending == "/.":
            return "."
        return posixpath.basename(self.path) or "/"


def parse_path(text: str) -> PathRequest:
    """Parse a client's path.

    :raises InvalidRequest: when it is empty or has a NUL byte.
    """
    if not text:
        raise InvalidRequest("a path is needed", hint="give ?path=/where/in/the/container")
    if "\0" in text:
        raise InvalidRequest("the path has a NUL byte")
    clean = "/" + posixpath.normpath("/" + text).lstrip("/")
    if text == "." or text.endswith("/."):
        return PathRequest(clean, "/.")
    return PathRequest(clean, "/" if text.endswith("/") and clean != "/" else "")


def on_kernel_filesystem(descriptor: int) -> bool:
    """Return whether a descriptor is on a file system that the kernel generates."""
    return mounts.filesystem_magic(descriptor) in _KERNEL_FILESYSTEMS


def refuse_kernel_filesystem(descriptor: int, path: str) -> None:
    """Refuse a descriptor on a kernel file system.

    :raises InvalidRequest: when it is on one.
    """
    if on_kernel_filesystem(descriptor):
        raise InvalidRequest(
            f"{path} is on a kernel file system, which cannot be copied from or to",
            hint="read or write it in the container, with exec",
        )


def open_path(root_fd: int, request: PathRequest) -> int:
    """Return an ``O_PATH`` descriptor of the file.

    :raises OSError: when it cannot be opened.
    """
    if request.ending or request.path == "/":
        return openat2.open_in_root(root_fd, request.path, os.O_PATH | os.O_DIRECTORY)
    directory, name = posixpath.split(request.path)
    parent = openat2.open_in_root(root_fd, directory, os.O_PATH | os.O_DIRECTORY)
    try:
        resolve = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS
        return openat2.openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, resolve=resolve)
    finally:
        os.close(parent)


def open_for_client(root_fd: int, request: PathRequest, container: str) -> int:
    """Open a path as :func:`open_path` does, with errors for a client.

    :raises NotFound: when the file does not exist.
    :raises InvalidRequest: when the path cannot be resolved.
    """
    try:
        return open_path(root_fd, request)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"Could not find the file {request.path} in container {container}") from None
    except OSError as error:
        raise InvalidRequest(f"cannot open {request.path}: {error.strerror}") from error


def stat_path(root_fd: int, fd: int, request: PathRequest) -> PathStat:
    """Return the status of ``fd``, which was opened for ``request``."""
    status = os.fstat(fd)
    target = _target(root_fd, fd, request) if stat.S_ISLNK(status.st_mode) else ""
    return PathStat(
        request.name, status.st_size, go_mode(status.st_mode), _rfc3339(status.st_mtime_ns), target
    )


def list_directory(fd: int, inside: Callable[[int, int], tuple[int, int]]) -> DirectoryListing:
    """Return the files of the directory ``fd``. ``inside`` translates owners.

    A file that is removed meanwhile is left out.

    :raises InvalidRequest: when it cannot be read.
    """
    try:
        directory = openat2.openat2(
            fd, ".", os.O_RDONLY | os.O_DIRECTORY, resolve=RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS
        )
    except OSError as error:
        raise InvalidRequest(f"cannot read the directory: {error.strerror}") from error
    entries: list[DirectoryEntry] = []
    truncated = False
    try:
        with os.scandir(directory) as scan:
            for item in scan:
                if len(entries) == MAX_ENTRIES:
                    truncated = True
                    break
                try:
                    entries.append(_entry(directory, item.name, inside))
                except OSError:
                    continue  # removed meanwhile
    finally:
        os.close(directory)
    entries.sort(key=lambda entry: (not entry.mode & _GO_DIRECTORY, entry.name))
    return DirectoryListing(entries, truncated)


def _entry(
    directory: int, name: str, inside: Callable[[int, int], tuple[int, int]]
) -> DirectoryEntry:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    link = os.readlink(name, dir_fd=directory) if stat.S_ISLNK(status.st_mode) else ""
    uid, gid = inside(status.st_uid, status.st_gid)
    shown = _text(name)
    return DirectoryEntry(
        shown,
        status.st_size,
        go_mode(status.st_mode),
        _rfc3339(status.st_mtime_ns),
        uid,
        gid,
        _text(link),
        shown == name,
    )


def _text(name: str) -> str:
    """Return a name as valid Unicode."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def go_mode(mode: int) -> int:
    """Convert ``st_mode`` to Go's ``fs.FileMode``."""
    number = stat.S_IMODE(mode) & 0o777
    for check, bits in _GO_BITS:
        if check(mode):
            number |= bits
    if mode & stat.S_ISUID:
        number |= 1 << 23
    if mode & stat.S_ISGID:
        number |= 1 << 22
    if mode & stat.S_ISVTX:
        number |= 1 << 20
    return number


def _rfc3339(nanoseconds: int) -> str:
    from datetime import UTC, datetime

    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "0001-01-01T00:00:00Z"
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{text}{fraction}Z"


def _target(root_fd: int, fd: int, request: PathRequest) -> str:
    """Return the target of a symbolic link from the root, or its text if it is dangling."""
    try:
        end = openat2.open_in_root(root_fd, request.path, os.O_PATH)
    except OSError:
        text = os.readlink("", dir_fd=fd)
        return posixpath.normpath(posixpath.join(posixpath.dirname(request.path), text))
    try:
        top, path = (os.readlink(f"/proc/self/fd/{fd}") for fd in (root_fd, end))
    finally:
        os.close(end)
    if top != "/":
        path = path.removeprefix(top) or "/"
    return path
