"""A cgroup's interface files: read, written and parsed by (directory descriptor, file name).

Source: Linux ``Documentation/admin-guide/cgroup-v2.rst`` ("Interface Files", "Format") and
``admin-guide/cgroup-v1/``. Everything here raises ``OSError``; what a refusal means to the caller
is said by :mod:`jaula.cgroups.file_writes`.

Facts about these files: a write is one message, so a value goes out in one ``write(2)``; the file
is generated at open or at the first read, so it is opened afresh for every look; descriptors are
raw because a Python file object costs three times the kernel's own work here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

Reader = Callable[[str], "str | None"]
"""Gives the text of one file of a cgroup, stripped, or None where there is no such file."""

_CHUNK = 65536


def read(directory: int, name: str) -> str:
    """The whole text of ``name``, without the newline at its end."""
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        data = os.read(descriptor, _CHUNK)
        if len(data) >= 4096:  # seq_file hands out a page at a time
            while chunk := os.read(descriptor, _CHUNK):
                data += chunk
    finally:
        os.close(descriptor)
    return data.decode("ascii", "replace").rstrip("\n")


def write(directory: int, name: str, value: str) -> None:
    """Write ``value`` to ``name`` in one message."""
    descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(descriptor, value.encode("ascii"))
    finally:
        os.close(descriptor)


def exists(directory: int, name: str) -> bool:
    """Whether the kernel offers the file ``name`` in this cgroup."""
    return os.access(name, os.F_OK, dir_fd=directory)


def reader(directory: int | None) -> Reader:
    """A :data:`Reader` of one cgroup directory; one that finds nothing where there is none."""

    def get(name: str) -> str | None:
        if directory is None:
            return None
        try:
            return read(directory, name)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):  # ENODEV: the cgroup was removed
                return None
            raise

    return get


def flat_keyed(text: str | None) -> dict[str, int]:
    """``key value`` lines (cgroup-v2.rst: "flat keyed"); others are passed over."""
    values: dict[str, int] = {}
    for line in (text or "").splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            values[key] = int(value)
    return values


def number(text: str | None) -> int:
    """A single counter; 0 where the file is missing or says something else."""
    return int(text) if text is not None and text.isdigit() else 0


def limit(text: str | None, unlimited: int | None = None) -> int | None:
    """A limit in the file's unit, None for ``max`` or a value of ``unlimited`` and above."""
    if text is None or not text.isdigit():
        return None
    value = int(text)
    return None if unlimited is not None and value >= unlimited else value


def pids(text: str) -> list[int]:
    """The lines of ``cgroup.procs``; a 0 stands for a process of a namespace we cannot see."""
    return [pid for pid in map(int, text.split()) if pid]
