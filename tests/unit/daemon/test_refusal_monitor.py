"""Records become facts, facts become counts of containers, counts become few events."""

from __future__ import annotations

import random
from typing import Any

import pytest

from jaula.features.why.refusal_monitor import (
    Call,
    Denied,
    DomainCreated,
    DomainDenied,
    DomainFreed,
    Domains,
    EventLimit,
    Process,
    Refusal,
    container_ids,
    fact_of,
    owns,
)
from jaula.kernel import kernel_audit
from jaula.kernel.kernel_audit import Record
from jaula.spec.api_documents import ContainerCreate
from jaula.state.container_records import ContainerRecord

A, B = "a" * 64, "b" * 64
KILLED = Record(
    kernel_audit.AUDIT_SECCOMP,
    "audit(1795984613.092:1502): auid=4294967295 uid=2385000000 gid=0 ses=4294967295 pid=29229 "
    'comm="python" exe="/usr/bin/python3.13" sig=31 arch=c000003e syscall=111 compat=0 '
    "ip=0x7f3dff0556f9 code=0x80000000",
)
ACCESS = Record(
    kernel_audit.AUDIT_LANDLOCK_ACCESS,
    "audit(1795984613.936:1503): domain=1ed38a712 blockers=fs.make_reg,fs.refer "
    'path="/etc" dev="overlay" ino=15745',
)
CREATED = Record(
    kernel_audit.AUDIT_LANDLOCK_DOMAIN,
    "audit(1795984613.936:1503): domain=1ed38a712 status=allocated mode=enforcing pid=29306 "
    'uid=2050000000 exe="/usr/bin/python3.13" comm="jaula-shim"',
)
FREED = Record(
    kernel_audit.AUDIT_LANDLOCK_DOMAIN,
    "audit(1795984614.012:1506): domain=1ed38a712 status=deallocated denials=3",
)
CALL = Record(
    kernel_audit.AUDIT_SYSCALL,
    "audit(1795984613.936:1503): arch=c000003e syscall=59 success=no exit=-13 a0=7f46c9332060 "
    "a1=0 a2=0 a3=6 items=0 ppid=29136 pid=29306 auid=4294967295 uid=2050000000 gid=0 euid=0 "
    'comm="python" exe="/usr/bin/python3.13" key=(null)',
)
APPARMOR = Record(
    kernel_audit.AUDIT_AVC,
    'audit(1430763035.648:16): apparmor="DENIED" operation="open" profile="jaula-default" '
    'name="/proc/sys/kernel/core_pattern" pid=2345 comm="sh" requested_mask="wc" '
    'denied_mask="wc" fsuid=2385000033 ouid=0',
)
SELINUX = Record(
    kernel_audit.AUDIT_AVC,
    'audit(1226874073.147:96): avc:  denied  { getattr } for  pid=2465 comm="httpd" '
    'path="/var/www/file1" dev=dm-0 ino=284133 scontext=system_u:system_r:container_t:s0:c1,c2 '
    "tcontext=unconfined_u:object_r:samba_share_t:s0 tclass=file permissive=0",
)
RECORDS = (KILLED, ACCESS, CREATED, FREED, CALL, APPARMOR, SELINUX)


def test_each_record_is_the_fact_that_it_states() -> None:
    refusal = Refusal("landlock", "fs.make_reg,fs.refer", "/etc")
    assert [fact_of(record) for record in RECORDS] == [
        Denied(Refusal("seccomp", "getpgrp", "", "python"), Process(29229, 2385000000)),
        DomainDenied(refusal, "1ed38a712", "1503"),
        DomainCreated("1ed38a712", "1503", Process(29306, 2050000000)),
        DomainFreed("1ed38a712"),
        Call("1503", Process(29306, 2050000000)),
        Denied(
            Refusal("apparmor", "open", "/proc/sys/kernel/core_pattern", "sh"),
            Process(2345, 2385000033),
        ),
        Denied(
            Refusal("selinux", "getattr file", "/var/www/file1", "httpd"),
            Process(2465, -1, "s0:c1,c2"),
        ),
    ]


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("0x0", True),
        ("0x30000", True),
        ("0x50000", True),
        ("0x7ffc0000", False),  # LOG
        ("0x7fc00000", False),  # USER_NOTIF
        ("0x7ff00000", False),  # TRACE
    ],
)
def test_a_call_that_seccomp_only_logs_is_not_a_refusal(code: str, refused: bool) -> None:
    record = KILLED._replace(text=KILLED.text.replace("0x80000000", code))
    assert (fact_of(record) is not None) == refused


def test_damaged_records_never_fail() -> None:
    numbers = random.Random(7)
    for _ in range(5000):
        record = numbers.choice(RECORDS)
        data = bytearray(record.text.encode())
        for _ in range(numbers.randrange(1, 9)):
            data[numbers.randrange(len(data))] = numbers.randrange(256)
        text = bytes(data[: numbers.randrange(600)]).decode("utf-8", "replace")
        fact_of(Record(record.type, text))


def test_the_outermost_cgroup_names_the_container() -> None:
    text = f"5:memory:/jaula/{A}/{B}\n0::/system.slice/jaula-{A}.scope/x/jaula-{B}.scope\n"
    assert container_ids(text) == (A, B)
    assert container_ids(f"0::/x-{A}\n1:cpu:/{A}x/{A[1:]}\n") == ()


def container_record(key: str, **fields: Any) -> ContainerRecord:
    return ContainerRecord(key, "web", 0, ContainerCreate(), "sha256:0", **fields)


def test_an_exited_process_is_known_by_its_user_id_or_level() -> None:
    record = container_record(A, range_start=1_000_000_000, range_size=65536, level="s0:c1,c2")
    assert owns(record, Process(1, 1_000_065_535))
    assert not owns(record, Process(1, 1_000_065_536))
    assert owns(record, Process(1, -1, "s0:c1,c2"))
    assert not owns(record, Process(1, -1, "s0:c1,c3"))
    assert not owns(container_record(A), Process(1, 0))
    assert owns(container_record(A, borrowed_start=5, borrowed_size=2), Process(1, 6))


def domains(*answers: str | None) -> Domains:
    rest = list(answers)
    return Domains(lambda process: rest.pop(0))


def test_a_domain_is_that_of_the_container_that_created_it() -> None:
    table = domains(A)
    first = DomainDenied(Refusal("landlock", "fs.read_file"), "1", "10")
    assert table.add(first) == []
    assert table.incomplete
    assert table.add(DomainCreated("1", "10", Process(5))) == [(A, first.refusal)]
    assert not table.incomplete
    later = first._replace(serial="11")
    assert table.add(later) == [(A, later.refusal)]
    assert table.add(DomainFreed("1")) == []
    assert table.add(later) == []  # another domain may have the id now


def test_the_proof_of_the_runtime_is_not_counted() -> None:
    table = domains(A)
    proof = DomainDenied(Refusal("landlock", "fs.change_topology", "/"), "1", "10")
    table.add(proof)
    assert table.add(DomainCreated("1", "10", Process(5))) == []
    later = proof._replace(serial="11")
    assert table.add(later) == [(A, later.refusal)]


def test_the_record_of_a_system_call_makes_a_domain_known() -> None:
    table = domains(None, A)
    waiting = [DomainDenied(Refusal("landlock", str(n)), "1", str(n)) for n in range(2)]
    for fact in waiting:
        table.add(fact)
    assert table.add(Call("7", Process(5))) == []
    assert table.add(Call("0", Process(5))) == []  # it has exited
    assert table.incomplete
    assert table.add(Call("1", Process(6))) == [(A, each.refusal) for each in waiting]


def test_a_domain_of_the_host_is_asked_for_once() -> None:
    table = domains("")
    denied = DomainDenied(Refusal("landlock"), "1", "10")
    table.add(denied)
    assert table.add(Call("10", Process(5))) == []
    assert table.add(denied) == []
    assert not table.incomplete


def test_unknown_domains_are_bounded_and_forgotten() -> None:
    table = domains()
    for n in range(1000):
        table.add(DomainDenied(Refusal("landlock"), str(n), str(n)))
    assert len(table._unknown) == 64
    table.forget_unknown()
    assert not table.incomplete


def test_a_flood_is_one_event_for_each_interval() -> None:
    events: list[tuple[str, dict[str, str]]] = []
    limit = EventLimit(lambda container, attributes: events.append((container, attributes)))
    for n in range(100):
        limit.add("a", Refusal("seccomp", f"call{n}"))
    limit.add("a", Refusal("landlock"))
    limit.add("b", Refusal("seccomp"), 3)
    assert [(container, each["layer"], each["count"]) for container, each in events] == [
        ("a", "seccomp", "1"),
        ("a", "landlock", "1"),
        ("b", "seccomp", "3"),
    ]
    events.clear()
    limit.flush()
    assert events == [("a", {"layer": "seccomp", "count": "99", "operation": "call99"})]
    limit.flush()
    limit.flush()
    assert len(events) == 1
    limit.add("a", Refusal("seccomp"))
    assert len(events) == 2


def test_texts_of_an_event_are_bounded() -> None:
    attributes = Refusal("selinux", "read", "x" * 9999).attributes(1)
    assert len(attributes["object"]) == 256
    assert "program" not in attributes
