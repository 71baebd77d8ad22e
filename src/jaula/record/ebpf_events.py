"""Events of the eBPF programs as entries of a record. Pure.

The layouts are those of ``bpf/record.bpf.c``. Keys and texts come from the kernel, but a container
chooses names, addresses and numbers: anything can be in them.
"""

from __future__ import annotations

import errno
import signal
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple

from jaula.kernel.capabilities import NAMES
from jaula.record.document import Entry, Program, text_of

(
    SYSCALL, PROGRAM, EXEC, FILE_OPEN, OPEN_REFUSED, SOCKET, ADDRESS, CAPABILITY, SIGNAL, MOUNT,
) = range(10)  # fmt: skip
TABLES = {
    SYSCALL: "syscalls",
    PROGRAM: "programs",
    EXEC: "execs",
    FILE_OPEN: "files",
    OPEN_REFUSED: "refused_files",
    SOCKET: "sockets",
    ADDRESS: "sockets",
    CAPABILITY: "capabilities",
    SIGNAL: "signals",
    MOUNT: "mounts",
}
LOSSES = {number: TABLES[number] for number in TABLES}
WITH_TEXT = frozenset({PROGRAM, FILE_OPEN, OPEN_REFUSED, ADDRESS, MOUNT})
UNKNOWN_PROGRAM, UNLISTED_PROGRAM = 0, 1

_KEY = struct.Struct("=QQII")
_EVENT = struct.Struct("=QQIIQII")
_VALUE = struct.Struct("=QQQQ")
_LOSS = struct.Struct("=QQQ")
CONFIG = struct.Struct("=QQQII")  # cgroup, two words of the hash key, hierarchy, padding

_PATH_TRUNCATED, _PATH_DETACHED = 64, 128
_MODES = (
    (1, "read"),
    (2, "write"),
    (4, "path"),
    (8, "create"),
    (16, "truncate"),
    (32, "append"),
)
_USES = ("connect", "bind", "send", "connect", "listen")
_FROM_KERNEL = 3  # uses from this one on
_MOUNTS = ("mount", "mount", "unmount")
_REFUSED = 256  # of a capability
_OUTSIDE = 256  # of a signal
_RESTARTS = {  # include/linux/errno.h: the kernel's own, which restart the call
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    515: "ENOIOCTLCMD",
    516: "ERESTART_RESTARTBLOCK",
}
_FAMILIES = {
    number: name
    for name, number in (
        ("unix", 1), ("inet", 2), ("inet6", 10), ("netlink", 16), ("packet", 17), ("alg", 38),
        ("vsock", 40), ("xdp", 44), ("bluetooth", 31), ("can", 29), ("key", 15), ("tipc", 30),
    )
}  # fmt: skip
_TYPES = {1: "stream", 2: "dgram", 3: "raw", 4: "rdm", 5: "seqpacket", 6: "dccp", 10: "packet"}
_PROTOCOLS = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp", 262: "mptcp"}


class Key(NamedTuple):
    """The key of one entry in the kernel's tables."""

    program: int
    subject: int
    kind: int
    detail: int


class Event(NamedTuple):
    """The first occurrence of a key. ``time`` is in nanoseconds since boot."""

    key: Key
    time: int
    text: bytes


class Counts(NamedTuple):
    """The numbers of one entry; times in nanoseconds since boot."""

    occurrences: int
    first: int
    last: int


def decode_key(data: bytes) -> Key:
    """Return a key of a table."""
    return Key(*_KEY.unpack(data))


def decode_event(data: bytes) -> Event:
    """Return an event of the ring buffer."""
    program, subject, kind, detail, time, size, _ = _EVENT.unpack_from(data)
    return Event(Key(program, subject, kind, detail), time, data[_EVENT.size : _EVENT.size + size])


def decode_counts(data: bytes) -> Counts:
    """Return a value of a table."""
    return Counts(*_VALUE.unpack(data)[:3])


def decode_losses(data: bytes) -> tuple[int, int, int]:
    """Return occurrences, events and texts that were lost."""
    occurrences, events, texts = _LOSS.unpack(data)
    return occurrences, events, texts


def program(key: Key, text: bytes) -> Program:
    """Return the program of a PROGRAM event: the name in execve(2), then the path."""
    name, _, components = text.partition(b"\0")
    path = path_of(components)
    return Program(
        path=text_of(path),
        name=text_of(name) if name and name != path else "",
        truncated=bool(key.detail & _PATH_TRUNCATED),
        detached=bool(key.detail & _PATH_DETACHED),
    )


def path_of(components: bytes) -> bytes:
    """Return the path of components that end in a zero byte each, the last one first."""
    return b"/" + b"/".join(reversed(components.split(b"\0")[:-1]))


def entry(
    key: Key,
    text: bytes | None,
    *,
    syscall_name: Callable[[int, str], str],
    line_of: Callable[[int], int],
) -> Entry:
    """Return the entry of a key, without its numbers. ``text`` is None if it was lost.

    ``syscall_name`` returns the name of a number and ABI ('', 'i386', 'x32'), and ``line_of`` the
    line of a program.
    """
    fields: dict[str, Any] = {"program": line_of(key.program)}
    detail = key.detail
    if text is None and key.kind in WITH_TEXT:
        fields["lost_text"] = True
    if key.kind == SYSCALL:
        fields |= {"kind": "syscall", "errno": errno_name(detail)}
        fields |= _syscall(key.subject, syscall_name)
    elif key.kind == EXEC:
        fields |= {"kind": "exec", "executed": line_of(key.subject)}
    elif key.kind == FILE_OPEN:
        fields |= {
            "kind": "file",
            "path": text_of(path_of(text)) if text is not None else "",
            "mode": ",".join(name for bit, name in _MODES if detail & bit),
            "truncated": bool(detail & _PATH_TRUNCATED),
            "detached": bool(detail & _PATH_DETACHED),
        }
    elif key.kind == OPEN_REFUSED:
        fields |= {"kind": "file-refused", "path": text_of(text or b""), "source": "process"}
        fields["errno"] = errno_name(detail)
    elif key.kind == SOCKET:
        fields |= {
            "kind": "socket",
            "family": _named(_FAMILIES, key.subject >> 40),
            "socket_type": _named(_TYPES, key.subject >> 32 & 0xFF),
            "protocol": _named(_PROTOCOLS, key.subject & 0xFFFFFFFF, zero=""),
            "errno": errno_name(detail),
        }
    elif key.kind == ADDRESS:
        use = detail >> 12 & 15
        fields |= {
            "kind": _USES[use],
            "source": "kernel" if use >= _FROM_KERNEL else "process",
            "protocol": _named(_PROTOCOLS, detail >> 16, zero=""),
            "errno": errno_name(detail & 0xFFF),
        }
        fields |= socket_address(text) if text is not None else {}
    elif key.kind == CAPABILITY:
        level = detail >> 16 & 0xFF
        fields |= {
            "kind": "capability-refused" if detail & _REFUSED else "capability",
            "capability": _capability(detail & 0xFF),
            "namespace": "host" if level == 0 else "container",
        }
        fields |= _syscall(key.subject, syscall_name)
    elif key.kind == MOUNT:
        target, filesystem, device = (*(text or b"").split(b"\0"), b"", b"")[:3]
        fields |= {
            "kind": _MOUNTS[detail >> 12 & 15],
            "path": text_of(target),
            "filesystem": text_of(filesystem),
            "device": text_of(device),
            "errno": errno_name(detail & 0xFFF),
            "source": "process",
        }
    else:
        fields |= {
            "kind": "signal",
            "signal": _signal(detail & 0xFF),
            "receiver": "outside" if detail & _OUTSIDE else "container",
            "receiver_program": line_of(key.subject),
        }
    return Entry(**fields)


def socket_address(data: bytes) -> dict[str, Any]:
    """Return family, address and port of a struct sockaddr."""
    if len(data) < 2:
        return {"address": data.hex()}
    family = int.from_bytes(data[:2], "little")
    fields: dict[str, Any] = {"family": _named(_FAMILIES, family)}
    if family == socket.AF_INET and len(data) >= 8:
        fields |= {"port": int.from_bytes(data[2:4], "big"), "address": str(IPv4Address(data[4:8]))}
    elif family == socket.AF_INET6 and len(data) >= 24:
        fields["port"] = int.from_bytes(data[2:4], "big")
        fields["address"] = str(IPv6Address(data[8:24]))
    elif family == socket.AF_UNIX:
        name = data[2:]
        if name[:1] == b"\0":  # abstract: every byte counts
            fields["address"] = "@" + text_of(name[1:])
        else:
            fields["address"] = text_of(name.partition(b"\0")[0])
    else:
        fields["address"] = data[2:].hex()
    return fields


def errno_name(number: int) -> str:
    """Return the name of an error, '' for 0."""
    if not number:
        return ""
    return _RESTARTS.get(number) or errno.errorcode.get(number) or str(number)


def _syscall(subject: int, syscall_name: Callable[[int, str], str]) -> dict[str, str]:
    number = subject & 0xFFFFFFFF
    abi = "i386" if subject >> 32 else ""
    if number == 0xFFFFFFFF:
        return {"syscall": "rt_sigreturn", "abi": abi}
    if not abi and number & 0x40000000:
        abi = "x32"
    return {"syscall": syscall_name(number, abi), "abi": abi}


def _named(names: dict[int, str], number: int, *, zero: str = "0") -> str:
    return names.get(number) or (str(number) if number else zero)


def _capability(number: int) -> str:
    return NAMES[number] if number < len(NAMES) else str(number)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
