"""The last steps of every process in a container: from the engine's child to the user's program.

Used by init and by exec. Follows capabilities(7), credentials(7), runtime-spec config.md "process".
Everything is encoded and compiled in :func:`prepare`, before the container's root is entered; after
that no module, codec or user database is loaded.

Facts about the order: without no_new_privs a seccomp filter needs CAP_SYS_ADMIN in the user
namespace, so it is installed while the capabilities are still there; with no_new_privs it comes
last. Changing the user id clears capabilities unless PR_SET_KEEPCAPS is set.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple, NoReturn

from jaula.kernel import capabilities, keyring, process, seccomp, tty
from jaula.spec.runtime import Process

DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NUMBERS = {name: number for number, name in enumerate(capabilities.NAMES)}


class Failure(Exception):
    """A step failed; the text goes to the user, the code is Docker's exit code."""

    def __init__(self, text: str, exit_code: int = 125) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Prepared(NamedTuple):
    """A process to become; masks are in the order of capset's sets."""

    arguments: tuple[bytes, ...]
    environment: dict[bytes, bytes]
    cwd: bytes
    uid: int
    gid: int
    groups: tuple[int, ...]
    umask: int
    bounding: int
    effective: int
    permitted: int
    inheritable: int
    ambient: int
    no_new_privileges: bool
    filter: tuple[bytes, int] | None
    apparmor: bytes | None
    selinux: bytes | None


def prepare(wanted: Process, filter: tuple[bytes, int] | None) -> Prepared:
    """Encode and check everything. Raises :class:`Failure`."""
    if not wanted.args:
        raise Failure("no command was given and the image names none")
    if not wanted.cwd.startswith("/"):
        raise Failure(f"working directory {wanted.cwd!r} is not absolute")
    if (os.path.normpath(wanted.cwd) + "/").replace("//", "/").startswith("/proc/"):
        raise Failure(f"working directory {wanted.cwd!r} lies below /proc, which is refused")
    environment: dict[bytes, bytes] = {}
    for entry in wanted.env:
        name, separator, value = os.fsencode(entry).partition(b"=")
        if name and separator:
            environment[name] = value
    sets = wanted.capabilities
    return Prepared(
        tuple(os.fsencode(argument) for argument in wanted.args),
        environment,
        os.fsencode(wanted.cwd),
        wanted.user.uid,
        wanted.user.gid,
        wanted.user.additional_gids,
        0o022 if wanted.user.umask is None else wanted.user.umask,
        _mask(sets.bounding if sets else ()),
        _mask(sets.effective if sets else ()),
        _mask(sets.permitted if sets else ()),
        _mask(sets.inheritable if sets else ()),
        _mask(sets.ambient if sets else ()),
        wanted.no_new_privileges,
        filter,
        os.fsencode(wanted.apparmor_profile) if wanted.apparmor_profile else None,
        os.fsencode(wanted.selinux_label) if wanted.selinux_label else None,
    )


def _mask(names: tuple[str, ...]) -> int:
    mask = 0
    for name in names:
        if name not in _NUMBERS:
            raise Failure(f"unknown capability {name!r}")
        mask |= 1 << _NUMBERS[name]
    return mask


class Labels(NamedTuple):
    """Descriptors of this process's LSM attributes, opened while the host's /proc is in reach."""

    apparmor: int
    selinux: int


def open_proc(prepared: Prepared) -> int:
    """The host's /proc where a label is to be written, else -1; for :func:`open_labels`.

    A process that joins a container opens it before: the container's own may be a forgery.
    """
    if not prepared.apparmor and not prepared.selinux:
        return -1
    return os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def open_labels(prepared: Prepared, proc: int) -> Labels:
    """Open what :func:`drop` will write, for the calling process; closes ``proc``."""
    if proc < 0:
        return Labels(-1, -1)
    apparmor = selinux = -1
    flags = os.O_RDWR | os.O_CLOEXEC
    if prepared.apparmor:
        apparmor = os.open("thread-self/attr/apparmor/exec", flags, dir_fd=proc)
    if prepared.selinux:
        selinux = os.open("thread-self/attr/exec", flags, dir_fd=proc)
    os.close(proc)
    return Labels(apparmor, selinux)


def take_stdio(stdin: int, stdout: int, stderr: int, *, terminal: bool) -> None:
    """A session of its own, the three descriptors in place, the terminal as its controlling one."""
    os.setsid()
    for number, fd in enumerate((stdin, stdout, stderr)):
        os.dup2(fd, number, inheritable=True)
    if terminal:
        tty.make_controlling(0)


def make_cwd(prepared: Prepared) -> None:
    """Docker makes a missing working directory, owned by the container's root."""
    try:
        os.makedirs(prepared.cwd, 0o755, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise Failure(f"working directory {os.fsdecode(prepared.cwd)!r} is no directory") from None
    except OSError:
        return  # chdir tells what is wrong, as the process's own user


def drop(prepared: Prepared, labels: Labels) -> None:
    """Give up everything that the process is not to have; the caller execs next."""
    keyring.join_new_session()
    capabilities.drop_bounding(prepared.bounding)
    if prepared.filter and not prepared.no_new_privileges:
        seccomp.install(*prepared.filter)
    capabilities.keep_on_setuid(True)
    os.setgroups(prepared.groups)
    os.setresgid(prepared.gid, prepared.gid, prepared.gid)
    os.setresuid(prepared.uid, prepared.uid, prepared.uid)
    os.umask(prepared.umask)
    capabilities.keep_on_setuid(False)
    _enter_cwd(prepared.cwd)
    capabilities.capset(prepared.effective, prepared.permitted, prepared.inheritable)
    capabilities.clear_ambient()
    if prepared.ambient:
        capabilities.raise_ambient(prepared.ambient)
    if labels.apparmor >= 0 and prepared.apparmor:
        _label(labels.apparmor, b"exec " + prepared.apparmor)
    if labels.selinux >= 0 and prepared.selinux:
        _label(labels.selinux, prepared.selinux)
    if prepared.no_new_privileges:
        process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
        if prepared.filter:
            seccomp.install(*prepared.filter)


def _label(fd: int, text: bytes) -> None:
    try:
        os.write(fd, text)
    except OSError as error:
        raise Failure(f"security label {os.fsdecode(text)!r}: {error.strerror}") from None
    os.close(fd)


def _enter_cwd(cwd: bytes) -> None:
    try:
        os.chdir(cwd)
    except OSError as error:
        raise Failure(
            f"working directory {os.fsdecode(cwd)!r}: {error.strerror}",
            126 if error.errno == 13 else 125,
        ) from None
    try:
        inside = os.getcwdb().startswith(b"/")
    except OSError:
        inside = False
    if not inside:
        raise Failure(f"working directory {os.fsdecode(cwd)!r} lies outside the container")


def execute(prepared: Prepared) -> NoReturn:
    """Find the program as execvp does and become it. Raises :class:`Failure`."""
    process.reset_signals()
    process.close_on_exec_from(3)
    name = prepared.arguments[0]
    shown = os.fsdecode(name)
    if b"/" in name:
        try:
            os.execve(name, prepared.arguments, prepared.environment)
        except OSError as error:
            raise _exec_failure(shown, name, error) from None
    if not name:
        raise Failure('exec: "": executable file not found in $PATH', 127)
    denied: OSError | None = None
    for directory in prepared.environment.get(b"PATH", DEFAULT_PATH).split(b":"):
        path = (directory or b".") + b"/" + name
        try:
            os.execve(path, prepared.arguments, prepared.environment)
        except OSError as error:
            if error.errno == errno.EACCES:
                if _is_directory(path):
                    continue
                denied = error
            elif error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise _exec_failure(shown, path, error) from None
    if denied is not None:
        raise Failure(f'exec: "{shown}": permission denied', 126)
    raise Failure(f'exec: "{shown}": executable file not found in $PATH', 127)


def _is_directory(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        return False


def _exec_failure(shown: str, path: bytes, error: OSError) -> Failure:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if os.path.lexists(path):
            return Failure(f'exec: "{shown}": its interpreter: no such file or directory', 127)
        return Failure(f'exec: "{shown}": stat {shown}: no such file or directory', 127)
    if error.errno == errno.EACCES:
        if _is_directory(path):
            return Failure(f'exec: "{shown}": is a directory: permission denied', 126)
        return Failure(f'exec: "{shown}": permission denied', 126)
    if error.errno == errno.ENOEXEC:
        return Failure(f'exec: "{shown}": exec format error', 126)
    return Failure(f'exec: "{shown}": {(error.strerror or "failed").lower()}', 126)
