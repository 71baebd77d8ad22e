"""The last steps of every process in a container: from the engine's child to the user's program.

Used by init and by exec. Follows capabilities(7), credentials(7), runtime-spec config.md "process".
Everything is encoded and compiled in :func:`prepare`, before the container's root is entered; after
that no module, codec or user database is loaded.

Facts about the order: without no_new_privs a seccomp filter needs CAP_SYS_ADMIN in the user
namespace, so it is installed while the capabilities are still there; with no_new_privs it comes
last. A Landlock domain is entered before either, by the same privilege. Changing the user id clears
capabilities unless PR_SET_KEEPCAPS is set.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from typing import NoReturn

import msgspec
from msgspec import structs

from jaula.kernel import capabilities, keyring, process, seccomp, tty
from jaula.runtime.init import seccomp_notify
from jaula.runtime.init.lsm_labels import LabelRequest, Labels, write
from jaula.spec.runtime import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.runtime.init import landlock

DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NUMBERS = {name: number for number, name in enumerate(capabilities.NAMES)}


class ExecError(Exception):
    """A step failed; the text goes to the user, the code is Docker's exit code."""

    def __init__(self, text: str, exit_code: int = 125) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class ProcessConfig(msgspec.Struct, frozen=True):
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
    labels: LabelRequest
    listener: seccomp_notify.SeccompListener | None = (
        None  # who hears of the filter's notifications
    )
    session_keyring: bool = True  # whether the process gets one of its own
    personality: int | None = None
    landlock: landlock.CompiledLandlock | None = None


def prepare(
    wanted: Process,
    filter: tuple[bytes, int] | None,
    *,
    listener: seccomp_notify.SeccompListener | None = None,
    session_keyring: bool = True,
    personality: int | None = None,
    rules: landlock.CompiledLandlock | None = None,
) -> ProcessConfig:
    """Encode and check everything. Raises :class:`ExecError`."""
    if not wanted.args:
        raise ExecError("no command was given and the image names none")
    if not wanted.cwd.startswith("/"):
        raise ExecError(f"working directory {wanted.cwd!r} is not absolute")
    if (os.path.normpath(wanted.cwd) + "/").replace("//", "/").startswith("/proc/"):
        raise ExecError(f"working directory {wanted.cwd!r} lies below /proc, which is refused")
    environment: dict[bytes, bytes] = {}
    for entry in wanted.env:
        name, separator, value = os.fsencode(entry).partition(b"=")
        if name and separator:
            environment[name] = value
    sets = wanted.capabilities
    return ProcessConfig(
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
        _mask(sets.ambient if sets else ())
        & _mask(sets.permitted if sets else ())
        & _mask(sets.inheritable if sets else ()),  # the kernel refuses others
        wanted.no_new_privileges,
        filter,
        LabelRequest(
            os.fsencode(wanted.apparmor_profile) if wanted.apparmor_profile else None,
            os.fsencode(wanted.selinux_label) if wanted.selinux_label else None,
            wanted.no_new_privileges,
        ),
        listener,
        session_keyring,
        personality,
        rules,
    )


def _mask(names: tuple[str, ...]) -> int:
    """The bits of names; what is not known is left out, of which validation has told."""
    mask = 0
    for name in names:
        if name in _NUMBERS:
            mask |= 1 << _NUMBERS[name]
    return mask


def take_stdio(
    stdin: int,
    stdout: int,
    stderr: int,
    *,
    terminal: bool,
    preserve: int = 0,
    kept: tuple[int, ...] = (),
) -> tuple[int, ...]:
    """A session of its own, the three descriptors in place, the terminal as its controlling one.

    ``preserve`` descriptors from 3 on stay, and those in ``kept`` (-1: none), whose numbers from
    then on are returned; all others are closed.
    """
    os.setsid()
    first = 3 + preserve
    moved = tuple(
        fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(first, 10)) if fd >= 0 else -1 for fd in kept
    )
    for number, fd in enumerate((stdin, stdout, stderr)):
        os.dup2(fd, number, inheritable=True)
    if terminal:
        tty.make_controlling(0)
    process.close_fds_except((*range(3, first), *(fd for fd in moved if fd >= 0)))
    return moved


def make_cwd(prepared: ProcessConfig) -> None:
    """Docker makes a missing working directory, owned by the container's root."""
    try:
        os.makedirs(prepared.cwd, 0o755, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ExecError(
            f"working directory {os.fsdecode(prepared.cwd)!r} is no directory"
        ) from None
    except OSError:
        return  # chdir tells what is wrong, as the process's own user


def drop(prepared: ProcessConfig, opened: Labels, pid: int) -> None:
    """Give up everything that the process is not to have; :func:`seal` and exec are next.

    ``pid`` is the process's number on the host, for the seccomp agent.
    """
    if prepared.session_keyring:
        keyring.join_new_session()
    if prepared.personality is not None:
        process.personality(prepared.personality)
    if prepared.landlock is not None:
        prepared.landlock.enter()
    capabilities.drop_bounding(prepared.bounding)
    if not prepared.no_new_privileges:
        _install_filter(prepared, pid)
    capabilities.keep_on_setuid(True)
    set_groups(prepared.groups)
    os.setresgid(prepared.gid, prepared.gid, prepared.gid)
    os.setresuid(prepared.uid, prepared.uid, prepared.uid)
    os.umask(prepared.umask)
    capabilities.keep_on_setuid(False)
    _enter_cwd(prepared.cwd)
    capabilities.capset(prepared.effective, prepared.permitted, prepared.inheritable)
    capabilities.clear_ambient()
    if prepared.ambient:
        capabilities.raise_ambient(prepared.ambient)
    write(prepared.labels, opened)


def seal(prepared: ProcessConfig, pid: int) -> None:
    """The very last: no new privileges, and with them the filter."""
    if prepared.no_new_privileges:
        process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
        _install_filter(prepared, pid)


def _install_filter(prepared: ProcessConfig, pid: int) -> None:
    if prepared.filter is None:
        return
    program, flags = prepared.filter
    if prepared.listener is None:
        seccomp.install(program, flags)
        return
    text = seccomp_notify.message(prepared.listener, pid)
    fd = seccomp.install(program, flags, listener=True)
    assert fd is not None
    seccomp_notify.send(prepared.listener, text, fd)


def be_root() -> None:
    """Root of the user namespace that was just entered, and still not to be traced."""
    set_groups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    process.prctl(process.PR_SET_DUMPABLE, 0)


def set_groups(groups: Sequence[int]) -> None:
    """setgroups(2), where the user namespace allows it.

    One made without privilege does not (user_namespaces(7), "setgroups"): there the groups stay
    as they are, and asking for some raises :class:`ExecError`.
    """
    try:
        os.setgroups(groups)
    except PermissionError:
        if groups:
            raise ExecError("additional groups cannot be set in this user namespace") from None


def _enter_cwd(cwd: bytes) -> None:
    try:
        os.chdir(cwd)
    except OSError as error:
        raise ExecError(
            f"working directory {os.fsdecode(cwd)!r}: {error.strerror}",
            126 if error.errno == 13 else 125,
        ) from None
    try:
        inside = os.getcwdb().startswith(b"/")
    except OSError:
        inside = False
    if not inside:
        raise ExecError(f"working directory {os.fsdecode(cwd)!r} lies outside the container")


def locate(prepared: ProcessConfig) -> None:
    """See whether the program is there and may be executed by its user; raises :class:`ExecError`.

    For a process that becomes the program later, while it still has every privilege.
    """
    _, permitted, inheritable = capabilities.capget()
    groups = os.getgroups()
    set_groups(prepared.groups)
    process.setfsgid(prepared.gid)
    process.setfsuid(prepared.uid)
    capabilities.capset(prepared.effective & permitted, permitted, inheritable)
    try:
        _search(prepared, _probe)
    finally:
        capabilities.capset(permitted, permitted, inheritable)
        process.setfsuid(os.geteuid())
        process.setfsgid(os.getegid())
        capabilities.capset(permitted, permitted, inheritable)
        set_groups(groups)


def _probe(path: bytes, prepared: ProcessConfig) -> None:
    facts = os.stat(path)
    if stat.S_ISDIR(facts.st_mode) or not os.access(path, os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _exec(path: bytes, prepared: ProcessConfig) -> None:
    os.execve(path, prepared.arguments, prepared.environment)


_PASSWD_SIZE = 1 << 20  # bytes of /etc/passwd that are looked at


def with_home(prepared: ProcessConfig) -> ProcessConfig:
    """The same with ``HOME``, from the container's /etc/passwd where the spec sets none."""
    if b"HOME" in prepared.environment:
        return prepared
    return structs.replace(
        prepared, environment={**prepared.environment, b"HOME": _home(prepared.uid)}
    )


def _home(uid: int) -> bytes:
    try:
        fd = os.open("/etc/passwd", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return b"/"
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b"/"
        for line in os.read(fd, _PASSWD_SIZE).split(b"\n"):
            fields = line.split(b":")
            if len(fields) >= 6 and fields[2] == b"%d" % uid:
                return fields[5] or b"/"
    except OSError:
        return b"/"
    finally:
        os.close(fd)
    return b"/"


def execute(prepared: ProcessConfig, preserve: int = 0) -> NoReturn:
    """Find the program as execvp does and become it, with ``preserve`` descriptors from 3 on.

    Raises :class:`ExecError`.
    """
    process.reset_signals()
    process.close_on_exec_from(3 + preserve)
    for fd in range(3, 3 + preserve):
        os.set_inheritable(fd, True)
    _search(prepared, _exec)
    raise AssertionError("unreachable")


def _search(prepared: ProcessConfig, attempt: Callable[[bytes, ProcessConfig], None]) -> None:
    """Try the program's places as execvp does, until ``attempt`` does not raise ``OSError``."""
    name = prepared.arguments[0]
    shown = os.fsdecode(name)
    if b"/" in name:
        try:
            return attempt(name, prepared)
        except OSError as error:
            raise _exec_failure(shown, name, error) from None
    if not name:
        raise ExecError('exec: "": executable file not found in $PATH', 127)
    denied: OSError | None = None
    for directory in prepared.environment.get(b"PATH", DEFAULT_PATH).split(b":"):
        path = (directory or b".") + b"/" + name
        try:
            return attempt(path, prepared)
        except OSError as error:
            if error.errno == errno.EACCES:
                if _is_directory(path):
                    continue
                denied = error
            elif error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise _exec_failure(shown, path, error) from None
    if denied is not None:
        raise ExecError(f'exec: "{shown}": permission denied', 126)
    raise ExecError(f'exec: "{shown}": executable file not found in $PATH', 127)


def _is_directory(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        return False


def _exec_failure(shown: str, path: bytes, error: OSError) -> ExecError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if os.path.lexists(path):
            return ExecError(f'exec: "{shown}": its interpreter: no such file or directory', 127)
        return ExecError(f'exec: "{shown}": stat {shown}: no such file or directory', 127)
    if error.errno == errno.EACCES:
        if _is_directory(path):
            return ExecError(f'exec: "{shown}": is a directory: permission denied', 126)
        return ExecError(f'exec: "{shown}": permission denied', 126)
    if error.errno == errno.ENOEXEC:
        return ExecError(f'exec: "{shown}": exec format error', 126)
    return ExecError(f'exec: "{shown}": {(error.strerror or "failed").lower()}', 126)
