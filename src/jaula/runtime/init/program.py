"""Find the program of a container's process and execute it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import NoReturn

from msgspec import structs

from jaula.kernel import capabilities, process
from jaula.runtime.init.exec import ExecError, ProcessConfig, set_groups

DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


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
