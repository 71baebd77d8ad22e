"""The mechanism seccomp: the calls that wait when a record ends are counted."""

from __future__ import annotations

import os
from pathlib import Path

from jaula.features.record import ebpf_events
from jaula.features.record.ebpf_events import Event
from jaula.features.record.seccomp_tracer import Call, SeccompTracer


def call(name: str, program: bytes, stack: int, *texts: bytes) -> Call:
    arguments = (0, 0, 0, 0, 0, 0)
    return Call(name, 0, os.getpid(), (1, stack), program, arguments, texts, lost=False)


def test_an_execution_is_counted_when_the_record_ends_before_its_calls_are(tmp_path: Path) -> None:
    events: list[Event] = []
    tracer = SeccompTracer(
        str(tmp_path / "agent"), "id", events.append, lambda number, abi: f"{abi}{number}"
    )
    try:
        tracer._calls.append(call("execve", b"", 1, b"/bin/cat"))
        tracer.consume()
        tracer._calls.append(call("openat", b"/bin/cat", 2, b"/etc/hostname"))
        tracer._calls.append(call("exit_group", b"/bin/cat", 2))
        tracer.detach()
        kinds = [key.kind for key, _ in tracer.counts()]
        assert kinds.count(ebpf_events.EXEC) == 1
        assert tracer.losses() == {}
    finally:
        tracer.close()


def test_an_execution_without_a_further_call_is_reported_as_lost(tmp_path: Path) -> None:
    tracer = SeccompTracer(
        str(tmp_path / "agent"), "id", lambda event: None, lambda number, abi: f"{abi}{number}"
    )
    try:
        tracer._calls.append(call("execve", b"", 1, b"/bin/cat"))
        tracer.detach()
        assert tracer.losses()[ebpf_events.EXEC][0] == 1
    finally:
        tracer.close()
