"""Id mappings of a container's user namespace: reading them, and making the namespace.

Follows user_namespaces(7), newuidmap(1), runtime-spec config-linux.md "User namespace mappings".

Facts: whoever holds CAP_SETUID over the parent namespace writes any map. An ordinary user writes
only the map of the one own id, after giving up setgroups(2); ranges from /etc/subuid and
/etc/subgid are written by the set-uid programs newuidmap and newgidmap.
"""

from __future__ import annotations

import os
import signal

from jaula.errors import RuntimeFailure
from jaula.kernel import namespaces, process
from jaula.kernel.namespaces import CLONE
from jaula.spec.runtime import IDMapping, Linux

Rows = list[tuple[int, int, int]]


def host_id(mappings: tuple[IDMapping, ...], inside: int) -> int:
    """The host's id of one inside; the id itself without mappings. Raises ``RuntimeFailure``."""
    if not mappings:
        return inside
    for row in mappings:
        if row.container_id <= inside < row.container_id + row.size:
            return row.host_id + inside - row.container_id
    raise RuntimeFailure(
        f"id {inside} is not in the container's user namespace", hint="use a lower id"
    )


def rows(mappings: tuple[IDMapping, ...]) -> Rows:
    """Mappings as the kernel writes them."""
    return [(row.container_id, row.host_id, row.size) for row in mappings]


def make(linux: Linux, *, unprivileged: bool = False) -> int:
    """A user namespace with the spec's mappings, as a descriptor. Raises ``OSError``."""
    uids, gids = rows(linux.uid_mappings), rows(linux.gid_mappings)
    if not unprivileged:
        return namespaces.create_namespaces(CLONE(0), uids, gids)["user"]
    return namespaces.create_namespaces(CLONE(0), uids, gids, write=write_unprivileged)["user"]


def write_unprivileged(pid: int, uids: Rows, gids: Rows) -> None:
    """The single own id directly, ranges by the set-uid programs."""
    for program, name, table, own in (
        ("newuidmap", "uid_map", uids, os.geteuid()),
        ("newgidmap", "gid_map", gids, os.getegid()),
    ):
        if len(table) == 1 and table[0][1:] == (own, 1):
            if name == "gid_map":
                _write(f"/proc/{pid}/setgroups", b"deny")
            _write(f"/proc/{pid}/{name}", namespaces.map_text(table))
        else:
            _call(program, pid, table)


def _write(path: str, text: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)


def _call(program: str, pid: int, table: Rows) -> None:
    """Run newuidmap or newgidmap. Raises ``RuntimeFailure`` with what it says."""
    arguments = [program, str(pid), *(str(number) for row in table for number in row)]
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        child = os.posix_spawnp(
            program,
            arguments,
            os.environ,
            file_actions=((os.POSIX_SPAWN_DUP2, writing, 2),),
        )
    except FileNotFoundError:
        os.close(reading)
        raise RuntimeFailure(
            f"{program} is not installed, and a range of ids cannot be mapped without it",
            hint="install uidmap (Debian), shadow-utils (Fedora)",
        ) from None
    finally:
        os.close(writing)
    try:
        said = os.read(reading, 4096)
    finally:
        os.close(reading)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise RuntimeFailure(
            f"{program} refused the id mappings: {said.decode(errors='replace').strip()}",
            hint="the ranges must be the caller's in /etc/subuid and /etc/subgid",
        )


def read(user_fd: int) -> tuple[tuple[IDMapping, ...], tuple[IDMapping, ...]]:
    """The uid and gid mappings of a user namespace, as seen from the caller's. Raises OSError."""
    pid, pidfd = namespaces.clone3(CLONE(0))
    if pid == 0:
        try:
            process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
            namespaces.setns(user_fd, CLONE.NEWUSER)
            os.kill(os.getpid(), signal.SIGSTOP)
        finally:
            os._exit(1)
    try:
        os.waitpid(pid, os.WUNTRACED)
        return _read_map(f"/proc/{pid}/uid_map"), _read_map(f"/proc/{pid}/gid_map")
    finally:
        process.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        os.waitpid(pid, 0)


def _read_map(path: str) -> tuple[IDMapping, ...]:
    with open(path, "rb") as file:
        lines = (line.split() for line in file.read().splitlines())
        return tuple(IDMapping(int(a), int(b), int(n)) for a, b, n in lines)
