"""What is a drift, and how many a hostile container can cause."""

from __future__ import annotations

from typing import Any

import pytest

from jaula.features.record import container_drift, ebpf_events
from jaula.features.record.container_drift import (
    Baseline,
    Drift,
    Observer,
    Reporter,
    baseline_of,
    deviation,
)
from jaula.features.record.ebpf_events import Event, Key
from jaula.features.record.record_document import Container, Entry, Header, Kernel, Program
from jaula.features.record.record_reader import Record
from jaula.state.audit_log import Head

ALL = frozenset({"program", "connect", "listen", "capability", "set-uid"})
HEADER = Header(
    version=1,
    time="2026-01-01T00:00:00Z",
    recorder="jaula",
    kernel=Kernel(release="6.1", version="", machine="x86_64", boot_id=""),
    container=Container(id="0" * 64, name="c", image="i", image_id="sha256:0"),
    mechanism="ebpf-tracepoints",
    sources=(),
    cgroup="",
)


def entry(kind: str, **fields: Any) -> Entry:
    return Entry(**({"kind": kind, "program": 1} | fields))


def address(kind: str, **fields: Any) -> Entry:
    usual = {"family": "inet", "protocol": "tcp", "address": "192.0.2.1", "port": 80}
    return entry(kind, **(usual | fields))


KNOWN = [
    entry("exec", executed=1),
    entry("file", path="/etc/hosts"),
    entry("capability", capability="CAP_CHOWN", syscall="chown"),
    entry("syscall", syscall="setuid"),
    entry("syscall", syscall="setgid", errno="EPERM"),
    address("connect"),
    address("listen", address="::", family="inet6", port=443),
]
RECORD = Record(HEADER, {1: Program(path="/bin/a")}, dict(enumerate(KNOWN, 2)), None, Head(), [])
BASELINE = baseline_of([RECORD], lambda header: ALL)


@pytest.mark.parametrize("each", KNOWN)
def test_what_the_record_has_is_no_drift(each: Entry) -> None:
    executed = Program(path="/bin/a") if each.kind == "exec" else None
    assert deviation(each, "/bin/a", executed, BASELINE) is None


@pytest.mark.parametrize(
    ("each", "program", "kind", "subject"),
    [
        (address("connect", port=81), "/bin/a", "connect", "tcp 192.0.2.1:81"),
        (address("send", protocol="udp"), "/bin/a", "connect", "udp 192.0.2.1:80"),
        (address("listen"), "/bin/a", "listen", "tcp 192.0.2.1:80"),
        (address("bind", protocol="udp"), "/bin/a", "listen", "udp 192.0.2.1:80"),
        (address("connect", family="unix", address="/run/x"), "/bin/a", "connect", "unix /run/x"),
        (
            entry("capability", capability="CAP_CHOWN", syscall="chown"),
            "/bin/b", "capability", "CAP_CHOWN",
        ),
        (entry("syscall", syscall="setgid"), "/bin/a", "set-uid", "setgid"),
    ],
)  # fmt: skip
def test_what_the_record_lacks_is_a_drift(
    each: Entry, program: str, kind: str, subject: str
) -> None:
    found = deviation(each, program, None, BASELINE)
    assert found is not None
    assert (found.kind, found.subject, found.program) == (kind, subject, program)


def test_a_new_program_is_a_drift() -> None:
    found = deviation(entry("exec"), "/bin/a", Program(path="/bin/b"), BASELINE)
    assert found == Drift("program", "/bin/b", "/bin/a", "not in the record")


@pytest.mark.parametrize(
    "each",
    [
        address("bind", port=0, protocol="udp"),
        address("bind", port=81),
        address("bind", family="unix", address="/run/y"),
        address("accept", address="192.0.2.9"),
        address("connect", family="netlink", address="00"),
        address("connect", lost_text=True, port=82),
        entry("file", path="/new"),
        entry("capability-refused", capability="CAP_SYS_ADMIN"),
        entry("syscall", syscall="read"),
        entry("syscall", syscall="setreuid", errno="EPERM"),
    ],
)
def test_what_is_not_compared_is_no_drift(each: Entry) -> None:
    assert deviation(each, "/bin/a", None, BASELINE) is None


def test_a_kind_that_no_record_can_have_is_not_compared() -> None:
    nothing = baseline_of([RECORD], lambda header: ())
    assert deviation(address("connect", port=81), "/bin/a", None, nothing) is None
    each = entry("capability", capability="CAP_KILL", syscall="kill")
    assert deviation(each, "/bin/a", None, nothing) is None


def test_two_records_are_one_baseline() -> None:
    other = Record(HEADER, {1: Program(path="/bin/b")}, {2: address("connect", port=81)}, None,
                   Head(), [])  # fmt: skip
    both: Baseline = baseline_of([RECORD, other], lambda header: ALL)
    assert both.programs == {"/bin/a", "/bin/b"}
    assert len(both.addresses) == 3


def test_each_drift_is_reported_once() -> None:
    printed: list[Drift] = []
    reporter = Reporter(printed.append, lambda each: None)
    first = Drift("program", "/x", "/bin/a", "", "1" * 64)
    assert reporter.report(first)
    assert not reporter.report(first._replace(program="/bin/b", detail="other"))
    assert reporter.report(first._replace(digest="2" * 64))
    assert len(printed) == reporter.count == 2


def test_a_flood_is_counted_and_has_a_share_of_the_events() -> None:
    now = [0.0]
    printed: list[Drift] = []
    emitted: list[Drift] = []
    reporter = Reporter(printed.append, emitted.append, lambda: now[0])
    for number in range(container_drift.MAX_DRIFTS + 1000):
        reporter.report(Drift("program", f"/{number}", "", ""))
    assert len(printed) == container_drift.MAX_DRIFTS
    assert reporter.count == container_drift.MAX_DRIFTS + 1000
    assert reporter.unlisted == 1000
    assert len(emitted) == Reporter.BURST
    assert reporter.unemitted == container_drift.MAX_DRIFTS - Reporter.BURST


def test_the_share_of_events_comes_back() -> None:
    now = [0.0]
    emitted: list[Drift] = []
    reporter = Reporter(lambda each: None, emitted.append, lambda: now[0])
    for number in range(100):
        reporter.report(Drift("program", f"/{number}", "", ""))
    now[0] = 1.0
    for number in range(100, 200):
        reporter.report(Drift("program", f"/{number}", "", ""))
    assert len(emitted) == Reporter.BURST + Reporter.RATE


def test_an_event_waits_for_its_program() -> None:
    observer = Observer(lambda number, abi: "execve")
    number = 1 << 63
    executed = Event(Key(0, number, ebpf_events.EXEC, 0), 1, b"")
    assert observer.receive(executed) == []
    (found,) = observer.receive(Event(Key(0, number, ebpf_events.PROGRAM, 0), 1, b"\0x\0bin\0"))
    assert found.executed == Program(path="/bin/x")


def test_what_waits_is_bounded() -> None:
    observer = Observer(lambda number, abi: "")
    for number in range(container_drift._MAX_WAITING + 10):
        observer.receive(Event(Key(number + 2, 0, ebpf_events.CAPABILITY, 0), 1, b""))
    assert observer.lost == 10


def test_programs_are_bounded() -> None:
    observer = Observer(lambda number, abi: "")
    for number in range(container_drift._MAX_PROGRAMS + 10):
        observer.receive(Event(Key(0, number + 2, ebpf_events.PROGRAM, 0), 1, b"\0x\0"))
    assert observer.lost == 10
