"""Read configuration files that only the engine's user may write."""

from __future__ import annotations

import errno
import os
import posixpath
import stat

from jaula.errors import InvalidRequest


def read(path: str, limit: int, description: str, *, required: bool) -> bytes | None:
    """Return the content of a file, or None if it is absent and not ``required``.

    The checks are made on the open file descriptor, so the checked file is the file that is read.

    :param limit: the maximum size in bytes.
    :param description: names the file in errors.
    :raises InvalidRequest: when it is absent, not a regular file, too large, or writable by other
        users.
    """
    if "\0" in path:
        raise InvalidRequest(f"{description} {path[:200]!r} contains a NUL byte")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENOENT and not required:
            return None
        raise InvalidRequest(f"{description} {path}: {error.strerror}") from None
    st = os.fstat(fd)
    if not stat.S_ISREG(st.st_mode):
        os.close(fd)  # open() would refuse a directory, and leave the descriptor open
        raise InvalidRequest(f"{description} {path} is not a regular file")
    with open(fd, "rb") as file:
        if st.st_uid != os.geteuid() or st.st_mode & 0o022:
            raise InvalidRequest(
                f"{description} {path} is writable by other users",
                hint="chown root and chmod go-w",
            )
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InvalidRequest(f"{description} {path} has more than {limit} bytes")
    return data


def check_path(path: str, description: str) -> None:
    """Check that only the engine's user can change where an absolute path leads.

    Each directory of the path that exists belongs to this user, is not writable by others and is
    not a symbolic link. What is absent would be created by the engine.

    :raises InvalidRequest: when a component is not so.
    """
    if not path.startswith("/") or posixpath.normpath(path) != path.rstrip("/") or "\0" in path:
        raise InvalidRequest(
            f"{description} {path[:200]!r} must be an absolute path without '.' and '..'"
        )
    parts = path.strip("/").split("/")
    for count in range(len(parts) + 1):
        part = "/" + "/".join(parts[:count])
        try:
            status = os.lstat(part)
        except FileNotFoundError:
            return
        except OSError as error:
            raise InvalidRequest(f"{description} {path[:200]!r}: {error.strerror}") from None
        if status.st_uid != os.geteuid() or status.st_mode & 0o022 or stat.S_ISLNK(status.st_mode):
            raise InvalidRequest(
                f"{description} {path[:200]!r}: another user could change {part[:200]!r}",
                hint="each directory of it must belong to root, and not be writable by others",
            )
