"""The C library, raw system calls and flag families, through ctypes.

Source: syscall(2). The library is loaded as a ``PyDLL``, which keeps the interpreter lock during a
call. A call that forks (clone3) therefore leaves the child with the lock that it needs to continue.
Calls in this package are short: nothing that may block for long belongs here.

Facts about system call numbers: from 424 on they are the same on every architecture.

Facts about flags: to the type checker a family such as ``class MS(IntFlag)`` is an enumeration, so
a flag of another family is an error. At run time its members are plain numbers. No caller prints or
iterates over them, and real enumerations cost 2 ms of a command that lives for 30 ms.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from enum import IntEnum as IntEnum
    from enum import IntFlag as IntFlag
else:

    class IntFlag(int):
        """Namespace of numbers; calling it with a number returns that number."""

        def __new__(cls, value: int = 0) -> int:
            return value

    IntEnum = IntFlag

libc = ctypes.PyDLL(None, use_errno=True)

MACHINE = os.uname().machine

NR_pidfd_send_signal = 424
NR_open_tree = 428
NR_move_mount = 429
NR_fsopen = 430
NR_fsconfig = 431
NR_fsmount = 432
NR_pidfd_open = 434
NR_clone3 = 435
NR_close_range = 436
NR_openat2 = 437
NR_pidfd_getfd = 438
NR_mount_setattr = 442
NR_pivot_root = {"x86_64": 155, "aarch64": 41}.get(MACHINE, 155)


def errno_error(call: str, *arguments: object) -> OSError:
    """Return an ``OSError`` for the errno that ctypes saved, with the call's name and arguments."""
    number = ctypes.get_errno()
    filename = " ".join(os.fsdecode(x) if isinstance(x, bytes) else str(x) for x in arguments)
    return OSError(number, f"{call}: {os.strerror(number)}", filename or None)


def function(name: str, *argtypes: type) -> Callable[..., int]:
    """Return a libc function that reports errors by -1 as a callable that raises ``OSError``."""
    pointer = libc[name]
    pointer.argtypes = argtypes
    pointer.restype = ctypes.c_int

    def call(*args: object) -> int:
        result: int = pointer(*args)
        if result == -1:
            raise errno_error(name, *(a for a in args if isinstance(a, bytes)))
        return result

    return call


def syscall(name: str, number: int, *argtypes: type) -> Callable[..., int]:
    """Return a raw system call with typed arguments as a callable that raises ``OSError``."""
    pointer = libc["syscall"]
    pointer.argtypes = (ctypes.c_long, *argtypes)
    pointer.restype = ctypes.c_long

    def call(*args: object) -> int:
        result: int = pointer(number, *args)
        if result == -1:
            raise errno_error(name, *(a for a in args if isinstance(a, bytes)))
        return result

    return call
