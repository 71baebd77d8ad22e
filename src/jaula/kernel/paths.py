"""Paths that cannot escape: openat2(2).

A path in a container or a volume is a (directory descriptor, relative path) pair; the kernel
resolves it once, inside that root, while a hostile process swaps what it likes.
"""

from __future__ import annotations

import ctypes
import os
import stat
from enum import IntFlag

from jaula.kernel.libc import NR_openat2, syscall


class RESOLVE(IntFlag):
    """Restrictions of openat2(2)."""

    NO_XDEV = 0x01
    NO_MAGICLINKS = 0x02
    NO_SYMLINKS = 0x04
    BENEATH = 0x08
    IN_ROOT = 0x10


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
    """openat2(2), close-on-exec always; retried while the kernel sees a racing rename."""
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


def parts(path: str) -> list[str]:
    """The components of a path; ``.`` and empty ones dropped, ``..`` kept."""
    return [part for part in path.split("/") if part not in ("", ".")]


def make_directory_in_root(root_fd: int, path: str, mode: int = 0o755) -> int:
    """Open a directory below ``root_fd``, making what is missing; returns an ``O_PATH`` descriptor.

    Links that exist are followed inside the root. A component that is made is made in the directory
    that was resolved just before, by descriptor.
    """
    current = openat2(root_fd, ".", os.O_PATH | os.O_DIRECTORY)
    done: list[str] = []
    try:
        for part in parts(path):
            done.append(part)
            try:
                following = open_in_root(root_fd, "/".join(done), os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                if part == "..":
                    raise
                os.mkdir(part, mode, dir_fd=current)
                following = openat2(
                    current,
                    part,
                    os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW,
                    resolve=RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS,
                )
            os.close(current)
            current = following
        return current
    except BaseException:
        os.close(current)
        raise


def make_file_in_root(root_fd: int, path: str, mode: int = 0o644) -> int:
    """Open a file below ``root_fd`` as ``O_PATH``, making it and its parents when missing."""
    try:
        return open_in_root(root_fd, path, os.O_PATH)
    except FileNotFoundError:
        pass
    names = parts(path)
    parent = make_directory_in_root(root_fd, "/".join(names[:-1]))
    try:
        fd = os.open(
            names[-1],
            os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC,
            mode,
            dir_fd=parent,
        )
        os.close(fd)
        return openat2(
            parent,
            names[-1],
            os.O_PATH | os.O_NOFOLLOW,
            resolve=RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS,
        )
    finally:
        os.close(parent)


def read_file_in_root(root_fd: int, path: str, limit: int) -> bytes:
    """The content of a regular file below ``root_fd``; nothing else is read.

    Raises ``OSError`` (EFBIG) where the file is larger than ``limit`` bytes.
    """
    fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(22, "not a regular file", path)
        data = b""
        while chunk := os.read(fd, min(1 << 16, limit + 1 - len(data))):
            data += chunk
            if len(data) > limit:
                raise OSError(27, f"larger than {limit} bytes", path)
        return data
    finally:
        os.close(fd)
