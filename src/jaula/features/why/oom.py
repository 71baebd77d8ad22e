"""Ends of processes: memory that ran out, signals, exit statuses. Pure."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from jaula.features.why.confinement import Usage
from jaula.features.why.layers import CALL_GIVES_AWAY, Explanation, Layer
from jaula.features.why.profile import ALLOW
from jaula.features.why.refusal import Event, Exit, OutOfMemory, Signal
from jaula.spec.runtime_spec import Syscall

NOT_EXECUTABLE, NOT_FOUND = 126, 127
_FAULTS = {
    "SIGSEGV": "access to memory that it does not have",
    "SIGBUS": "access to a part of a mapped file or device that does not exist",
    "SIGILL": "an instruction that this processor does not have",
    "SIGFPE": "an arithmetic error",
    "SIGTRAP": "a breakpoint",
}


def size(number: int) -> str:
    """Return bytes for people."""
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number >= step:
            return f"{number / step:.4g} {unit}"
    return f"{number} B"


def out_of_memory(
    victims: Sequence[OutOfMemory], events: Sequence[Event], memory: Usage
) -> Explanation:
    """Return the explanation of OOM kills: victims, numbers, and the largest process."""
    exits = [event for event in events if isinstance(event, Exit)]
    largest = max(exits, key=lambda each: each.peak, default=None)
    names = ", ".join(f"{each.name} ({each.pid})" for each in victims)
    rule = f"limit {size(memory.limit)}" if memory.limit > 0 else "no limit: the host's memory"
    if memory.peak and (memory.hits or not victims):  # otherwise it is from before the OOM kill
        rule += f", peak {size(memory.peak)}"
    if names:
        rule += f"; victim {names}"
    if largest is not None:
        rule += f"; largest process {largest.name} ({largest.pid}) with {size(largest.peak)}"
    proof = ["oom:mark_victim"] if victims else []
    if memory.hits:  # 0: the cgroup was removed before the number was read
        proof.append(f"{memory.hits} OOM kills in the cgroup's memory.events")
    return Explanation(
        layer=Layer.MEMORY_LIMIT,
        rule=rule,
        proof=", and ".join(proof) or "the end of the container",
        flag=f"--memory {_next(memory)}",
        gives_away="memory of the host, up to that value",
    )


def _next(memory: Usage) -> str:
    return f"{max(1, memory.limit * 2 >> 20)}m" if memory.limit > 0 else "SIZE"


def ended_by(signal_: Signal) -> Explanation:
    """Return the explanation of a fatal signal."""
    sender = f"{signal_.sender} ({signal_.sender_pid})"
    if signal_.signal == "SIGSYS":
        return Explanation(
            layer=Layer.SECCOMP,
            rule=f"the profile ends a process that calls {signal_.syscall}",
            proof=f"signal_generate: SIGSYS of the filter in {signal_.syscall}",
            flag=f"--security-opt seccomp=FILE, a profile that allows {signal_.syscall} too",
            gives_away=CALL_GIVES_AWAY.get(signal_.syscall, f"the code behind {signal_.syscall}"),
            profile_rule=Syscall((signal_.syscall,), ALLOW),
        )
    if signal_.signal in ("SIGXCPU", "SIGXFSZ"):
        name = "cpu" if signal_.signal == "SIGXCPU" else "fsize"
        return Explanation(
            layer=Layer.RLIMIT,
            rule=f"RLIMIT_{name.upper()} is reached",
            proof=f"signal_generate: {signal_.signal} of the kernel",
            flag=f"--ulimit {name}=N",
            gives_away="processor time" if name == "cpu" else "disk space: larger files",
        )
    if signal_.kernel and signal_.signal in _FAULTS:
        return Explanation(
            layer=Layer.PROGRAM,
            rule=f"{_FAULTS[signal_.signal]}: a bug of the program, no layer of the container",
            proof=f"signal_generate: {signal_.signal} of the kernel, code {signal_.code}",
            advice="--ulimit core=-1 writes a core dump where the host's kernel.core_pattern says",
        )
    if signal_.kernel:
        return Explanation(
            layer=Layer.SIGNAL,
            rule="the kernel ended it with the container's first process or with its cgroup",
            proof=f"signal_generate: {signal_.signal} of the kernel",
            harmless=signal_.signal == "SIGKILL",
        )
    if signal_.inside:
        own = signal_.sender_pid == signal_.pid
        return Explanation(
            layer=Layer.SIGNAL,
            rule="the program sent it to itself (abort)"
            if own
            else f"{sender}, a process of the container, sent it",
            proof=f"signal_generate: {signal_.signal} from pid {signal_.sender_pid} of the host",
        )
    return Explanation(
        layer=Layer.SIGNAL,
        rule=f"{sender}, a process of the host, sent it"
        + (" (jaula stop or kill, or the engine)" if signal_.sender.startswith("jaula") else ""),
        proof=f"signal_generate: {signal_.signal} from pid {signal_.sender_pid} of the host",
    )


def status_text(code: int) -> str:
    """Return an exit code in words."""
    if code > 128 and code - 128 <= 64:
        try:
            return f"{code}: ended by {signal.Signals(code - 128).name}"
        except ValueError:
            return f"{code}: ended by signal {code - 128}"
    words = {125: "the engine refused", NOT_EXECUTABLE: "the program cannot be executed",
             NOT_FOUND: "the program was not found"}  # fmt: skip
    return f"{code}: {words[code]}" if code in words else str(code)


def is_refused(code: int) -> bool:
    """Return whether an exit code hints at a refusal: a signal, 125 to 127."""
    return code in (125, NOT_EXECUTABLE, NOT_FOUND) or (
        code > 128 and code - 128 in (signal.SIGSYS, signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS)
    )


def signal_of(status: int) -> int:
    """Return the signal of a wait status, 0 for a normal exit."""
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def exit_signal(code: int) -> Explanation | None:
    """Return what an exit code above 128 says; None for another code."""
    number = code - 128
    if not 0 < number <= 64:
        return None
    try:
        name = signal.Signals(number).name
    except ValueError:
        return None
    proof = f"the exit status is 128 + {number}"
    if name == "SIGSYS":
        return Explanation(
            layer=Layer.SECCOMP,
            rule="the profile ends a process that makes a call it does not allow",
            proof=proof,
            advice="jaula run --why names the call",
        )
    if name in _FAULTS:
        return Explanation(
            layer=Layer.PROGRAM,
            rule=f"{_FAULTS[name]}: a bug of the program, no layer of the container",
            proof=proof,
        )
    if name == "SIGKILL":
        return Explanation(
            layer=Layer.SIGNAL,
            rule="jaula kill or stop, another process, or the host's OOM killer; the container's "
            "memory limit was not the reason",
            proof=f"{proof}, and State.OOMKilled is false",
            advice="jaula events shows kill and stop; jaula run --why names the sender",
        )
    return Explanation(
        layer=Layer.SIGNAL,
        rule=f"a process sent {name}, such as jaula stop",
        proof=proof,
        advice="jaula events shows kill and stop",
    )
