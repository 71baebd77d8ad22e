"""Keeping the interpreter that runs us out of a container's reach (statement I2, CVE-2019-5736).

What joins or becomes a container is a process of ours until it executes the program, and a program
``#!/proc/self/exe`` even makes the kernel run our own executable inside. Whoever is root there, and
is the host's root too, could open it through ``/proc/PID/exe`` and change the host's file. So the
commands that put a process into a container execute themselves anew from a clone of the file's
mount that is read-only and attached nowhere: through it nobody can write.

Facts about such a clone: open_tree(2) makes it, mount_setattr(2) shapes it. Once the executable
runs and the descriptor is closed, the clone is in no mount namespace: it cannot be remounted, bound
or found in any list, and it goes with the last process that runs from it.

This is the first thing a command does and costs a second start of the interpreter, so it imports
nothing but the C half of ctypes. That it was done is seen by the mount, not by a word of a caller.
"""

from __future__ import annotations

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

EXECUTABLE = "/proc/self/exe"
COMMANDS = frozenset({"create", "run", "exec"})
"""Those that put a process into a container."""

_LARGEST = 16 << 20  # bytes of a config.json, as in jaula.oci.bundle
_NR_OPEN_TREE, _NR_MOUNT_SETATTR = 428, 442  # the same on every architecture
_OPEN_TREE_CLONE = 1
_O_CLOEXEC = 0o2000000
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_MOUNT_ATTR_RDONLY = 1
_ST_RDONLY = 1


def pin(words: Sequence[str]) -> None:
    """Go on from a read-only clone of the executable, where ``words`` need it and we may make one.

    Does not return where it executes. Without CAP_SYS_ADMIN there is none to make, and no host's
    root in the container either.
    """
    if COMMANDS.isdisjoint(words) or posix.statvfs(EXECUTABLE).f_flag & _ST_RDONLY:
        return
    if not _within_reach(words, posix.stat(EXECUTABLE).st_uid):
        return
    fd = _clone()
    if fd >= 0:
        posix.execve(fd, sys.orig_argv, posix.environ)


def _clone() -> int:
    """The executable on a mount of its own; -1 where we may not make one."""
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
    shaped = call(
        system_call, (_NR_MOUNT_SETATTR, fd, b"", _AT_EMPTY_PATH, attributes, len(attributes))
    )
    if shaped < 0:
        posix.close(fd)
        return -1
    return fd


def _within_reach(words: Sequence[str], owner: int) -> bool:
    """Whether a user of the container may be the host's ``owner`` of the executable.

    Says so whenever it is not plain from the bundle that it is not.
    """
    if "exec" in words:
        return True
    try:
        data = _read(f"{_bundle(words)}/config.json")
        if b'"uidMappings"' not in data:
            return True
        from jaula.spec import fast_json

        return reaches(fast_json.decode(data), owner)
    except (OSError, ValueError, RecursionError):
        return True  # what is wrong with it is told by who reads it for good


def _read(path: str) -> bytes:
    fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | _O_CLOEXEC)
    try:
        return posix.read(fd, min(posix.fstat(fd).st_size, _LARGEST))
    finally:
        posix.close(fd)


def _bundle(words: Sequence[str]) -> str:
    """The bundle that the flags name: the last, as in the parser of commands."""
    bundle = "."
    for word, following in zip(words, (*words[1:], ""), strict=True):
        name, separator, value = word.partition("=")
        if name in ("-b", "--b", "-bundle", "--bundle"):
            bundle = value if separator else following
    return bundle


def reaches(config: Any, owner: int) -> bool:
    """Whether in a container of this ``config.json`` somebody may be the host's user ``owner``.

    Nobody may where it gets a user namespace of its own with mappings that leave ``owner`` out.
    """
    try:
        linux = config["linux"]
        spaces = [entry for entry in linux["namespaces"] if entry["type"] == "user"]
        rows = [(row["hostID"], row["size"]) for row in linux["uidMappings"]]
        if not spaces or not rows or any(entry.get("path") for entry in spaces):
            return True
        return any(first <= owner < first + size for first, size in rows)
    except (KeyError, TypeError, AttributeError):
        return True
