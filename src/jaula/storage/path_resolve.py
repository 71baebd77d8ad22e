"""A path inside a root, as a client names it, and what is there.

Follows the Docker Engine API 1.45, ``ContainerArchiveInfo``: the last component of a path is not
followed where it is a link, but ``/`` or ``/.`` at its end asks for the directory that it leads to.

The root is a descriptor, and the kernel resolves below it (openat2(2), ``RESOLVE_IN_ROOT``) while
whoever lives there renames what he likes. Kernel file systems are not entered: what proc and sysfs
answer depends on who reads, and the engine may read more than a container may.
"""

from __future__ import annotations

import os
import posixpath
import stat

import msgspec

from jaula.errors import InvalidRequest, NotFound
from jaula.kernel import mounts, paths
from jaula.kernel.paths import RESOLVE

_KERNEL = frozenset(
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
"""Magic numbers of linux/magic.h."""

_GO_BITS = (
    (stat.S_ISDIR, 1 << 31),
    (stat.S_ISLNK, 1 << 27),
    (stat.S_ISBLK, 1 << 26),
    (stat.S_ISFIFO, 1 << 25),
    (stat.S_ISSOCK, 1 << 24),
    (stat.S_ISCHR, 1 << 26 | 1 << 21),
)


class PathStat(msgspec.Struct, frozen=True):
    """The document of ``X-Docker-Container-Path-Stat``; ``mode`` is Go's, ``mtime`` RFC 3339."""

    name: str
    size: int
    mode: int
    mtime: str
    linkTarget: str = ""


class PathRequest(msgspec.Struct, frozen=True):
    """A path that was asked for, absolute and without ``..``; ``ending`` is ``/``, ``/.`` or none.

    Dots are resolved in the text, as Docker does, before anything is looked at.
    """

    path: str
    ending: str = ""

    @property
    def name(self) -> str:
        """What the thing is called in an archive."""
        if self.ending == "/.":
            return "."
        return posixpath.basename(self.path) or "/"


def parse_path(text: str) -> PathRequest:
    """Read a client's path. Raises :class:`InvalidRequest`."""
    if not text:
        raise InvalidRequest("a path is needed", hint="give ?path=/where/in/the/container")
    if "\0" in text:
        raise InvalidRequest("the path holds a zero byte")
    clean = "/" + posixpath.normpath("/" + text).lstrip("/")
    if text == "." or text.endswith("/."):
        return PathRequest(clean, "/.")
    return PathRequest(clean, "/" if text.endswith("/") and clean != "/" else "")


def on_kernel_filesystem(descriptor: int) -> bool:
    """Whether a descriptor lies on a file system whose content the kernel makes up."""
    return mounts.filesystem_magic(descriptor) in _KERNEL


def refuse_kernel_filesystem(descriptor: int, path: str) -> None:
    """Raise :class:`InvalidRequest` for a place on a kernel file system."""
    if on_kernel_filesystem(descriptor):
        raise InvalidRequest(
            f"{path} lies on a kernel file system, from which nothing is copied",
            hint="read or write it in the container, with exec",
        )


def open_path(root_fd: int, what: PathRequest) -> int:
    """An ``O_PATH`` descriptor of the thing itself. Raises ``OSError``."""
    if what.ending or what.path == "/":
        return paths.open_in_root(root_fd, what.path, os.O_PATH | os.O_DIRECTORY)
    folder, name = posixpath.split(what.path)
    parent = paths.open_in_root(root_fd, folder, os.O_PATH | os.O_DIRECTORY)
    try:
        resolve = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS
        return paths.openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, resolve=resolve)
    finally:
        os.close(parent)


def open_for_client(root_fd: int, what: PathRequest, container: str) -> int:
    """As :func:`open_place`, with errors for a client.

    Raises :class:`NotFound`, and :class:`InvalidRequest` where no path leads on.
    """
    try:
        return open_path(root_fd, what)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"Could not find the file {what.path} in container {container}") from None
    except OSError as error:
        raise InvalidRequest(f"cannot open {what.path}: {error.strerror}") from error


def stat_path(root_fd: int, place: int, what: PathRequest) -> PathStat:
    """What is at ``place``, which was opened for ``what``."""
    facts = os.fstat(place)
    target = _target(root_fd, place, what) if stat.S_ISLNK(facts.st_mode) else ""
    return PathStat(
        what.name, facts.st_size, go_mode(facts.st_mode), _rfc3339(facts.st_mtime_ns), target
    )


def go_mode(mode: int) -> int:
    """``st_mode`` as Go's ``fs.FileMode`` numbers it."""
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


def _target(root_fd: int, place: int, what: PathRequest) -> str:
    """Where a link leads, from the root on: as far as it can be followed, or as its text says."""
    try:
        end = paths.open_in_root(root_fd, what.path, os.O_PATH)
    except OSError:
        text = os.readlink("", dir_fd=place)
        return posixpath.normpath(posixpath.join(posixpath.dirname(what.path), text))
    try:
        top, path = (os.readlink(f"/proc/self/fd/{fd}") for fd in (root_fd, end))
    finally:
        os.close(end)
    if top != "/":
        path = path.removeprefix(top) or "/"
    return path
