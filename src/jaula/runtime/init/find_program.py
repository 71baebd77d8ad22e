"""The program of a container's process: find it in ``PATH``, and execute it.

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

from jaula.kernel import capabilities, process_calls
from jaula.runtime.init.process_setup import ExecError, ProcessConfig, set_groups

DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def check_program(config: ProcessConfig) -> None:
    """Check that the program exists and that its user may execute it.

    Used for a process that executes the program later, while it still has every privilege.

    :raises ExecError: when the program cannot be executed.
    """
    _, permitted, inheritable = capabilities.capget()
    groups = os.getgroups()
    set_groups(config.groups)
    process_calls.setfsgid(config.gid)
    process_calls.setfsuid(config.uid)
    capabilities.capset(config.effective & permitted, permitted, inheritable)
    try:
        find(config)
    finally:
        capabilities.capset(permitted, permitted, inheritable)
        process_calls.setfsuid(os.geteuid())
        process_calls.setfsgid(os.getegid())
        capabilities.capset(permitted, permitted, inheritable)
        set_groups(groups)


_MAX_PASSWD = 1 << 20  # bytes of /etc/passwd that are read


def with_home(config: ProcessConfig) -> ProcessConfig:
    """Return the configuration with ``HOME`` from /etc/passwd if it is unset or empty."""
    if config.environment.get(b"HOME"):
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


def execute(config: ProcessConfig, preserve: int, confine: Callable[[], None]) -> NoReturn:
    """Find and execute the program; ``preserve`` descriptors from 3 on stay open.

    ``confine`` installs the filter of the program. Only execve is called after it.

    :raises ExecError: when the program cannot be executed.
    """
    process_calls.reset_signals()
    process_calls.close_on_exec_from(3 + preserve)
    for fd in range(3, 3 + preserve):
        os.set_inheritable(fd, True)
    execve = process_calls.Execve(find(config), config.arguments, config.environment)
    confine()
    try:
        execve()
    except OSError as error:
        raise _exec_failure(os.fsdecode(config.arguments[0]), error, found=True) from None
    raise AssertionError("unreachable")


def find(config: ProcessConfig) -> bytes:
    """Return the path of the program: the first in ``PATH`` that may be executed.

    :raises ExecError: when there is none.
    """
    name = config.arguments[0]
    display_name = os.fsdecode(name)
    if b"/" in name:
        try:
            _probe(name)
        except OSError as error:
            raise _exec_failure(display_name, error) from None
        return name
    if not name:
        raise ExecError('exec: "": executable file not found in $PATH', 127)
    denied = False
    for directory in config.environment.get(b"PATH", DEFAULT_PATH).split(b":"):
        path = (directory or b".") + b"/" + name
        try:
            _probe(path)
        except IsADirectoryError:
            continue
        except OSError as error:
            if error.errno == errno.EACCES:
                denied = True
            elif error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise _exec_failure(display_name, error) from None
        else:
            return path
    if denied:
        raise ExecError(f'exec: "{display_name}": permission denied', 126)
    raise ExecError(f'exec: "{display_name}": executable file not found in $PATH', 127)


def _probe(path: bytes) -> None:
    if stat.S_ISDIR(os.stat(path).st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not os.access(path, os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _exec_failure(display_name: str, error: OSError, *, found: bool = False) -> ExecError:
    """Return the error for a program; ``found`` says that the file exists."""
    prefix = f'exec: "{display_name}":'
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if found:
            return ExecError(f"{prefix} its interpreter: no such file or directory", 127)
        return ExecError(f"{prefix} stat {display_name}: no such file or directory", 127)
    if error.errno == errno.EISDIR:
        return ExecError(f"{prefix} is a directory: permission denied", 126)
    if error.errno == errno.EACCES:
        return ExecError(f"{prefix} permission denied", 126)
    return ExecError(f"{prefix} {os.strerror(error.errno or errno.EACCES).lower()}", 126)
