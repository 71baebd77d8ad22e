"""Interface files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable

import msgspec

from jaula.errors import Conflict, InvalidRequest, JaulaError, NotAuthorized, NotFound, Unsupported

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


class FileWrite(msgspec.Struct, frozen=True):
    """One value for one file of a controller.

    ``missing`` is the warning where the kernel has no such file and the container may run without;
    empty, it is an error.
    """

    file: str
    value: str
    missing: str = ""

    def describe(self) -> str:
        return f"write {self.value!r} to {self.file}"


class WriteWarning(msgspec.Struct, frozen=True):
    """Something asked that this version of cgroups cannot do and a container can run without."""

    text: str

    def describe(self) -> str:
        return self.text


Step = FileWrite | WriteWarning


def perform(directory: int, path: str, steps: Iterable[Step]) -> list[str]:
    """Do the writes in the cgroup ``directory`` (``path`` is for messages); returns warnings."""
    warnings: list[str] = []
    for step in steps:
        if isinstance(step, WriteWarning):
            warnings.append(step.text)
            continue
        try:
            write(directory, step.file, step.value)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EOPNOTSUPP) and step.missing:
                warnings.append(step.missing)
                continue
            raise write_error(path, step, error) from error
    return warnings


def write_error(path: str, step: FileWrite, error: OSError) -> JaulaError:
    """The error that says what was asked and what the kernel answered."""
    asked = f"cannot set {step.file} of cgroup {path} to {step.value!r}"
    if error.errno == errno.ENOENT:
        return Unsupported(f"{asked}: this kernel has no such limit")
    if error.errno in (errno.EOPNOTSUPP, errno.ENODEV):
        return Unsupported(f"{asked}: {error.strerror}")
    if error.errno in (errno.EINVAL, errno.ERANGE, errno.E2BIG):
        return InvalidRequest(f"{asked}: the kernel refuses the value")
    if error.errno in (errno.EBUSY, errno.ENOSPC, errno.EAGAIN):
        return Conflict(f"{asked}: more is in use now, or a cgroup below needs it")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NotAuthorized(
            f"{asked}: {error.strerror}", hint="the parent cgroup does not allow it, or not root"
        )
    if error.errno == errno.ENOTDIR:
        return NotFound(f"cgroup {path} is gone")
    return JaulaError(f"{asked}: {error.strerror}")


def is_removed(error: OSError) -> bool:
    """Whether the cgroup was removed under our hands."""
    return error.errno in (errno.ENODEV, errno.ENOENT)
