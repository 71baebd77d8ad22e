"""``--preserve-fds N``: descriptors that a program inherits from the caller, from 3 on.

Only descriptors that the caller left open may be inherited. Another number may by now be one of our
own descriptors, of a state directory or of a host cgroup. All of ours are close-on-exec; inherited
ones cannot be, or they would not exist here (execve(2)).
"""

from __future__ import annotations

import fcntl

from jaula.errors import InvalidRequest
from jaula.oci.args import Options

FIRST_FD = 3


def count(options: Options) -> int:
    """Return the number of descriptors.

    :raises InvalidRequest: when one of them is not the caller's.
    """
    number = options.number("preserve-fds")
    if number < 0:
        raise InvalidRequest(f"--preserve-fds: {number} is less than 0")
    for fd in range(FIRST_FD, FIRST_FD + number):
        try:
            flags = fcntl.fcntl(fd, fcntl.F_GETFD)
        except OSError:
            flags = fcntl.FD_CLOEXEC
        if flags & fcntl.FD_CLOEXEC:
            raise InvalidRequest(
                f"--preserve-fds {number}: descriptor {fd} is not open",
                hint="only descriptors that the caller has opened can be passed on",
            )
    return number
