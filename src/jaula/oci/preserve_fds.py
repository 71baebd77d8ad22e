"""Descriptors that a program inherits from the caller, from 3 on.

A service manager passes sockets by ``LISTEN_FDS`` to the process ``LISTEN_PID``, sd_listen_fds(3).
As runc, the runtime passes them on to a container's first process. Those of ``--preserve-fds`` come
after them.

Only descriptors that the caller left open may be inherited. Another number may by now be one of our
own descriptors, of a state directory or of a host cgroup. All of ours are close-on-exec; inherited
ones cannot be, or they would not exist here (execve(2)).
"""

from __future__ import annotations

import fcntl

from jaula.errors import InvalidRequest
from jaula.oci.args import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_FD = 3
_MAX_DIGITS = 6  # of LISTEN_FDS


def listen_variables(environment: Mapping[str, str], pid: int) -> dict[str, str]:
    """Return the variables for a container's first process; empty if no socket is passed.

    ``environment`` is the caller's; ``pid`` is that of this process.

    :raises InvalidRequest: when ``LISTEN_FDS`` is not a number.
    """
    number = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(pid) or not number:
        return {}
    if not (number.isascii() and number.isdigit() and len(number) <= _MAX_DIGITS):
        raise InvalidRequest(f"LISTEN_FDS: {number[:64]!r} is not a number of descriptors")
    if not int(number):
        return {}
    variables = {"LISTEN_FDS": str(int(number)), "LISTEN_PID": "1"}
    if names := environment.get("LISTEN_FDNAMES"):
        variables["LISTEN_FDNAMES"] = names
    return variables


def count(options: Options, listening: int = 0) -> int:
    """Return the number of descriptors; ``listening`` are those of ``LISTEN_FDS``.

    :raises InvalidRequest: when one of them is not the caller's.
    """
    number = options.number("preserve-fds")
    if number < 0:
        raise InvalidRequest(f"--preserve-fds: {number} is less than 0")
    for fd in range(FIRST_FD, FIRST_FD + listening + number):
        try:
            flags = fcntl.fcntl(fd, fcntl.F_GETFD)
        except OSError:
            flags = fcntl.FD_CLOEXEC
        if flags & fcntl.FD_CLOEXEC:
            origin = "LISTEN_FDS" if fd < FIRST_FD + listening else f"--preserve-fds {number}"
            raise InvalidRequest(
                f"{origin}: descriptor {fd} is not open",
                hint="only descriptors that the caller has opened can be passed on",
            )
    return listening + number
