"""The rules of the kernel's audit subsystem: auditctl(8), netlink(7).

Source of the numbers and the structures: include/uapi/linux/audit.h.

Facts about listing: a thread of the kernel sends the rules after the acknowledgement, and the list
ends with NLMSG_DONE. Reading needs CAP_AUDIT_CONTROL in the initial user namespace; the kernel
answers ECONNREFUSED in another one. A rule for a file (``path``) has the type AUDIT_WATCH and one
for a directory with everything below it (``dir``) AUDIT_DIR. The strings of all fields follow the
arrays, in the order of the fields; the value of such a field is the length of its string.
"""

from __future__ import annotations

import errno
import struct

import msgspec

from jaula.kernel.netlink import Netlink

NETLINK_AUDIT = 9
AUDIT_GET, AUDIT_LIST_RULES = 1000, 1013
AUDIT_FILTER_EXIT, AUDIT_ALWAYS = 4, 2
AUDIT_WATCH, AUDIT_PERM, AUDIT_DIR, AUDIT_FILTERKEY = 105, 106, 107, 210
AUDIT_PERM_WRITE, AUDIT_PERM_ATTR = 2, 8
STRINGS = frozenset({13, 14, 15, 16, 17, 19, 20, 21, 22, 23, AUDIT_WATCH, AUDIT_DIR, 112,
                     AUDIT_FILTERKEY})  # fmt: skip
"""Fields with a string: SELinux labels, watches, AUDIT_EXE, keys."""
_MAX_FIELDS = 64
# flags, action, count, mask, fields, values, flags of fields, size
_rule = struct.Struct("=III64I64I64I64II")
_status = struct.Struct("=IIII")  # mask, enabled, failure, pid


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
