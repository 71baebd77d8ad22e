"""The program of a container's process: find it as execvp(3) does, and execute it.

``HOME`` comes from the container's /etc/passwd if the spec does not set it. The errors are
Docker's, with its exit codes 126 and 127.
"""

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


def check_program(config: ProcessConfig) -> None:
    """Check that the program exists and that its user may execute it.

    Used for a process that executes the program later, while it still has every privilege.

    :raises ExecError: when the program cannot be executed.
    """
    _, permitted, inheritable = capabilities.capget()
    groups = os.getgroups()
    set_groups(config.groups)
    process.setfsgid(config.gid)
    process.setfsuid(config.uid)
    capabilities.capset(config.effective & permitted, permitted, inheritable)
    try:
        _for_each_candidate(config, _probe)
    finally:
        capabilities.capset(permitted, permitted, inheritable)
        process.setfsuid(os.geteuid())
        process.setfsgid(os.getegid())
        capabilities.capset(permitted, permitted, inheritable)
        set_groups(groups)


def _probe(path: bytes, config: ProcessConfig) -> None:
    st = os.stat(path)
    if stat.S_ISDIR(st.st_mode) or not os.access(path, os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _execve(path: bytes, config: ProcessConfig) -> None:
    os.execve(path, config.arguments, config.environment)


_MAX_PASSWD = 1 << 20  # bytes of /etc/passwd that are read


def with_home(config: ProcessConfig) -> ProcessConfig:
    """Return the configuration with ``HOME`` from the container's /etc/passwd, if unset."""
    if b"HOME" in config.environment:
        return config
    return structs.replace(config, environment={**config.environment, b"HOME": _home(config.uid)})


def _home(uid: int) -> bytes:
    try:
        fd = os.open("/etc/passwd", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return b"/"
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b"/"
        for line in os.read(fd, _MAX_PASSWD).split(b"\n"):
            fields = line.split(b":")
            if len(fields) >= 6 and fields[2] == b"%d" % uid:
                return fields[5] or b"/"
    except OSError:
        return b"/"
    finally:
        os.close(fd)
    return b"/"


def execute(config: ProcessConfig, preserve: int = 0) -> NoReturn:
    """Find the program as execvp does and execute it; ``preserve`` descriptors from 3 on stay.

    :raises ExecError: when it cannot be executed.
    """
    process.reset_signals()
    process.close_on_exec_from(3 + preserve)
    for fd in range(3, 3 + preserve):
        os.set_inheritable(fd, True)
    _for_each_candidate(config, _execve)
    raise AssertionError("unreachable")


def _for_each_candidate(
    config: ProcessConfig, attempt: Callable[[bytes, ProcessConfig], None]
) -> None:
    """Call ``attempt`` with each candidate path, as execvp does, until one succeeds.

    :raises ExecError: when none does.
    """
    name = config.arguments[0]
    display_name = os.fsdecode(name)
    if b"/" in name:
        try:
            return attempt(name, config)
        except OSError as error:
            raise _exec_failure(display_name, name, error) from None
    if not name:
        raise ExecError('exec: "": executable file not found in $PATH', 127)
    denied: OSError | None = None
    for directory in config.environment.get(b"PATH", DEFAULT_PATH).split(b":"):
        path = (directory or b".") + b"/" + name
        try:
            return attempt(path, config)
        except OSError as error:
            if error.errno == errno.EACCES:
                if _is_directory(path):
                    continue
                denied = error
            elif error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise _exec_failure(display_name, path, error) from None
    if denied is not None:
        raise ExecError(f'exec: "{display_name}": permission denied', 126)
    raise ExecError(f'exec: "{display_name}": executable file not found in $PATH', 127)


def _is_directory(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        return False


def _exec_failure(display_name: str, path: bytes, error: OSError) -> ExecError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if os.path.lexists(path):
            return ExecError(
                f'exec: "{display_name}": its interpreter: no such file or directory', 127
            )
        return ExecError(
            f'exec: "{display_name}": stat {display_name}: no such file or directory', 127
        )
    if error.errno == errno.EACCES:
        if _is_directory(path):
            return ExecError(f'exec: "{display_name}": is a directory: permission denied', 126)
        return ExecError(f'exec: "{display_name}": permission denied', 126)
    if error.errno == errno.ENOEXEC:
        return ExecError(f'exec: "{display_name}": exec format error', 126)
    return ExecError(f'exec: "{display_name}": {(error.strerror or "failed").lower()}', 126)
