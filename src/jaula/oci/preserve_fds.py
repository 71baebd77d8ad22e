"""Descriptors that a caller wants its program to inherit: ``--preserve-fds N``, from 3 on.

Only what the caller itself left open may get in: a number that it did not open may by now be one of
our own descriptors, of a state directory or of a host's cgroup. Ours are all closed on exec; what
was inherited cannot be, or it would not be here (execve(2)).
"""

from __future__ import annotations

import fcntl

from jaula.errors import InvalidRequest
from jaula.oci.args import Options

FIRST = 3


def count(options: Options) -> int:
    """How many there are. Raises ``InvalidRequest`` where one is not the caller's."""
    wanted = options.number("preserve-fds")
    if wanted < 0:
        raise InvalidRequest(f"--preserve-fds: {wanted} is less than 0")
    for fd in range(FIRST, FIRST + wanted):
        try:
            flags = fcntl.fcntl(fd, fcntl.F_GETFD)
        except OSError:
            flags = fcntl.FD_CLOEXEC
        if flags & fcntl.FD_CLOEXEC:
            raise InvalidRequest(
                f"--preserve-fds {wanted}: descriptor {fd} is not open",
                hint="only descriptors that the caller has opened can be handed on",
            )
    return wanted
