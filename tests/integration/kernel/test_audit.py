"""Rules of the kernel's audit subsystem: a rule that is added is listed."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from jaula.kernel import audit
from jaula.kernel.netlink import NLM_F, Netlink, Request

AUDIT_ADD_RULE, AUDIT_DEL_RULE = 1011, 1012


def encode(path: str, kind: int, key: str) -> bytes:
    """Return ``struct audit_rule_data`` of a rule for writes and changes of attributes."""
    strings = path.encode() + key.encode()
    fields = [kind, audit.AUDIT_PERM, audit.AUDIT_FILTERKEY]
    values = [len(path), audit.AUDIT_PERM_WRITE | audit.AUDIT_PERM_ATTR, len(key)]
    equal = [0x40000000] * 3
    rest = [0] * 61
    head = struct.pack("=III64I", audit.AUDIT_FILTER_EXIT, audit.AUDIT_ALWAYS, 3,
                       *([0xFFFFFFFF] * 64))  # fmt: skip
    arrays = struct.pack("=64I64I64II", *fields, *rest, *values, *rest, *equal, *rest,
                         len(strings))  # fmt: skip
    return head + arrays + strings


@pytest.mark.parametrize("kind", [audit.AUDIT_WATCH, audit.AUDIT_DIR])
def test_a_rule_is_listed_with_its_path_and_key(tmp_path: Path, kind: int) -> None:
    try:
        assert audit.enabled() in (True, False)
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.ECONNREFUSED):
            pytest.skip("this kernel has no audit subsystem here")
        raise
    before = audit.rules()
    body = encode(str(tmp_path), kind, "jaula-test")
    with Netlink(protocol=audit.NETLINK_AUDIT) as netlink:
        netlink.send(Request(AUDIT_ADD_RULE, NLM_F(0), body, "add a rule"))
        try:
            (added,) = set(audit.rules()) - set(before)
        finally:
            netlink.send(Request(AUDIT_DEL_RULE, NLM_F(0), body, "delete the rule"))
    path, directory = (str(tmp_path), "") if kind == audit.AUDIT_WATCH else ("", str(tmp_path))
    assert added == audit.AuditRule(path, directory, 10, "jaula-test", True)
    assert audit.rules() == before


def test_another_user_may_not_read_the_rules() -> None:

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setresuid(65534, 65534, 65534)
            audit.rules()
        except OSError as error:
            status = 0 if error.errno in (errno.EPERM, errno.ECONNREFUSED) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
