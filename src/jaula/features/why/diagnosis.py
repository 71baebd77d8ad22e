"""The diagnoses of a session: one for each distinct refusal, with its explanation. Pure."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from jaula.features.record.ebpf_events import socket_address
from jaula.features.record.record_document import text_of
from jaula.features.why import lsm_denials, oom, profile_items
from jaula.features.why.confinement import Confinement, Usage
from jaula.features.why.exec_errors import ExecError
from jaula.features.why.explain import EXECS, OPENS, FileFacts, explain
from jaula.features.why.layers import Explanation, Layer
from jaula.features.why.refusal import Event, OutOfMemory, Refusal, Signal
from jaula.features.why.session import Trace

_WITH_ADDRESS = frozenset({"connect", "bind", "sendto"})


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal: the call with its object, the error, the program, and how often."""

    call: str
    object: str
    errno: str
    program: str
    count: int = 1


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """A reason, and the operations that it refused."""

    explanation: Explanation
    operations: tuple[Operation, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The diagnoses on one container. ``notes`` say what is not known."""

    container: str
    state: str
    diagnoses: tuple[Diagnosis, ...]
    harmless: tuple[Diagnosis, ...] = ()
    notes: tuple[str, ...] = ()
    log: str = ""
    traced: bool = True


def diagnoses(
    trace: Trace, confinement: Confinement, *, join: bool = True
) -> tuple[Diagnosis, ...]:
    """Return the diagnoses of a trace, in the order of their first occurrence.

    ``join``: all items that one list of the container's profile lacks are one diagnosis.
    """
    confined = msgspec.structs.replace(
        confinement,
        mounts=trace.mounts or confinement.mounts,
        pids=trace.pids if trace.pids.limit > 0 else confinement.pids,
        memory=trace.memory if trace.memory.peak else confinement.memory,
    )
    explained: list[tuple[Explanation, Operation]] = []
    searched, executed = _searched(trace.events), _executed(trace.events)
    denials = lsm_denials.by_pid(trace.denials)
    victims = [event for event in trace.events if isinstance(event, OutOfMemory)]
    killed = {victim.pid for victim in victims}
    if victims:
        reason = oom.out_of_memory(victims, trace.events, confined.memory)
        explained += (
            (reason, Operation(call="OOM kill", object="", errno="SIGKILL", program=victim.name))
            for victim in victims
        )
    for event, facts in _pairs(trace.events, trace.facts):
        if isinstance(event, Refusal) and not _is_search(event, executed):
            denial = lsm_denials.of(denials, event.pid, event.errno, event.path)
            reason = (
                lsm_denials.explanation(denial)
                if denial is not None
                else _explained(event, confined, facts, searched)
            )
            explained.append((reason, _operation(event)))
        elif isinstance(event, Signal) and event.pid not in killed and not _is_stop(event):
            explained.append(
                (
                    oom.ended_by(event),
                    Operation(
                        call="end by signal", object="", errno=event.signal, program=event.receiver
                    ),
                )
            )
    return grouped(explained, confinement.profile, join=join)


def _pairs(
    events: Sequence[Event], facts: Sequence[FileFacts | None]
) -> Iterable[tuple[Event, FileFacts | None]]:
    return zip(events, (*facts, *(None,) * (len(events) - len(facts))), strict=True)


def _is_search(event: Refusal, executed: frozenset[bytes]) -> bool:
    """Return whether a call is a program's execution, or a step of the search of PATH for it."""
    if event.syscall not in EXECS:
        return False
    if not event.errno:
        return True
    if event.errno not in ("ENOENT", "EACCES", "ENOTDIR"):
        return False
    return os.path.basename(event.text) in executed


def _executed(events: Sequence[Event]) -> frozenset[bytes]:
    """Return the names of the programs that were executed."""
    return frozenset(
        os.path.basename(os.fsencode(event.program))
        for event in events
        if isinstance(event, Refusal) and event.syscall in EXECS and not event.errno
    )


def _searched(events: Sequence[Event]) -> frozenset[bytes]:
    """Return the names of programs that were searched in several directories."""
    paths = {
        event.text
        for event in events
        if isinstance(event, Refusal) and event.syscall in EXECS and event.errno == "ENOENT"
    }
    counts = Counter(os.path.basename(path) for path in paths)
    return frozenset(name for name, count in counts.items() if count > 1)


def _explained(
    event: Refusal, confinement: Confinement, facts: FileFacts | None, searched: frozenset[bytes]
) -> Explanation:
    name = os.path.basename(event.text)
    if event.syscall in EXECS and event.errno == "ENOENT" and name in searched:
        return Explanation(
            layer=Layer.PROGRAM,
            rule=f"{text_of(name)} is in no directory of PATH",
            proof="execve returned ENOENT in each directory",
            advice="install it in the image",
        )
    return explain(event, confinement, facts)


def _is_stop(event: Signal) -> bool:
    """Return whether a signal is the normal end of a container or of a background process."""
    return event.signal == "SIGTERM"


def _operation(event: Refusal) -> Operation:
    text = event.path
    if event.syscall in _WITH_ADDRESS and event.text:
        fields = socket_address(event.text)
        text = str(fields.get("address", ""))
        if "port" in fields:
            text = f"[{text}]:{fields['port']}" if ":" in text else f"{text}:{fields['port']}"
    elif event.filesystem and text:
        text = f"{text} ({event.filesystem})"
    return Operation(
        call=event.syscall + (f" ({event.abi})" if event.abi else ""),
        object=text,
        errno=event.errno or ("no data" if event.syscall in OPENS else "in the answer"),
        program=_program(event.program, event.name),
        count=event.count,
    )


def _program(program: str, name: str) -> str:
    """Return the program's path, or the thread's name if the path says nothing."""
    return name if not program or program.startswith(("/proc/self/", "/dev/fd/")) else program


def grouped(
    explained: Sequence[tuple[Explanation, Operation]], profile: str, *, join: bool
) -> tuple[Diagnosis, ...]:
    """Return one diagnosis for each distinct explanation; ``profile`` is the container's."""
    groups: dict[Explanation, dict[Operation, int]] = {}
    members: dict[Explanation, dict[Explanation, None]] = {}
    for explanation, operation in explained:
        key = profile_items.similar(explanation) if join else explanation
        members.setdefault(key, {})[explanation] = None
        operations = groups.setdefault(key, {})
        one = msgspec.structs.replace(operation, count=0)
        operations[one] = operations.get(one, 0) + operation.count
    return tuple(
        Diagnosis(
            explanation=profile_items.joined(tuple(members[key]), profile),
            operations=tuple(
                msgspec.structs.replace(operation, count=count)
                for operation, count in operations.items()
            ),
        )
        for key, operations in groups.items()
    )


class LiveReasons:
    """The reasons that are new since the last call, for a report while the container runs.

    A reason is new when two calls have it: the search of a program in ``PATH`` begins as if the
    program were missing.
    """

    def __init__(self) -> None:
        """Start without reasons."""
        self._pending: set[tuple[Layer, Operation]] = set()
        self._shown: set[tuple[Layer, Operation]] = set()

    def new(self, found: Iterable[Diagnosis], *, final: bool = False) -> tuple[Diagnosis, ...]:
        """Return the reasons that were not returned before. ``final``: no further call follows."""
        reasons = {_reason(each): each for each in found if not each.explanation.harmless}
        fresh = [
            key for key in reasons if key not in self._shown and (final or key in self._pending)
        ]
        self._pending = set(reasons)
        self._shown.update(fresh)
        return tuple(reasons[key] for key in fresh)


def _reason(diagnosis: Diagnosis) -> tuple[Layer, Operation]:
    """Return what identifies a reason: the proofs have numbers that grow."""
    first = msgspec.structs.replace(diagnosis.operations[0], count=0)
    return diagnosis.explanation.layer, first


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A program that the runtime could not execute.

    ``path`` is where it was found, ``reason`` the engine's error, ``uid`` the user of the host.
    """

    words: tuple[str, ...]
    path: str
    reason: str
    uid: int = 0
    directory: str = ""  # the working directory of the process


def start_failure(
    start: Start, error: ExecError, confinement: Confinement | None, facts: FileFacts | None
) -> tuple[Diagnosis, ...]:
    """Return the diagnosis on a first program that could not be executed.

    ``error`` is what the file shows. Without it the layers decide, as for a traced call.
    """
    text = " ".join(start.reason.split()).removeprefix("Error response from daemon: ")
    name = start.words[0] if start.words else ""
    error_name = _errno(text)
    operation = Operation(call="execve", object=name, errno=error_name, program="the runtime")
    missing = bool(name) and "/" not in name and "does not exist" in error.reason
    explanation = Explanation(
        layer=Layer.PROGRAM,
        rule=f"{name} is in no directory of PATH" if missing else error.reason or text,
        proof=f"the runtime: {text}",
        advice=error.advice,
    )
    if not missing and confinement is not None and error_name in ("EACCES", "EPERM"):
        refusal = Refusal(
            syscall="execve",
            errno=error_name,
            effective=confinement.effective,
            fsuid=start.uid,
            text=os.fsencode(os.path.normpath(os.path.join(start.directory, start.path))),
            reported=text,
        )
        found = explain(refusal, confinement, facts)
        if found.layer is not Layer.KERNEL:
            explanation = found
    return (Diagnosis(explanation=explanation, operations=(operation,)),)


def not_found(words: Sequence[str], status: int, output: str) -> tuple[Diagnosis, ...]:
    """Return the diagnosis on a program that a shell did not find: it executes nothing then.

    ``output`` is the end of what the command wrote.
    """
    if status != oom.NOT_FOUND:
        return ()
    last = next((line for line in reversed(output.splitlines()) if "not found" in line), "")
    explanation = Explanation(
        layer=Layer.PROGRAM,
        rule=f"the shell found a program in no directory of PATH: {last.strip() or words[-1]}",
        proof="the exit status is 127, and no program was executed",
        advice="check the spelling, and that the image has the program",
    )
    operation = Operation(call="execve", object="", errno="ENOENT", program=words[0])
    return (Diagnosis(explanation=explanation, operations=(operation,)),)


def _errno(reason: str) -> str:
    for words, name in (
        ("not found", "ENOENT"),
        ("no such file", "ENOENT"),
        ("permission denied", "EACCES"),
        ("exec format", "ENOEXEC"),
        ("is a directory", "EISDIR"),
    ):
        if words in reason.lower():
            return name
    return "error"


def ended(document: Mapping[str, Any], confinement: Confinement | None) -> tuple[Diagnosis, ...]:
    """Return the diagnosis on the end of an exited container: memory, or a signal.

    ``document`` is the engine's.
    """
    state = document["State"]
    code = int(state["ExitCode"])
    program = str(document.get("Path") or "")
    if state.get("OOMKilled"):
        memory = confinement.memory if confinement else Usage()
        reason = oom.out_of_memory((), (), memory)
        return (
            Diagnosis(
                explanation=msgspec.structs.replace(
                    reason,
                    proof="State.OOMKilled: the engine read the cgroup's OOM kills at the exit",
                ),
                operations=(
                    Operation(call="OOM kill", object="", errno="SIGKILL", program=program),
                ),
            ),
        )
    if explanation := oom.exit_signal(code):
        name = oom.status_text(code).rpartition(" ")[2]
        return (
            Diagnosis(
                explanation=explanation,
                operations=(
                    Operation(call="end by signal", object="", errno=name, program=program),
                ),
            ),
        )
    return ()
