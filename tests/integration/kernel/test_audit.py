"""Rules of the kernel's audit subsystem: a rule that is added is listed."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from jaula.kernel import kernel_audit
from jaula.kernel.netlink import NLM_F, Netlink, Request

AUDIT_ADD_RULE, AUDIT_DEL_RULE = 1011, 1012


def encode(path: str, kind: int, key: str) -> bytes:
    """Return ``struct audit_rule_data`` of a rule for writes and changes of attributes."""
    strings = path.encode() + key.encode()
    fields = [kind, kernel_audit.AUDIT_PERM, kernel_audit.AUDIT_FILTERKEY]
    values = [len(path), kernel_audit.AUDIT_PERM_WRITE | kernel_audit.AUDIT_PERM_ATTR, len(key)]
    equal = [0x40000000] * 3
    rest = [0] * 61
    head = struct.pack("=III64I", kernel_audit.AUDIT_FILTER_EXIT, kernel_audit.AUDIT_ALWAYS, 3,
                       *([0xFFFFFFFF] * 64))  # fmt: skip
    arrays = struct.pack("=64I64I64II", *fields, *rest, *values, *rest, *equal, *rest,
                         len(strings))  # fmt: skip
    return head + arrays + strings


@pytest.mark.parametrize("kind", [kernel_audit.AUDIT_WATCH, kernel_audit.AUDIT_DIR])
def test_a_rule_is_listed_with_its_path_and_key(tmp_path: Path, kind: int) -> None:
    try:
        assert kernel_audit.enabled() in (True, False)
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.ECONNREFUSED):
            pytest.skip("this kernel has no audit subsystem here")
        raise
    before = kernel_audit.rules()
    body = encode(str(tmp_path), kind, "jaula-test")
    with Netlink(protocol=kernel_audit.NETLINK_AUDIT) as netlink:
        netlink.send(Request(AUDIT_ADD_RULE, NLM_F(0), body, "add a rule"))
        try:
            (added,) = set(kernel_audit.rules()) - set(before)
        finally:
            netlink.send(Request(AUDIT_DEL_RULE, NLM_F(0), body, "delete the rule"))
    path, directory = (
        (str(tmp_path), "") if kind == kernel_audit.AUDIT_WATCH else ("", str(tmp_path))
    )
    assert added == kernel_audit.AuditRule(path, directory, 10, "jaula-test", True)
    assert kernel_audit.rules() == before


def test_another_user_may_not_read_the_rules() -> None:

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setresuid(65534, 65534, 65534)
            kernel_audit.rules()
        except OSError as error:
            status = 0 if error.errno in (errno.EPERM, errno.ECONNREFUSED) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
