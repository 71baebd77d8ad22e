"""Protect the interpreter's file from containers (statement I2, CVE-2019-5736).

A process that joins or creates a container runs our executable until it executes the program, and a
program ``#!/proc/self/exe`` even makes the kernel run our executable inside. A user who is root
there and on the host could open it through ``/proc/PID/exe`` and overwrite the host's file. So the
commands that put a process into a container execute themselves again (runc:
``ensure_cloned_binary``). They run from a read-only clone of the file's mount that is attached
nowhere: no process can write through it.

Facts about such a clone: open_tree(2) creates it, mount_setattr(2) makes it read-only. Once the
executable runs and the descriptor is closed, the clone is in no mount namespace. It cannot be
remounted, bound or listed, and it goes away with the last process that runs from it.

This is the first step of a command and costs a second start of the interpreter, so it imports only
the C half of ctypes. Whether it was done is read from the mount, not from an argument or variable.
"""

from __future__ import annotations

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

EXECUTABLE = "/proc/self/exe"
_MAX_CONFIG = 16 << 20  # bytes of a config.json, as in jaula.oci.bundle_documents
_NR_OPEN_TREE, _NR_MOUNT_SETATTR = 428, 442  # the same on every architecture
_OPEN_TREE_CLONE = 1
_O_CLOEXEC = 0o2000000
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_MOUNT_ATTR_RDONLY = 1
_ST_RDONLY = 1


def ensure(argv: Sequence[str]) -> None:
    """Execute again from a read-only clone of the executable, if its container requires it.

    Does not return when it executes. Without CAP_SYS_ADMIN there is no clone to create, and no host
    root in the container either.
    """
    if posix.statvfs(EXECUTABLE).f_flag & _ST_RDONLY:
        return
    if not _needs_clone(argv, posix.stat(EXECUTABLE).st_uid):
        return
    fd = _clone()
    if fd >= 0:
        posix.execve(fd, sys.orig_argv, posix.environ)


def _clone() -> int:
    """Return the executable on a mount of its own; -1 without the privileges."""
    import _ctypes

    library = _ctypes.dlopen(None, 0)  # type: ignore[arg-type] # dlopen(3): the whole program
    system_call = _ctypes.dlsym(library, "syscall")
    call = _ctypes.call_cdeclfunction
    flags = _OPEN_TREE_CLONE | _O_CLOEXEC
    fd: int = call(system_call, (_NR_OPEN_TREE, _AT_FDCWD, EXECUTABLE.encode(), flags))
    if fd < 0:
        return -1
    attributes = b"".join(
        number.to_bytes(8, sys.byteorder) for number in (_MOUNT_ATTR_RDONLY, 0, 0, 0)
    )
    result = call(
        system_call, (_NR_MOUNT_SETATTR, fd, b"", _AT_EMPTY_PATH, attributes, len(attributes))
    )
    if result < 0:
        posix.close(fd)
        return -1
    return fd


def _needs_clone(argv: Sequence[str], owner: int) -> bool:
    """Return whether a user of the container may be the host's ``owner`` of the executable.

    The answer is yes unless the bundle plainly shows the opposite.
    """
    if "exec" in argv:
        return True
    try:
        data = _read(f"{_bundle(argv)}/config.json")
        if b'"uidMappings"' not in data:
            return True
        from jaula.spec import fast_json

        return maps_host_id(fast_json.decode(data), owner)
    except (OSError, ValueError, RecursionError):
        return True  # the command itself reports what is wrong with the file


def _read(path: str) -> bytes:
    fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | _O_CLOEXEC)
    try:
        return posix.read(fd, min(posix.fstat(fd).st_size, _MAX_CONFIG))
    finally:
        posix.close(fd)


def _bundle(argv: Sequence[str]) -> str:
    """Return the bundle of the flags: the last one, as in the parser of the commands."""
    bundle = "."
    for argument, next_argument in zip(argv, (*argv[1:], ""), strict=True):
        name, separator, value = argument.partition("=")
        if name in ("-b", "--b", "-bundle", "--bundle"):
            bundle = value if separator else next_argument
    return bundle


def maps_host_id(config: Any, owner: int) -> bool:
    """Return whether a container of this ``config.json`` may map the host's user ``owner``.

    It may not if it has a new user namespace with mappings that leave ``owner`` out.
    """
    try:
        linux = config["linux"]
        user_namespaces = [entry for entry in linux["namespaces"] if entry["type"] == "user"]
        rows = [(row["hostID"], row["size"]) for row in linux["uidMappings"]]
        if not user_namespaces or not rows or any(entry.get("path") for entry in user_namespaces):
            return True
        return any(first <= owner < first + size for first, size in rows)
    except (KeyError, TypeError, AttributeError):
        return True
