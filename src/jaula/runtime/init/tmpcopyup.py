"""Copying a directory of the image into the fresh tmpfs that covers it (``tmpcopyup``).

Owners, modes, times, extended attributes, symbolic and hard links, pipes and device nodes are kept;
sockets are not. Nothing is followed: every name is opened in the directory that was opened before.
The size is bounded by the tmpfs alone.
"""

from __future__ import annotations

import errno
import os
import stat

from jaula.kernel.paths import open_in_root

_NO_XATTR = (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENODATA)

Links = dict[tuple[int, int], str]


def copy_tree(root: int, source: str, target: int) -> None:
    """Copy ``source`` below ``root`` into the directory ``target``. Raises ``OSError``."""
    fd = open_in_root(root, source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        top = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=target)
        try:
            _directory(fd, top, top, "", {})
            facts = os.fstat(fd)
            os.fchown(top, facts.st_uid, facts.st_gid)
        finally:
            os.close(top)
    finally:
        os.close(fd)


def _directory(source: int, target: int, top: int, below: str, links: Links) -> None:
    for name in os.listdir(source):
        facts = os.stat(name, dir_fd=source, follow_symlinks=False)
        place = f"{below}{name}"
        key = (facts.st_dev, facts.st_ino)
        if not stat.S_ISDIR(facts.st_mode) and facts.st_nlink > 1:
            if key in links:
                os.link(links[key], place, src_dir_fd=top, dst_dir_fd=top, follow_symlinks=False)
                continue
            links[key] = place
        if stat.S_ISDIR(facts.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            fd, into = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=target)
            try:
                _directory(fd, into, top, f"{place}/", links)
                _facts(fd, into, facts)
            finally:
                os.close(fd)
                os.close(into)
        elif stat.S_ISREG(facts.st_mode):
            _file(name, source, target, facts)
        elif not stat.S_ISSOCK(facts.st_mode):
            _special(name, source, target, facts)


def _file(name: str, source: int, target: int, facts: os.stat_result) -> None:
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        writing = os.open(name, flags, 0o600, dir_fd=target)
        try:
            while chunk := os.read(reading, 1 << 16):
                while chunk:
                    chunk = chunk[os.write(writing, chunk) :]
            _facts(reading, writing, facts)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _special(name: str, source: int, target: int, facts: os.stat_result) -> None:
    if stat.S_ISLNK(facts.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        try:
            os.mknod(name, facts.st_mode, facts.st_rdev, dir_fd=target)
        except PermissionError:
            return  # a device node in a user namespace, where it could not be opened either
    os.chown(name, facts.st_uid, facts.st_gid, dir_fd=target, follow_symlinks=False)


def _facts(source: int, target: int, facts: os.stat_result) -> None:
    os.fchown(target, facts.st_uid, facts.st_gid)
    os.fchmod(target, stat.S_IMODE(facts.st_mode))
    try:
        for name in os.listxattr(source):
            os.setxattr(target, name, os.getxattr(source, name))
    except OSError as error:
        if error.errno not in _NO_XATTR:
            raise
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))
