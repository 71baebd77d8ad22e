"""Events become one diagnosis for each distinct reason; reports hide what programs expect."""

from __future__ import annotations

import json

from jaula.why import oom
from jaula.why.confinement import Confinement, Usage
from jaula.why.diagnosis import Report, diagnoses, ended, start_failure
from jaula.why.exec_errors import ExecError
from jaula.why.layers import Layer
from jaula.why.refusal import Event, Exit, OutOfMemory, Refusal, Signal
from jaula.why.report import plain, to_json, to_text
from jaula.why.session import Trace


def trace(*events: Event, **fields: object) -> Trace:
    return Trace(
        events=events,
        facts=(),
        mounts=(),
        pids=Usage(),
        memory=Usage(**fields),  # type: ignore[arg-type]
    )


def execution(path: bytes, errno: str, program: str = "/bin/sh") -> Refusal:
    return Refusal(syscall="execve", errno=errno, text=path, name="sh", program=program)


def test_the_search_of_path_is_no_refusal_if_the_program_is_found() -> None:
    events = (
        execution(b"/usr/bin/cat", "ENOENT"),
        execution(b"", "", program="/bin/cat"),
    )
    assert diagnoses(trace(*events), Confinement()) == ()


def test_the_search_of_a_missing_program_is_one_diagnosis() -> None:
    events = [execution(b"/%d/cat" % n, "ENOENT") for n in range(6)]
    (found,) = diagnoses(trace(*events), Confinement())
    assert "cat is in no directory of PATH" in found.explanation.rule
    assert len(found.operations) == 6


def test_operations_of_one_reason_are_one_block() -> None:
    call = Refusal(syscall="keyctl", errno="EPERM", entered=False, name="a", count=3)
    (found,) = diagnoses(trace(call, call), Confinement())
    assert [each.count for each in found.operations] == [6]


def test_memory_names_victim_numbers_and_the_largest_process() -> None:
    events = (
        OutOfMemory(name="db", program="/db", pid=5),
        Signal(signal="SIGKILL", receiver="db", program="/db", pid=5, kernel=True, inside=False,
               sender="db", sender_pid=5, code=128),
        Exit(name="db", program="/db", pid=5, status=9, peak=30 << 20),
        Exit(name="sh", program="/sh", pid=4, status=0, peak=1 << 20),
    )  # fmt: skip
    (found,) = diagnoses(trace(*events, limit=32 << 20, peak=32 << 20, hits=1), Confinement())
    assert found.explanation.layer is Layer.MEMORY_LIMIT
    for text in ("limit 32 MiB", "peak 32 MiB", "victim db (5)", "largest process db (5)"):
        assert text in found.explanation.rule
    assert found.explanation.flag == "--memory 64m"


def test_signals_name_their_sender() -> None:
    sent = Signal(signal="SIGKILL", receiver="a", program="/a", pid=5, kernel=False, inside=False,
                  sender="bash", sender_pid=77, code=0)  # fmt: skip
    assert "bash (77), a process of the host" in oom.ended_by(sent).rule


def test_an_exited_container_is_explained_by_its_state() -> None:
    state = {"State": {"ExitCode": 137, "OOMKilled": True}, "Path": "db"}
    (found,) = ended(state, Confinement(memory=Usage(limit=64 << 20)))
    assert found.explanation.layer is Layer.MEMORY_LIMIT
    state["State"] = {"ExitCode": 139, "OOMKilled": False}
    (found,) = ended(state, None)
    assert found.explanation.layer is Layer.PROGRAM
    state["State"] = {"ExitCode": 1, "OOMKilled": False}
    assert ended(state, None) == ()


def test_exit_codes_in_words() -> None:
    assert oom.status_text(139) == "139: ended by SIGSEGV"
    assert oom.status_text(127) == "127: the program was not found"
    assert oom.status_text(3) == "3"
    assert oom.exit_signal(200) is None


def test_the_text_has_no_control_characters() -> None:
    (found,) = start_failure(["\x1b[2J"], "exec: \x1b[2J no such file", ExecError("\x07", ""))
    report = Report(container="a", state="b\nc", diagnoses=(found,), notes=("\x9b",))
    text = to_text(report)
    assert all(each.isprintable() for line in text.split("\n") for each in line)
    assert json.loads(to_json(report))["diagnoses"][0]["explanation"]["layer"] == "program"
    assert plain("a\tb") == "a\\tb"


def test_what_programs_expect_is_hidden_but_counted() -> None:
    call = Refusal(syscall="clone3", errno="ENOSYS", name="a", count=3)
    found = diagnoses(trace(call), Confinement())
    report = Report(container="a", state="running", diagnoses=(), harmless=found)
    assert "nothing was refused" in to_text(report)
    assert "3 refusals that programs expect" in to_text(report)
    assert "clone3" in to_text(report, with_harmless=True)
