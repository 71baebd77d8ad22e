"""Events of the eBPF programs as entries of a record. Pure.

The layouts are those of ``bpf/record.bpf.c``. Keys and texts come from the kernel, but a container
chooses names, addresses and numbers: anything can be in them.
"""

from __future__ import annotations

import errno
import mmap
import posixpath
import signal
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple

from jaula.features.record.record_document import Entry, Program, text_of
from jaula.features.record.resource import Peak
from jaula.kernel.capabilities import NAMES

(
    SYSCALL, PROGRAM, EXEC, FILE_OPEN, OPEN_REFUSED, SOCKET, ADDRESS, CAPABILITY, SIGNAL, MOUNT,
    ACCEPT, DNS, DEVICE, RING, RING_OPEN, CHANGE,
) = range(16)  # fmt: skip
# Of mechanisms that run beside the container: a requested file, and a capability that is held.
FILE_REQUEST, CAPABILITY_HELD = 64, 65
UNKNOWN_ERRNO = 4095  # the result of a system call is not known
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
    ACCEPT: "accepts",
    DNS: "names",
    DEVICE: "devices",
    RING: "rings",
    RING_OPEN: "rings",
    CHANGE: "changes",
    FILE_REQUEST: "files",
    CAPABILITY_HELD: "capabilities",
}
LOSSES = {number: TABLES[number] for number in TABLES}
WITH_TEXT = frozenset(
    {PROGRAM, FILE_OPEN, FILE_REQUEST, OPEN_REFUSED, ADDRESS, MOUNT, ACCEPT, DNS, RING_OPEN,
     CHANGE}
)  # fmt: skip
UNKNOWN_PROGRAM, UNLISTED_PROGRAM = 0, 1

_KEY = struct.Struct("=QQII")
_EVENT = struct.Struct("=QQIIQII")
_VALUE = struct.Struct("=QQQQ")
_LOSS = struct.Struct("=QQQ")
_STARTED = struct.Struct("=QQ")
_PEAKS = struct.Struct("=QQQQ")
_PAGES_WITHOUT_LIMIT = (1 << 63) // mmap.PAGESIZE - 1  # PAGE_COUNTER_MAX
_PIDS_WITHOUT_LIMIT = 4 << 20  # a pids.max of "max" is above PID_MAX_LIMIT
# cgroup, two words of the hash key, hierarchy, whether sock_send_length is attached, nanoseconds of
# a tick, container
CONFIG = struct.Struct("=QQQIIQ64s")

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
_LAYER, _LAYER_CAPABILITY, _SECCOMP, _CAPABILITY = 12, 16, 1, 2
_DNS_MALFORMED, _DNS_TCP = 1, 2
_QUERY_TYPES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV",
    35: "NAPTR", 43: "DS", 48: "DNSKEY", 64: "SVCB", 65: "HTTPS", 255: "ANY", 257: "CAA",
}  # fmt: skip
_OPERATIONS = (  # enum io_uring_op, include/uapi/linux/io_uring.h
    "nop", "readv", "writev", "fsync", "read_fixed", "write_fixed", "poll_add", "poll_remove",
    "sync_file_range", "sendmsg", "recvmsg", "timeout", "timeout_remove", "accept",
    "async_cancel", "link_timeout", "connect", "fallocate", "openat", "close", "files_update",
    "statx", "read", "write", "fadvise", "madvise", "send", "recv", "openat2", "epoll_ctl",
    "splice", "provide_buffers", "remove_buffers", "tee", "shutdown", "renameat", "unlinkat",
    "mkdirat", "symlinkat", "linkat", "msg_ring", "fsetxattr", "setxattr", "fgetxattr",
    "getxattr", "socket", "uring_cmd", "send_zc", "sendmsg_zc", "read_multishot", "waitid",
    "futex_wait", "futex_wake", "futex_waitv", "fixed_fd_install", "ftruncate", "bind", "listen",
    "recv_zc", "epoll_wait", "readv_fixed", "writev_fixed", "pipe",
)  # fmt: skip
_UNMAPPED_CALLS = frozenset(  # EINVAL: an id that the user namespace does not map
    [
        "chown",
        "fchown",
        "fchownat",
        "lchown",
        "setfsgid",
        "setfsuid",
        "setgid",
        "setgroups",
        "setregid",
        "setresgid",
        "setresuid",
        "setreuid",
        "setuid",
    ]
)
_FORKS = frozenset({"clone", "clone3", "fork", "vfork"})
_RESTARTS = {  # include/linux/errno.h: the kernel's own, which restart the call
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    515: "ENOIOCTLCMD",
    516: "ERESTART_RESTARTBLOCK",
    UNKNOWN_ERRNO: "unknown",
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


def decode_started(data: bytes) -> int:
    """Return the pid of the first process of a container, 0 if it is not started."""
    _, process = _STARTED.unpack(data)
    return int(process)


def decode_peaks(data: bytes) -> dict[str, Peak]:
    """Return the peaks of a cgroup that was removed, by resource. Empty: it was not."""
    memory, memory_limit, pids, pids_limit = _PEAKS.unpack(data)
    result = {}
    if memory:
        limit = memory_limit * mmap.PAGESIZE if memory_limit < _PAGES_WITHOUT_LIMIT else None
        result["memory"] = Peak(memory * mmap.PAGESIZE, limit)
    if pids:
        result["pids"] = Peak(pids, pids_limit if pids_limit <= _PIDS_WITHOUT_LIMIT else None)
    return result


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
        fields |= {"kind": "syscall"} | _syscall(key.subject, syscall_name)
        fields |= refusal(detail, fields["syscall"])
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
        fields |= refusal(detail, "open")
    elif key.kind == CHANGE:
        fields |= {
            "kind": "change",
            "path": text_of(changed_path(text)) if text is not None else "",
            "source": "process",
            "truncated": bool(detail & _PATH_TRUNCATED),
            "detached": bool(detail & _PATH_DETACHED),
        }
        fields |= _syscall(detail >> 8, syscall_name)
    elif key.kind == FILE_REQUEST:
        fields |= {
            "kind": "file",
            "path": text_of(text or b""),
            "mode": ",".join(name for bit, name in _MODES if detail & bit),
            "errno": errno_name(UNKNOWN_ERRNO),
            "source": "process",
        }
    elif key.kind == CAPABILITY_HELD:
        fields |= {"kind": "capability-held", "capability": _capability(detail), "source": "proc"}
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
    elif key.kind == ACCEPT:
        fields |= {
            "kind": "accept",
            "source": "kernel",
            "protocol": _named(_PROTOCOLS, detail, zero=""),
        }
        fields |= socket_address(text) if text is not None else {}
    elif key.kind == DNS:
        fields |= {
            "kind": "dns",
            "source": "process",
            "protocol": "tcp" if detail & _DNS_TCP else "udp",
        }
        if detail & _DNS_MALFORMED:
            fields |= {"lost_text": False, "malformed": True}
        elif text is not None:
            fields |= question(text)
    elif key.kind == DEVICE:
        number = key.subject & 0xFFFFFFFF
        fields |= {
            "kind": "device",
            "device": f"{'b' if key.subject >> 32 else 'c'} {number >> 20}:{number & 0xFFFFF}",
            "mode": ",".join(name for bit, name in _MODES if detail & 7 & bit),
            "source": "kernel",
        }
    elif key.kind in (RING, RING_OPEN):
        fields |= {
            "kind": "io-uring",
            "operation": _OPERATIONS[detail] if detail < len(_OPERATIONS) else str(detail),
            "path": text_of(text or b""),
            "source": "kernel",
        }
    else:
        fields |= {
            "kind": "signal",
            "signal": _signal(detail & 0xFF),
            "receiver": "outside" if detail & _OUTSIDE else "container",
            "receiver_program": line_of(key.subject),
        }
    return Entry(**fields)


def changed_path(data: bytes) -> bytes:
    """Return the absolute path of a name and, if it is relative, the components of its directory.

    ``.`` and ``..`` are removed without regard to symbolic links.
    """
    name, _, components = data.partition(b"\0")
    if not name.startswith(b"/"):
        name = path_of(components) + b"/" + name
    return b"/" + posixpath.normpath(name).lstrip(b"/")


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


def question(data: bytes) -> dict[str, Any]:
    """Return name and type of the question of a DNS query.

    A dot inside a label is ``\\x2e``, so no two questions have one name.
    """
    labels, position = [], 0
    while position < len(data) and (size := data[position]):
        labels.append(text_of(data[position + 1 : position + 1 + size]).replace(".", "\\x2e"))
        position += 1 + size
    kind = int.from_bytes(data[position + 1 : position + 3], "big")
    return {
        "name": ".".join(labels) or ".",
        "query_type": _QUERY_TYPES.get(kind, f"TYPE{kind}"),
    }


def refusal(detail: int, call: str) -> dict[str, str]:
    """Return error, layer and capability of a system call that the kernel refused.

    The layer is empty if nothing tells it: the permissions of a file without a check of a
    capability, Landlock, AppArmor, SELinux, the device cgroup and flags of a mount look alike.
    """
    number, layer = detail & 0xFFF, detail >> _LAYER & 15
    if layer == _SECCOMP:
        return {"errno": errno_name(number) or "SIGSYS", "layer": "seccomp"}
    if layer == _CAPABILITY:
        capability = _capability((detail >> _LAYER_CAPABILITY & 0xFF) - 1)
        return {"errno": errno_name(number), "layer": "capability", "capability": capability}
    name = errno_name(number)
    fields = {"errno": name}
    if name == "EROFS":
        fields["layer"] = "read-only"
    elif name == "EOVERFLOW" or (name == "EINVAL" and call in _UNMAPPED_CALLS):
        fields["layer"] = "unmapped-id"
    elif name == "EAGAIN" and call in _FORKS:
        fields["layer"] = "process-limit"
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
    return NAMES[number] if 0 <= number < len(NAMES) else str(number)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
