"""The C library and raw system calls, through ctypes.

Follows syscall(2). ``PyDLL`` is used on purpose: it keeps the interpreter's lock during a call, so
that a call which forks (clone3) leaves the child holding the lock that it needs to go on. The calls
made here are short; nothing that may block for long belongs in this module.

Facts about system call numbers: from 424 on they are the same on every architecture.
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
        """Names of numbers; called with a number it gives that number."""

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
NR_mount_setattr = 442
NR_pivot_root = {"x86_64": 155, "aarch64": 41}.get(MACHINE, 155)


def errno_error(call: str, *about: object) -> OSError:
    """An ``OSError`` for the errno that ctypes saved, naming the call and what it was about."""
    number = ctypes.get_errno()
    subject = " ".join(os.fsdecode(x) if isinstance(x, bytes) else str(x) for x in about)
    return OSError(number, f"{call}: {os.strerror(number)}", subject or None)


def function(name: str, *argtypes: type) -> Callable[..., int]:
    """A libc function that returns -1 on error, as a callable that raises ``OSError``."""
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
    """A raw system call with typed arguments, as a callable that raises ``OSError``."""
    pointer = libc["syscall"]
    pointer.argtypes = (ctypes.c_long, *argtypes)
    pointer.restype = ctypes.c_long

    def call(*args: object) -> int:
        result: int = pointer(number, *args)
        if result == -1:
            raise errno_error(name, *(a for a in args if isinstance(a, bytes)))
        return result

    return call
