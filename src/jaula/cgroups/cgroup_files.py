"""Interface files of a cgroup: read, planned write and error text of one file.

Source: Linux ``Documentation/admin-guide/cgroup-v2.rst`` ("Interface Files", "Format") and
``admin-guide/cgroup-v1/``. A controller decides which writes a spec needs and returns them as
values (pure); :func:`perform` executes them in order. Functions that read or write a file raise
``OSError``; :func:`write_error` turns it into an error of this program.

Facts about these files: a write is one message, so a value is written in one ``write(2)``. The
kernel generates the content at open or at the first read, so a file is opened for every read.
Descriptors are raw because a Python file object costs three times the kernel's own work here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable

import msgspec

from jaula.errors import Conflict, InvalidRequest, JaulaError, NotAuthorized, NotFound, Unsupported

Reader = Callable[[str], "str | None"]
"""A function that returns the stripped text of a cgroup's file, or None if the file is absent."""

_CHUNK = 65536  # bytes


def read(directory: int, name: str) -> str:
    """Return the whole text of ``name``, without the final newline."""
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
    """Return whether the kernel has the file ``name`` in this cgroup."""
    return os.access(name, os.F_OK, dir_fd=directory)


def reader(directory: int | None, prefix: str = "") -> Reader:
    """Return a :data:`Reader` of a cgroup directory; None gives a reader without files.

    ``prefix`` is the path of the cgroup below the directory, with a slash at its end.
    """

    def get(name: str) -> str | None:
        if directory is None:
            return None
        try:
            return read(directory, prefix + name)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):  # ENODEV: the cgroup was removed
                return None
            raise

    return get


def flat_keyed(text: str | None) -> dict[str, int]:
    """Parse ``key value`` lines (cgroup-v2.rst: "flat keyed"); skip other lines."""
    words = (text or "").split()
    try:  # most files have such lines only, and many cgroups are read for a scrape
        return dict(zip(words[::2], map(int, words[1::2]), strict=True))
    except ValueError:
        pass  # another line, or none
    values: dict[str, int] = {}
    for line in (text or "").splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            values[key] = int(value)
    return values


def number(text: str | None) -> int:
    """Parse a counter; 0 if the file is missing or not a number."""
    return int(text) if text is not None and text.isdigit() else 0


def limit(text: str | None, unlimited: int | None = None) -> int | None:
    """Parse a limit in the file's unit; None for ``max`` or a value of at least ``unlimited``."""
    if text is None or not text.isdigit():
        return None
    value = int(text)
    return None if unlimited is not None and value >= unlimited else value


def pids(text: str) -> list[int]:
    """Parse ``cgroup.procs``; skip 0, which stands for a process outside the pid namespace."""
    return [pid for pid in map(int, text.split()) if pid]


class FileWrite(msgspec.Struct, frozen=True):
    """One value for one file of a controller.

    ``missing`` is the warning to return if the kernel does not have the file and the container may
    run without it. If empty, a missing file is an error.
    """

    file: str
    value: str
    missing: str = ""

    def describe(self) -> str:
        """Return the write in words."""
        return f"write {self.value!r} to {self.file}"


class WriteWarning(msgspec.Struct, frozen=True):
    """A requested limit that this cgroup version lacks and a container can run without."""

    text: str

    def describe(self) -> str:
        return self.text


Step = FileWrite | WriteWarning


def perform(directory: int, path: str, steps: Iterable[Step]) -> list[str]:
    """Execute writes in the cgroup ``directory`` (``path`` is for messages); return warnings."""
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
    """Return the error for a failed write: the requested value and the kernel's reason."""
    prefix = f"cannot set {step.file} of cgroup {path} to {step.value!r}"
    if error.errno == errno.ENOENT:
        return Unsupported(f"{prefix}: this kernel has no such limit")
    if error.errno in (errno.EOPNOTSUPP, errno.ENODEV):
        return Unsupported(f"{prefix}: {error.strerror}")
    if error.errno in (errno.EINVAL, errno.ERANGE, errno.E2BIG):
        return InvalidRequest(f"{prefix}: the kernel rejects the value")
    if error.errno in (errno.EBUSY, errno.ENOSPC, errno.EAGAIN):
        return Conflict(f"{prefix}: current usage or a child cgroup exceeds the value")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NotAuthorized(
            f"{prefix}: {error.strerror}", hint="the parent cgroup forbids it, or root is needed"
        )
    if error.errno == errno.ENOTDIR:
        return NotFound(f"cgroup {path} no longer exists")
    return JaulaError(f"{prefix}: {error.strerror}")


def is_removed(error: OSError) -> bool:
    """Return whether the error means that the cgroup was removed concurrently."""
    return error.errno in (errno.ENODEV, errno.ENOENT)
