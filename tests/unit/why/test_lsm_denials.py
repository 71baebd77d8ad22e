"""Audit records of AppArmor and SELinux name the rule; hostile ones do no harm."""

from __future__ import annotations

import random

import pytest

from jaula.features.why.confinement import Confinement, Usage
from jaula.features.why.diagnosis import diagnoses
from jaula.features.why.layers import Layer
from jaula.features.why.lsm_denials import Denial, by_pid, explanation, of, parse
from jaula.features.why.refusal import Refusal
from jaula.features.why.session import Trace

APPARMOR = (
    'audit(1430763035.648:16): apparmor="DENIED" operation="open" profile="docker-default" '
    'name="/proc/sys/kernel/core_pattern" pid=2345 comm="sh" requested_mask="wc" '
    'denied_mask="wc" fsuid=0 ouid=0'
)
SELINUX = (
    "audit(1226874073.147:96): avc:  denied  { getattr } for  pid=2465 "
    'comm="httpd" path="/var/www/html/file1" dev=dm-0 ino=284133 '
    "scontext=unconfined_u:system_r:httpd_t:s0 "
    "tcontext=unconfined_u:object_r:samba_share_t:s0 tclass=file permissive=0"
)


def test_a_record_of_apparmor() -> None:
    denial = parse(APPARMOR)
    assert denial == Denial(
        lsm="apparmor", operation="open", pid=2345, path="/proc/sys/kernel/core_pattern",
        profile="docker-default", access="wc", program="sh", uid=0,
    )  # fmt: skip
    found = explanation(denial)
    assert "the AppArmor profile docker-default has no rule for open of /proc/sys" in found.rule
    assert "'/proc/sys/kernel/core_pattern wc,'" in found.advice


@pytest.mark.parametrize(
    ("value", "uid"),
    [("0", 0), ("1000000000", 1000000000), ("-1149967296", 3145000000), ("-", -1), ("x", -1)],
)
def test_a_user_id_of_apparmor_may_be_negative(value: str, uid: int) -> None:
    denial = parse(APPARMOR.replace("fsuid=0", f"fsuid={value}"))
    assert denial is not None
    assert denial.uid == uid


def test_a_record_of_selinux() -> None:
    denial = parse(SELINUX)
    assert denial is not None
    assert (denial.profile, denial.target, denial.kind) == ("httpd_t", "samba_share_t", "file")
    assert (denial.program, denial.level, denial.uid) == ("httpd", "s0", -1)
    found = explanation(denial)
    assert "no rule of SELinux allows httpd_t to getattr a file of type samba_share_t" in found.rule
    assert "allow httpd_t samba_share_t:file { getattr };" in found.advice
    assert ":z" in found.advice


@pytest.mark.parametrize(
    "text",
    [
        "",
        "audit(1.0:1): pid=1 uid=0",
        APPARMOR.replace("DENIED", "ALLOWED"),
        SELINUX.replace("permissive=0", "permissive=1"),
        SELINUX.replace("denied", "granted"),
        APPARMOR.replace("pid=2345", "pid=x"),
        APPARMOR.replace("pid=2345", "pid=99999999999999999999"),
    ],
)
def test_other_records_are_no_denials(text: str) -> None:
    assert parse(text) is None


def test_a_hexadecimal_name_is_decoded_and_adds_no_pair() -> None:
    name = b'/tmp/a" pid=1 apparmor="ALLOWED'.hex().upper()
    denial = parse(APPARMOR.replace('"/proc/sys/kernel/core_pattern"', name))
    assert denial is not None
    assert denial.pid == 2345
    assert denial.path == '/tmp/a" pid=1 apparmor="ALLOWED'


def test_a_denial_belongs_to_its_process_and_object() -> None:
    first, second = parse(APPARMOR), parse(SELINUX)
    assert first is not None
    assert second is not None
    table = by_pid((first, second))
    assert of(table, 2345, "EACCES", "/proc/sys/kernel/core_pattern") == first
    assert of(table, 2345, "EACCES", "/other") is None
    assert of(table, 2345, "ENOENT", first.path) is None
    assert of(table, 1, "EACCES", first.path) is None
    assert of(by_pid((parse(SELINUX.replace("path=", "name=").replace("/var/www/html/", ""))
                      or first,)), 2465, "EACCES", "/srv/file1") is not None  # fmt: skip


def test_a_denial_explains_the_call() -> None:
    denial = parse(APPARMOR)
    assert denial is not None
    call = Refusal(syscall="openat", errno="EACCES", text=denial.path.encode(), pid=denial.pid)
    trace = Trace(
        events=(call,), facts=(), mounts=(), pids=Usage(), memory=Usage(), denials=(denial,)
    )
    (found,) = diagnoses(trace, Confinement(label="docker-default"))
    assert found.explanation.layer is Layer.LSM
    assert "apparmor DENIED open" in found.explanation.proof


def test_damaged_records_never_fail() -> None:
    numbers = random.Random(3)
    for _ in range(3000):
        data = bytearray(numbers.choice((APPARMOR, SELINUX)).encode())
        for _ in range(numbers.randrange(1, 9)):
            data[numbers.randrange(len(data))] = numbers.randrange(256)
        denial = parse(bytes(data).decode("utf-8", "replace"))
        if denial is not None:
            assert explanation(denial).rule
