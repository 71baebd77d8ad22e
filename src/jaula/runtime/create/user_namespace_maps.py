"""Id maps of a container's user namespace: read them, and create the namespace.

Follows user_namespaces(7), newuidmap(1), runtime-spec config-linux.md "User namespace mappings".

Facts: a process with CAP_SETUID over the parent namespace may write any map. An unprivileged user
may map only the own id, after giving up setgroups(2). The set-uid programs newuidmap and newgidmap
write ranges from /etc/subuid and /etc/subgid.
"""

from __future__ import annotations

import os
import signal

from jaula.errors import RuntimeFailure
from jaula.kernel import namespaces, process_calls
from jaula.kernel.namespaces import CLONE
from jaula.kernel.poll import readable
from jaula.spec.runtime_spec import IDMapping, Linux

Rows = list[tuple[int, int, int]]
_PROGRAM_TIMEOUT = 20.0  # seconds for newuidmap


def host_id(mappings: tuple[IDMapping, ...], container_id: int) -> int:
    """Return the host id of an id inside; without mappings the id itself.

    :raises RuntimeFailure: when the id is not mapped.
    """
    if not mappings:
        return container_id
    for row in mappings:
        if row.container_id <= container_id < row.container_id + row.size:
            return row.host_id + container_id - row.container_id
    raise RuntimeFailure(
        f"id {container_id} is not in the container's user namespace", hint="use a lower id"
    )


def rows(mappings: tuple[IDMapping, ...]) -> Rows:
    """Return mappings as rows of uid_map: (first inside, first outside, length)."""
    return [(row.container_id, row.host_id, row.size) for row in mappings]


def make(linux: Linux, *, unprivileged: bool = False) -> int:
    """Create a user namespace with the spec's mappings; return its descriptor.

    :raises OSError: when the kernel refuses.
    """
    uids, gids = rows(linux.uid_mappings), rows(linux.gid_mappings)
    if not unprivileged:
        return namespaces.create_namespaces(CLONE(0), uids, gids)["user"]
    return namespaces.create_namespaces(CLONE(0), uids, gids, write=write_unprivileged)["user"]


def write_unprivileged(pid: int, uids: Rows, gids: Rows) -> None:
    """Write id maps without privileges: the own id directly, ranges by the set-uid programs."""
    for program, name, id_map, own_id in (
        ("newuidmap", "uid_map", uids, os.geteuid()),
        ("newgidmap", "gid_map", gids, os.getegid()),
    ):
        if len(id_map) == 1 and id_map[0][1:] == (own_id, 1):
            if name == "gid_map":
                _write(f"/proc/{pid}/setgroups", b"deny")
            _write(f"/proc/{pid}/{name}", namespaces.map_text(id_map))
        else:
            _run_newidmap(program, pid, id_map)


def _write(path: str, text: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)


def _run_newidmap(program: str, pid: int, id_map: Rows) -> None:
    """Run newuidmap or newgidmap.

    :raises RuntimeFailure: with the program's message.
    """
    arguments = [program, str(pid), *(str(number) for row in id_map for number in row)]
    stderr_read, stderr_write = os.pipe2(os.O_CLOEXEC)
    try:
        child = os.posix_spawnp(
            program,
            arguments,
            os.environ,
            file_actions=((os.POSIX_SPAWN_DUP2, stderr_write, 2),),
        )
    except FileNotFoundError:
        os.close(stderr_read)
        raise RuntimeFailure(
            f"{program} is not installed, and a range of ids cannot be mapped without it",
            hint="install uidmap (Debian), shadow-utils (Fedora)",
        ) from None
    finally:
        os.close(stderr_write)
    try:
        code = _wait(program, child)
        os.set_blocking(stderr_read, False)
        try:
            message = os.read(stderr_read, 4096)
        except BlockingIOError:  # a process that it has left holds the pipe
            message = b""
    finally:
        os.close(stderr_read)
    if code:
        raise RuntimeFailure(
            f"{program} refused the id mappings: {message.decode(errors='replace').strip()}",
            hint="the ranges must be the caller's in /etc/subuid and /etc/subgid",
        )


def _wait(program: str, child: int) -> int:
    """Return the exit status of a program; kill one that does not end, since it may be stopped.

    :raises RuntimeFailure: then.
    """
    pidfd = process_calls.pidfd_open(child)
    try:
        ended = bool(readable(_PROGRAM_TIMEOUT, pidfd))
        if not ended:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(pidfd)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not ended:
        raise RuntimeFailure(f"{program} has not ended in {_PROGRAM_TIMEOUT:.0f} seconds")
    return code


def read(user_fd: int) -> tuple[tuple[IDMapping, ...], tuple[IDMapping, ...]]:
    """Return the uid and gid mappings of a user namespace, as seen from the caller's.

    :raises OSError: when the namespace cannot be joined.
    """
    pid, pidfd = namespaces.clone3(CLONE(0))
    if pid == 0:
        try:
            process_calls.prctl(process_calls.PR_SET_PDEATHSIG, signal.SIGKILL)
            namespaces.setns(user_fd, CLONE.NEWUSER)
            os.kill(os.getpid(), signal.SIGSTOP)
        finally:
            os._exit(1)
    try:
        os.waitpid(pid, os.WUNTRACED)
        return _read_map(f"/proc/{pid}/uid_map"), _read_map(f"/proc/{pid}/gid_map")
    finally:
        process_calls.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        os.waitpid(pid, 0)


def _read_map(path: str) -> tuple[IDMapping, ...]:
    with open(path, "rb") as file:
        lines = (line.split() for line in file.read().splitlines())
        return tuple(IDMapping(int(a), int(b), int(n)) for a, b, n in lines)
