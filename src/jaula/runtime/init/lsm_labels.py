"""The SELinux and AppArmor labels of a process: set before it becomes its program, read after.

Follows proc_pid_attr(5). A label is written to the attribute ``exec``, takes effect at the next
execve, and is in ``current`` from then on. Statement I5: what is written must reach the kernel. So
the files are opened while the host's /proc is in reach, are checked to be of a proc file system,
and are read back; and once the program runs, its maker reads what it runs under.

Facts about no_new_privs: SELinux asks the policy (``nnp_transition``). AppArmor lets a process that
is confined already only become more confined: for it the profile is stacked on the present one,
which is the same as changing to it where the present one is none.
"""

from __future__ import annotations

import errno
import os

import msgspec

from jaula.errors import RuntimeFailure
from jaula.kernel import mounts, selinuxfs
from jaula.kernel.apparmor import parse_current
from jaula.spec.runtime import Spec

_LIMIT = 4096  # bytes of a label; the kernel's files give a page at most


class LabelRequest(msgspec.Struct, frozen=True):
    """The labels of a spec's process, encoded; None: as the maker's own."""

    apparmor: bytes | None = None
    selinux: bytes | None = None
    no_new_privileges: bool = False

    @property
    def none(self) -> bool:
        return not self.apparmor and not self.selinux


class Labels(msgspec.Struct, frozen=True):
    """Descriptors of this process's attributes, -1: none; ``stacks``: AppArmor has to stack."""

    apparmor: int = -1
    selinux: int = -1
    stacks: bool = False

    @property
    def fds(self) -> tuple[int, int]:
        return self.apparmor, self.selinux


def open_proc(wanted: LabelRequest) -> int:
    """The host's /proc where a label is to be written, else -1; for :func:`open_labels`.

    A process that joins a container opens it before: the container's own may be a forgery.
    """
    if wanted.none:
        return -1
    fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _check_procfs(fd)
    return fd


def open_labels(wanted: LabelRequest, proc: int) -> Labels:
    """Open what :func:`write` will write, for the calling process; closes ``proc``."""
    if proc < 0:
        return Labels()
    apparmor = selinux = -1
    stacks = False
    flags = os.O_RDWR | os.O_CLOEXEC
    if wanted.apparmor:
        apparmor = os.open("thread-self/attr/apparmor/exec", flags, dir_fd=proc)
        stacks = wanted.no_new_privileges and _confined(proc)
    if wanted.selinux:
        selinux = os.open("thread-self/attr/exec", flags, dir_fd=proc)
    os.close(proc)
    return Labels(apparmor, selinux, stacks)


def _confined(proc: int) -> bool:
    fd = os.open("thread-self/attr/apparmor/current", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        return parse_current(os.read(fd, _LIMIT).decode(errors="replace"))[0] != "unconfined"
    finally:
        os.close(fd)


def write(wanted: LabelRequest, labels: Labels) -> None:
    """Ask for the labels at the next execve, and see that the kernel has taken note.

    Raises ``RuntimeFailure``.
    """
    if labels.apparmor >= 0 and wanted.apparmor:
        verb = b"stack " if labels.stacks else b"exec "
        noted = _write(labels.apparmor, verb + wanted.apparmor)
        if not runs_under(os.fsdecode(wanted.apparmor), noted):
            raise _differs("AppArmor profile", wanted.apparmor, noted)
    if labels.selinux >= 0 and wanted.selinux:
        noted = _write(labels.selinux, wanted.selinux)
        if not noted:
            raise _differs("SELinux label", wanted.selinux, noted)


def _write(fd: int, text: bytes) -> str:
    _check_procfs(fd)
    try:
        os.write(fd, text)
        noted = os.pread(fd, _LIMIT, 0)
    except OSError as error:
        reason = (error.strerror or "refused").lower()
        raise RuntimeFailure(
            f"security label {os.fsdecode(text)!r}: {reason}",
            hint="the policy does not have it, or does not let the engine give it"
            if error.errno in (errno.EACCES, errno.EINVAL, errno.ENOENT)
            else None,
        ) from None
    finally:
        os.close(fd)
    return noted.decode(errors="replace").rstrip("\0\n")


def _check_procfs(fd: int) -> None:
    if mounts.filesystem_magic(fd) != mounts.PROC_SUPER_MAGIC:
        raise RuntimeFailure("security label: the file to write it to is not the kernel's")


def runs_under(profile: str, current: str) -> bool:
    """Whether what AppArmor tells of a process is the profile that was asked for.

    A profile may send programs on to a child of its own, and a stack holds all of its parts.
    """
    parts = parse_current(current)[0].split("//&")
    return any(part == profile or part.startswith(f"{profile}//") for part in parts)


def check(pid: int, wanted: LabelRequest) -> None:
    """See that a process runs under its labels. Raises ``RuntimeFailure`` where it does not."""
    try:
        if wanted.apparmor:
            current = _read(f"/proc/{pid}/attr/apparmor/current")
            if not runs_under(os.fsdecode(wanted.apparmor), current):
                raise _differs("AppArmor profile", wanted.apparmor, current)
        if wanted.selinux:
            current = _read(f"/proc/{pid}/attr/current")
            asked = os.fsdecode(wanted.selinux)
            if current not in (asked, selinuxfs.canonical(asked)):
                raise _differs("SELinux label", wanted.selinux, current)
    except (FileNotFoundError, ProcessLookupError):
        if os.path.exists(f"/proc/{pid}"):
            raise RuntimeFailure(
                "security label: the kernel does not tell what the program runs under"
            ) from None
        # it has ended, and its parent, which is not us, has been told


def for_files(spec: Spec) -> str | None:
    """The label that a spec wants for its mounts, where the kernel has a use for it."""
    label = spec.linux.mount_label if spec.linux else None
    return label if label and os.path.exists("/sys/fs/selinux/enforce") else None


def of_files(pid: int) -> str | None:
    """The SELinux label of what a process has as its root; None where files have none."""
    try:
        value = os.getxattr(f"/proc/{pid}/root", "security.selinux")
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise
    return os.fsdecode(value).rstrip("\0")


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(_LIMIT).rstrip("\0\n")


def _differs(what: str, wanted: bytes, found: str) -> RuntimeFailure:
    return RuntimeFailure(
        f"{what}: {os.fsdecode(wanted)} was asked for, and the kernel says {found or 'none'}"
    )
