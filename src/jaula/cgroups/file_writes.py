"""A decided write to an interface file, and what it means when the kernel refuses it.

A controller decides (pure), giving a tuple of these; :func:`perform` does them in order.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

import msgspec

from jaula.cgroups import files
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotAuthorized, NotFound, Unsupported


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
            files.write(directory, step.file, step.value)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EOPNOTSUPP) and step.missing:
                warnings.append(step.missing)
                continue
            raise refusal(path, step, error) from error
    return warnings


def refusal(path: str, step: FileWrite, error: OSError) -> JaulaError:
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


def gone(error: OSError) -> bool:
    """Whether the cgroup was removed under our hands."""
    return error.errno in (errno.ENODEV, errno.ENOENT)
