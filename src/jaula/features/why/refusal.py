"""Events of the eBPF programs: refused system calls, signals, ends of processes. Pure.

The layout is that of ``bpf/refusals.bpf.c``. A container chooses names, paths and numbers: anything
can be in them.
"""

from __future__ import annotations

import errno
import signal
import struct
from collections.abc import Callable, Iterable

import msgspec

from jaula.features.record.record_document import text_of
from jaula.kernel.capabilities import NAMES

REFUSAL, SIGNAL, EXIT, OOM = range(4)
_COMPAT, _NO_ENTRY, _NO_NEW_PRIVS, _INSIDE, _RESULT_OK = 1, 2, 4, 8, 16
_X32_BIT = 0x40000000
_LIMITS = 16
_EVENT = struct.Struct(f"=6IQ6QQQ4I{_LIMITS}Q16s16s64sII256s")
_KEY = struct.Struct("=4IQ2Q16s64s")
_KEY_TEXT = 64  # bytes of a path in a key
_VALUE = struct.Struct("=QQ")

RLIMITS = (  # include/uapi/asm-generic/resource.h
    "cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks",
    "sigpending", "msgqueue", "nice", "rtprio", "rttime",
)  # fmt: skip
UNLIMITED = (1 << 64) - 1


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """One system call that failed.

    ``entered``: the kernel ran the call; otherwise a filter refused it before. ``refused``: the
    capabilities that the call lacked, in the user namespace of ``level`` (0 is the host's).
    ``text``: the path, file or address that the call names; an address is a ``struct sockaddr``.
    ``resolved`` is the absolute path of a relative one, if it is known. ``errno`` is empty if the
    call succeeded and a part of it was refused. ``reported`` is the runtime's error of a call that
    was not traced.
    """

    syscall: str
    errno: str = ""
    abi: str = ""
    args: tuple[int, ...] = (0,) * 6
    entered: bool = True
    refused: tuple[str, ...] = ()
    effective: frozenset[str] = frozenset()
    level: int = 0
    own_level: int = 1
    fsuid: int = 0
    no_new_privs: bool = False
    limits: dict[str, int] = {}
    filesystem: str = ""
    device: str = ""
    text: bytes = b""
    resolved: bytes = b""
    name: str = ""
    program: str = ""
    pid: int = 0
    count: int = 1
    reported: str = ""

    @property
    def path(self) -> str:
        """Return the text as a path, with escapes for bytes that are not UTF-8."""
        return text_of(self.resolved or self.text)


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """A fatal signal to a process of the container.

    ``sender``: the name of the process that was running; the kernel's own signals have ``kernel``.
    """

    signal: str
    receiver: str
    program: str
    pid: int
    kernel: bool
    inside: bool
    sender: str
    sender_pid: int
    code: int
    syscall: str = ""  # of SIGSYS


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a process. ``status`` is that of wait(2), ``peak`` in bytes of resident memory."""

    name: str
    program: str
    pid: int
    status: int
    peak: int


class OutOfMemory(msgspec.Struct, frozen=True, kw_only=True):
    """A process that the kernel selected as victim."""

    name: str
    program: str
    pid: int


Event = Refusal | Signal | Exit | OutOfMemory


def decode(data: bytes, syscall_name: Callable[[int, str], str], page: int) -> Event:
    """Return an event of the ring buffer. ``page`` is the size of a page in bytes.

    ``syscall_name`` returns the name of a number and ABI ('', 'i386', 'x32').
    """
    fields = _EVENT.unpack_from(data)
    kind, flags, number, error, pid, other, _ = fields[:7]
    args = fields[7:13]
    refused, effective, level, own_level, fsuid, device = fields[13:19]
    limits = fields[19 : 19 + _LIMITS]
    filesystem, name, program, size, _, text = fields[19 + _LIMITS :]
    names = {"name": _string(name), "program": _string(program), "pid": pid}
    if kind == SIGNAL:
        return Signal(
            signal=_signal(number),
            receiver=_string(text[:16]),
            program=names["program"],
            pid=pid,
            kernel=_signed(error) > 0,
            inside=bool(flags & _INSIDE),
            sender=names["name"],
            sender_pid=other,
            code=_signed(error),
            syscall=_syscall(args[0], flags, syscall_name)[0] if number == signal.SIGSYS else "",
        )
    if kind == EXIT:
        return Exit(status=error, peak=args[0] * page, **names)
    if kind == OOM:
        return OutOfMemory(**names)
    call, abi = _syscall(number, flags, syscall_name)
    return Refusal(
        syscall=call,
        abi=abi,
        errno=errno.errorcode.get(error, str(error)) if error else "",
        args=args,
        entered=not flags & _NO_ENTRY,
        refused=capabilities(refused),
        effective=frozenset(capabilities(effective)),
        level=level,
        own_level=own_level,
        fsuid=fsuid,
        no_new_privs=bool(flags & _NO_NEW_PRIVS),
        limits=dict(zip(RLIMITS, limits, strict=True)),
        filesystem=_string(filesystem),
        device=f"{device >> 20}:{device & 0xFFFFF}" if filesystem.strip(b"\0") else "",
        text=text[: min(size, len(text))],
        **names,
    )


class Counts:
    """How often each refusal occurred: the keys and values of the kernel's table."""

    def __init__(
        self, items: Iterable[tuple[bytes, bytes]], syscall_name: Callable[[int, str], str]
    ) -> None:
        self._counts: dict[tuple[object, ...], int] = {}
        for key, value in items:
            call, error, flags, _, mask, _, _, name, text = _KEY.unpack(key)
            identity = (
                *_syscall(call, flags, syscall_name),
                errno.errorcode.get(error, str(error)) if error else "",
                not flags & _NO_ENTRY,
                capabilities(mask),
                _string(name),
                _head(text),
            )
            count = _VALUE.unpack(value)[0]
            self._counts[identity] = self._counts.get(identity, 0) + count

    def of(self, refusal: Refusal) -> int:
        """Return the number of a refusal; at least 1."""
        identity = (
            refusal.syscall,
            refusal.abi,
            refusal.errno,
            refusal.entered,
            refusal.refused,
            refusal.name,
        )
        head = _head(refusal.text)
        return self._counts.get((*identity, head)) or self._counts.get((*identity, b"")) or 1


def _head(text: bytes) -> bytes:
    return text.partition(b"\0")[0][: _KEY_TEXT - 1]


def capabilities(mask: int) -> tuple[str, ...]:
    """Return the names of a mask."""
    return tuple(
        NAMES[bit] if bit < len(NAMES) else str(bit) for bit in range(64) if mask >> bit & 1
    )


def _syscall(number: int, flags: int, syscall_name: Callable[[int, str], str]) -> tuple[str, str]:
    abi = "i386" if flags & _COMPAT else "x32" if number & _X32_BIT else ""
    return syscall_name(number, abi), abi


def _string(data: bytes) -> str:
    return text_of(data.partition(b"\0")[0])


def _signed(number: int) -> int:
    return number - (1 << 32) if number >= 1 << 31 else number


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
