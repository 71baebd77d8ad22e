"""Race-free path resolution: openat2(2).

A path in a container or a volume is a directory descriptor and a relative path. The kernel resolves
it once, inside that root, while a hostile process may rename entries.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat

from jaula.kernel.libc import IntFlag, NR_openat2, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LINKS_LIMIT = 40  # as many as the kernel follows in one path


class RESOLVE(IntFlag):
    """Restrictions of openat2(2)."""

    NO_XDEV = 0x01
    NO_MAGICLINKS = 0x02
    NO_SYMLINKS = 0x04
    BENEATH = 0x08
    IN_ROOT = 0x10


_WITHOUT_LINKS = RESOLVE.IN_ROOT | RESOLVE.NO_SYMLINKS


class open_how(ctypes.Structure):
    """struct open_how."""

    _fields_ = [
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    ]


_openat2 = syscall(
    "openat2", NR_openat2, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t
)


def openat2(
    dir_fd: int, path: str | bytes, flags: int, mode: int = 0, resolve: RESOLVE | int = 0
) -> int:
    """Open a path, always close-on-exec: openat2(2).

    Retried while the kernel reports a racing rename (EAGAIN).
    """
    how = open_how(flags | os.O_CLOEXEC, mode, int(resolve))
    for attempt in range(128):
        try:
            return _openat2(dir_fd, os.fsencode(path), ctypes.addressof(how), ctypes.sizeof(how))
        except BlockingIOError:
            if attempt == 127:
                raise
    raise AssertionError("unreachable")


def open_in_root(root_fd: int, path: str | bytes, flags: int, mode: int = 0) -> int:
    """Open ``path`` as a process chrooted in ``root_fd`` would; magic links are refused."""
    return openat2(root_fd, path, flags, mode, RESOLVE.IN_ROOT | RESOLVE.NO_MAGICLINKS)


def components(path: str) -> list[str]:
    """Return the components of a path; ``.`` and empty ones are dropped, ``..`` is kept."""
    return [part for part in path.split("/") if part not in ("", ".")]


def unlink_if_same(path: str, status: os.stat_result) -> None:
    """Remove a file, unless its name is gone or another file has it.

    :raises OSError: when it cannot be removed.
    """
    try:
        if os.path.samestat(status, os.lstat(path)):
            os.unlink(path)
    except FileNotFoundError:
        return


def is_within(path: str, directory: str) -> bool:
    """Return whether a normalised path is ``directory`` or below it. Pure."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def make_directory_in_root(
    root_fd: int,
    path: str,
    mode: int = 0o755,
    *,
    made: Callable[[int], object] | None = None,
    check: Callable[[int], object] | None = None,
) -> int:
    """Open a directory below ``root_fd`` as ``O_PATH``, creating missing components.

    Symbolic links are followed inside the root; a dangling link creates its target. Each component
    is created by descriptor, in the directory that was resolved just before. ``made`` is called
    with the descriptor of each created component. ``check`` is called with the directory in which a
    component will be created, if a symbolic link led there; it may raise.
    """
    return _make_directory(root_fd, components(path), path, mode, made, check)[0]


def _make_directory(
    root_fd: int,
    names: list[str],
    path: str,
    mode: int,
    made: Callable[[int], object] | None,
    check: Callable[[int], object] | None,
) -> tuple[int, bool]:
    """Return the directory, and whether a symbolic link led there."""
    current, existing = _open_existing(root_fd, names)
    done, pending = names[:existing], names[existing:][::-1]
    links = 0
    try:
        while pending:
            part = pending.pop()
            try:
                next_fd = open_in_root(root_fd, "/".join((*done, part)), os.O_PATH | os.O_DIRECTORY)
                if check is not None and not links and _link_at(current, part) is not None:
                    links += 1
            except FileNotFoundError:
                if part == "..":
                    raise
                target = _link_at(current, part)
                if target is not None:
                    links += 1
                    if links > _LINKS_LIMIT:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                    pending += components(target)[::-1]
                    if target.startswith("/"):
                        done.clear()
                        os.close(current)
                        current = -1
                        current = openat2(root_fd, ".", os.O_PATH | os.O_DIRECTORY)
                    continue
                if check is not None and links:
                    check(current)
                os.mkdir(part, mode, dir_fd=current)
                next_fd = openat2(
                    current,
                    part,
                    os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW,
                    resolve=RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS,
                )
                done.append(part)
                os.close(current)
                current = next_fd
                if made is not None:
                    made(current)
                continue
            done.append(part)
            os.close(current)
            current = next_fd
        return current, bool(links)
    except BaseException:
        if current >= 0:
            os.close(current)
        raise


def _open_existing(root_fd: int, names: list[str]) -> tuple[int, int]:
    """Open a path or its parent, if no symbolic link leads there, or else the root.

    Return the descriptor, and how many of the names are resolved. One call takes the place of three
    for each component: most targets of mounts exist, or lack the last component.
    """
    for count in (len(names), len(names) - 1):
        if count > 0:
            path = "/".join(names[:count])
            try:
                return openat2(root_fd, path, os.O_PATH | os.O_DIRECTORY, 0, _WITHOUT_LINKS), count
            except OSError:
                continue  # it is resolved component by component
    return openat2(root_fd, ".", os.O_PATH | os.O_DIRECTORY), 0


def _link_at(directory: int, name: str) -> str | None:
    """Return the target of the symbolic link ``name``, or None if it is absent or not a link."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):
            return None
        raise


def make_file_in_root(
    root_fd: int,
    path: str,
    mode: int = 0o644,
    *,
    check: Callable[[int], object] | None = None,
) -> int:
    """Open a file below ``root_fd`` as ``O_PATH``, creating it and its parents if absent.

    A dangling link is followed as in :func:`make_directory_in_root`, which describes ``check``.
    """
    linked = False
    for _ in range(_LINKS_LIMIT):
        try:
            return open_in_root(root_fd, path, os.O_PATH)
        except FileNotFoundError:
            pass
        names = components(path)
        parent, parent_linked = _make_directory(root_fd, names[:-1], path, 0o755, None, check)
        linked |= parent_linked
        try:
            target = _link_at(parent, names[-1])
            if target is None:
                if check is not None and linked:
                    check(parent)
                return _make_file(parent, names[-1], mode)
            linked = True
        finally:
            os.close(parent)
        path = target if target.startswith("/") else "/".join((*names[:-1], target))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _make_file(parent: int, name: str, mode: int) -> int:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(name, flags, mode, dir_fd=parent))
    return openat2(
        parent,
        name,
        os.O_PATH | os.O_NOFOLLOW,
        resolve=RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS,
    )


def read_file_in_root(root_fd: int, path: str, limit: int) -> bytes:
    """Return the content of a regular file below ``root_fd``; other file types are refused.

    :raises OSError: EINVAL when the path is not a regular file, EFBIG when it exceeds ``limit``
        bytes.
    """
    fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(22, "not a regular file", path)
        chunks: list[bytes] = []
        remaining = limit + 1
        while chunk := os.read(fd, min(1 << 20, remaining)):
            chunks.append(chunk)
            remaining -= len(chunk)
            if not remaining:
                raise OSError(27, f"larger than {limit} bytes", path)
        return b"".join(chunks)
    finally:
        os.close(fd)
