"""The rules and records of the kernel's audit subsystem: auditctl(8), netlink(7).

Source of the numbers and the structures: include/uapi/linux/audit.h.

Facts about listing: a thread of the kernel sends the rules after the acknowledgement, and the list
ends with NLMSG_DONE. Reading needs CAP_AUDIT_CONTROL in the initial user namespace; the kernel
answers ECONNREFUSED in another one. A rule for a file (``path``) has the type AUDIT_WATCH and one
for a directory with everything below it (``dir``) AUDIT_DIR. The strings of all fields follow the
arrays, in the order of the fields; the value of such a field is the length of its string.

Facts about records: the kernel multicasts each record to AUDIT_NLGRP_READLOG, beside the one daemon
that it sends to. A reader needs CAP_AUDIT_READ in the initial user namespace, and the initial
network namespace. Denials of AppArmor and SELinux and calls that seccomp logs are records even if
audit is off; denials of Landlock are not. The kernel drops a record if the reader's buffer is full,
and all further ones until the buffer is empty.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Collection
from typing import NamedTuple

import msgspec

from jaula.kernel.netlink import Netlink

NETLINK_AUDIT = 9
AUDIT_GET, AUDIT_LIST_RULES = 1000, 1013
AUDIT_FILTER_EXIT, AUDIT_ALWAYS = 4, 2
AUDIT_SYSCALL, AUDIT_SECCOMP, AUDIT_AVC = 1300, 1326, 1400
AUDIT_LANDLOCK_ACCESS, AUDIT_LANDLOCK_DOMAIN = 1423, 1424  # Linux 6.15
AUDIT_NLGRP_READLOG = 1
AUDIT_WATCH, AUDIT_PERM, AUDIT_DIR, AUDIT_FILTERKEY = 105, 106, 107, 210
AUDIT_PERM_WRITE, AUDIT_PERM_ATTR = 2, 8
STRINGS = frozenset({13, 14, 15, 16, 17, 19, 20, 21, 22, 23, AUDIT_WATCH, AUDIT_DIR, 112,
                     AUDIT_FILTERKEY})  # fmt: skip
"""Fields with a string: SELinux labels, watches, AUDIT_EXE, keys."""
_MAX_FIELDS = 64
# flags, action, count, mask, fields, values, flags of fields, size
_rule = struct.Struct("=III64I64I64I64II")
_status = struct.Struct("=IIII")  # mask, enabled, failure, pid
_record_header = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, pid
_RECORD_SIZE = 1 << 14  # bytes; MAX_AUDIT_MESSAGE_LENGTH is 8970
_SO_ATTACH_FILTER, _SO_MEMINFO, _SK_MEMINFO_DROPS = 26, 55, 8
_MEMINFO_SIZE = 36  # bytes; SK_MEMINFO_VARS numbers
_sock_filter = struct.Struct("=HBBI")  # code, jt, jf, k
_LOAD_HALF, _JUMP_IF_EQUAL, _RETURN = 0x28, 0x15, 0x06  # BPF_LD|BPF_H|BPF_ABS, BPF_JMP|BPF_JEQ


class AuditRule(msgspec.Struct, frozen=True):
    """A rule: ``path`` of a file, or ``directory`` with everything below; '' if it has none.

    ``permissions`` are bits of AUDIT_PERM_*; all of them if the rule has no such field.
    """

    path: str
    directory: str
    permissions: int
    key: str
    records: bool  # whether a system call that it matches is recorded


def parse(body: bytes) -> AuditRule:
    """Return the rule in the body of a message (``struct audit_rule_data``).

    :raises OSError: EPROTO when it is malformed.
    """
    if len(body) < _rule.size:
        raise OSError(errno.EPROTO, "audit: truncated rule")
    flags, action, count, *numbers, size = _rule.unpack_from(body)
    fields, values = numbers[64:128], numbers[128:192]
    buffer = body[_rule.size : _rule.size + size]
    if count > _MAX_FIELDS or len(buffer) < size:
        raise OSError(errno.EPROTO, "audit: malformed rule")
    texts: dict[int, str] = {}
    permissions, offset = 15, 0
    for field, value in zip(fields[:count], values[:count], strict=True):
        if field in STRINGS:
            if offset + value > size:
                raise OSError(errno.EPROTO, "audit: a string is outside of the rule")
            texts[field] = buffer[offset : offset + value].decode("utf-8", "surrogateescape")
            offset += value
        elif field == AUDIT_PERM:
            permissions = value
    return AuditRule(
        path=texts.get(AUDIT_WATCH, ""),
        directory=texts.get(AUDIT_DIR, ""),
        permissions=permissions,
        key=texts.get(AUDIT_FILTERKEY, "").replace("\x01", ","),
        records=flags & 7 == AUDIT_FILTER_EXIT and action == AUDIT_ALWAYS,
    )


def enabled() -> bool:
    """Return whether the kernel records events.

    :raises OSError: EPROTONOSUPPORT when the kernel has no audit subsystem, EPERM without
        CAP_AUDIT_CONTROL, ECONNREFUSED outside the initial user namespace.
    """
    with Netlink(protocol=NETLINK_AUDIT) as netlink:
        body = netlink.ask(AUDIT_GET, b"", about="the audit status", absent=0)
    if body is None or len(body) < _status.size:
        raise OSError(errno.EPROTO, "audit: truncated status")
    return bool(_status.unpack_from(body)[1])


def rules() -> tuple[AuditRule, ...]:
    """Return the loaded rules of system calls and files.

    :raises OSError: as :func:`enabled`.
    """
    with Netlink(protocol=NETLINK_AUDIT) as netlink:
        return tuple(map(parse, netlink.dump(AUDIT_LIST_RULES, b"", about="audit rules")))


class Record(NamedTuple):
    """A record of the audit log: its AUDIT_* type, and ``audit(TIME:SERIAL): key=value ...``."""

    type: int
    text: str


def decode(datagram: bytes) -> Record | None:
    """Return the record in a datagram, None if it is too short. Pure.

    The length in the header lacks the header itself in some kernels. A datagram is one record.
    """
    if len(datagram) < _record_header.size:
        return None
    text = datagram[_record_header.size :].rstrip(b"\0\n").decode("utf-8", "replace")
    return Record(_record_header.unpack_from(datagram)[1], text)


def type_filter(types: Collection[int]) -> bytes:
    """Return the socket filter (classic BPF) that accepts these types of messages only. Pure."""
    instructions = [(_LOAD_HALF, 0, 0, 4)]  # nlmsg_type; the filter reads it in network order
    for number, kind in enumerate(types):
        accepted = len(types) - number
        instructions.append((_JUMP_IF_EQUAL, accepted, 0, socket.htons(kind)))
    instructions += [(_RETURN, 0, 0, 0), (_RETURN, 0, 0, 0xFFFFFFFF)]
    return b"".join(_sock_filter.pack(*each) for each in instructions)


class RecordSocket:
    """The records of some types, from the creation of this object on. It does not block."""

    def __init__(self, types: Collection[int]) -> None:
        """Join the group of readers.

        :raises OSError: EPROTONOSUPPORT when the kernel has no audit subsystem or ``audit=0``,
            EPERM when the caller may not read records.
        """
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_AUDIT
        )
        try:
            self.select(types)
            self._socket.bind((0, AUDIT_NLGRP_READLOG))
        except OSError:
            self._socket.close()
            raise

    def select(self, types: Collection[int]) -> None:
        """Receive records of these types from now on. Others do not wake the reader."""
        code = ctypes.create_string_buffer(type_filter(types))
        size = len(types) + 3
        program = struct.pack("=HxxxxxxQ", size, ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def fileno(self) -> int:
        """Return a descriptor that is readable while records wait."""
        return self._socket.fileno()

    def receive(self) -> Record | None:
        """Return the next record, None if none waits.

        :raises OSError: ENOBUFS once after the kernel has dropped records; the next ones follow.
        """
        while True:
            try:
                datagram = self._socket.recv(_RECORD_SIZE)
            except BlockingIOError:
                return None
            if (record := decode(datagram)) is not None:
                return record

    def drops(self) -> int:
        """Return the number of records that the kernel has dropped, modulo 2^32."""
        numbers = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO_SIZE)
        return int(struct.unpack(f"={len(numbers) // 4}I", numbers)[_SK_MEMINFO_DROPS])

    def close(self) -> None:
        """Leave the group."""
        self._socket.close()
