"""SELinux and AppArmor labels of a process: set before execve, verified after it.

Follows proc_pid_attr(5). A label is written to the attribute ``exec``, takes effect at the next
execve, and is in ``current`` from then on. Statement I5: what is written must reach the kernel. So
the files are opened while the host's /proc is in reach, checked to be on a proc file system, and
read back. Once the program runs, the parent reads the label that it runs under.

Facts about no_new_privs: SELinux asks the policy (``nnp_transition``). AppArmor lets a confined
process only become more confined: the profile is stacked on the present one. Without a present
profile, that is the same as changing to it. A present profile with the flag ``unconfined`` confines
nothing, and the kernel permits a change.
"""

from __future__ import annotations

import errno
import os

import msgspec

from jaula.errors import RuntimeFailure
from jaula.kernel import mounts, selinuxfs
from jaula.kernel.apparmor_files import parse_current
from jaula.spec.runtime_spec import Spec

_MAX_LABEL = 4096  # bytes of a label; the kernel returns at most a page


class LabelRequest(msgspec.Struct, frozen=True):
    """The labels of a spec's process, encoded; None keeps the parent's."""

    apparmor: bytes | None = None
    selinux: bytes | None = None
    no_new_privileges: bool = False

    @property
    def none(self) -> bool:
        """Whether no label is requested."""
        return not self.apparmor and not self.selinux


class LabelFds(msgspec.Struct, frozen=True):
    """Descriptors of this process's attribute files (-1: none).

    ``stack`` is set if AppArmor has to stack the profile.
    """

    apparmor: int = -1
    selinux: int = -1
    stack: bool = False

    @property
    def fds(self) -> tuple[int, int]:
        return self.apparmor, self.selinux


def open_proc(request: LabelRequest) -> int:
    """Open the host's /proc for :func:`open_labels`; return -1 if no label is requested.

    A process that joins a container opens it before: the container's own /proc may be forged.
    """
    if request.none:
        return -1
    fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _check_procfs(fd)
    return fd


def open_labels(request: LabelRequest, proc: int) -> LabelFds:
    """Open the attribute files of the calling process for :func:`write`; close ``proc``."""
    if proc < 0:
        return LabelFds()
    apparmor = selinux = -1
    stack = False
    flags = os.O_RDWR | os.O_CLOEXEC
    if request.apparmor:
        apparmor = os.open("thread-self/attr/apparmor/exec", flags, dir_fd=proc)
        stack = request.no_new_privileges and _confined(proc)
    if request.selinux:
        selinux = os.open("thread-self/attr/exec", flags, dir_fd=proc)
    os.close(proc)
    return LabelFds(apparmor, selinux, stack)


def _confined(proc: int) -> bool:
    fd = os.open("thread-self/attr/apparmor/current", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        name, mode = parse_current(os.read(fd, _MAX_LABEL).decode(errors="replace"))
        return "unconfined" not in (name, mode)
    finally:
        os.close(fd)


def write(request: LabelRequest, label_fds: LabelFds) -> None:
    """Set the labels for the next execve, and verify that the kernel has accepted them.

    :raises RuntimeFailure: when it has not.
    """
    if label_fds.apparmor >= 0 and request.apparmor:
        verb = b"stack " if label_fds.stack else b"exec "
        readback = _write(label_fds.apparmor, verb + request.apparmor)
        if not runs_under(os.fsdecode(request.apparmor), readback):
            raise _mismatch("AppArmor profile", request.apparmor, readback)
    if label_fds.selinux >= 0 and request.selinux:
        readback = _write(label_fds.selinux, request.selinux)
        if not readback:
            raise _mismatch("SELinux label", request.selinux, readback)


def _write(fd: int, text: bytes) -> str:
    _check_procfs(fd)
    try:
        os.write(fd, text)
        readback = os.pread(fd, _MAX_LABEL, 0)
    except OSError as error:
        reason = (error.strerror or "refused").lower()
        raise RuntimeFailure(
            f"security label {os.fsdecode(text)!r}: {reason}",
            hint="the policy does not define it, or does not let the engine set it"
            if error.errno in (errno.EACCES, errno.EINVAL, errno.ENOENT)
            else None,
        ) from None
    finally:
        os.close(fd)
    return readback.decode(errors="replace").rstrip("\0\n")


def _check_procfs(fd: int) -> None:
    if mounts.filesystem_magic(fd) != mounts.PROC_SUPER_MAGIC:
        raise RuntimeFailure("security label: the attribute file is not on a proc file system")


def runs_under(profile: str, current: str) -> bool:
    """Return whether AppArmor's ``current`` is the requested profile."""
    return bool(parts_under(profile, current))


def parts_under(profile: str, current: str) -> list[str]:
    """Return the parts of AppArmor's ``current`` that are the requested profile.

    A profile may send programs on to a child of its own, and a stack holds all of its parts.
    """
    parts = parse_current(current)[0].split("//&")
    return [part for part in parts if part == profile or part.startswith(f"{profile}//")]


def check(pid: int, request: LabelRequest) -> None:
    """Verify that a process runs under its labels.

    :raises RuntimeFailure: when it does not.
    """
    try:
        if request.apparmor:
            current = _read(f"/proc/{pid}/attr/apparmor/current")
            if not runs_under(os.fsdecode(request.apparmor), current):
                raise _mismatch("AppArmor profile", request.apparmor, current)
        if request.selinux:
            current = _read(f"/proc/{pid}/attr/current")
            label = os.fsdecode(request.selinux)
            if current not in (label, selinuxfs.canonical(label)):
                raise _mismatch("SELinux label", request.selinux, current)
    except (FileNotFoundError, ProcessLookupError):
        if os.path.exists(f"/proc/{pid}"):
            raise RuntimeFailure(
                "security label: the kernel does not report the label of the program"
            ) from None
        # The process has exited; its parent, another process, reports that.


def mount_label(spec: Spec) -> str | None:
    """Return the label of a spec for its mounts, if SELinux is enabled."""
    label = spec.linux.mount_label if spec.linux else None
    return label if label and os.path.exists("/sys/fs/selinux/enforce") else None


def pipe_label(spec: Spec) -> str | None:
    """Return the label of a spec for pipes of its process; None if it may use those of the engine.

    The kernel cannot label pipes, so labelled ones are FIFOs, which CRIU cannot dump.
    """
    label = spec.process.selinux_label if spec.process else None
    context = mount_label(spec) if label else None
    if not context or not label:
        return None
    own = selinuxfs.own_label()
    return None if selinuxfs.allowed(label, own, "fifo_file", "write") else context


def root_label(pid: int) -> str | None:
    """Return the SELinux label of a process's root directory; None if files have no labels."""
    try:
        value = os.getxattr(f"/proc/{pid}/root", "security.selinux")
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise
    return os.fsdecode(value).rstrip("\0")


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(_MAX_LABEL).rstrip("\0\n")


def _mismatch(what: str, request: bytes, actual: str) -> RuntimeFailure:
    return RuntimeFailure(
        f"{what}: {os.fsdecode(request)} was requested, but the kernel reports {actual or 'none'}"
    )
