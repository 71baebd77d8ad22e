"""Kill a process at each of its system calls, once: for an operation and a role, every point.

The number of points comes from a run that kills none. A point is reproducible by its name:
``start/helper/17`` kills the helper of a start at its system call of number 17.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chaos import roles
from chaos.operations import OPERATIONS as CONTAINER_OPERATIONS
from chaos.operations import Operation
from chaos.pod_operations import POD_OPERATIONS
from chaos.target import LIMIT, Fault, Gone, Target
from harness.engine import PROJECT

OPERATIONS: dict[str, type[Operation]] = {**CONTAINER_OPERATIONS, **POD_OPERATIONS}


@dataclass(frozen=True)
class Result:
    """One point: ``fault`` is None if all invariants hold."""

    point: str
    call: str  # at which the process was killed, '' if it made fewer
    calls: tuple[str, ...]
    fault: str | None


class Tracer:
    """A tracer in a process of its own: waiting for tracees would reap the engine."""

    def __init__(self, target: Target, role: str, step: str) -> None:
        assert target.engine.process is not None
        targets = [f"engine:{target.engine.process.pid}", f"zygote:{roles.zygote(target.engine)}"]
        targets += [
            f"{in_start}:{p.pid}"
            for p in roles.processes(target.engine)
            if (in_start := roles.role_in_start(p))
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chaos.tracer", role, step, *targets],
            stdout=subprocess.PIPE,
            cwd=PROJECT / "tests",
            env={**os.environ, "PYTHONPATH": f"{PROJECT / 'src'}:{PROJECT / 'tests'}"},
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            self._process.wait()
            raise RuntimeError("the tracer cannot attach")

    def end(self) -> dict[str, Any]:
        """Detach; return what was counted."""
        assert self._process.stdout is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        with self._process.stdout as output:
            text = output.read()
        self._process.wait(LIMIT)
        document: dict[str, Any] = json.loads(text)
        return document


def run_point(target: Target, operation: str, role: str, step: str) -> Result:
    """Perform the operation, kill the role at the step, and check every invariant."""
    work: Operation = OPERATIONS[operation](target)
    point = f"{operation}/{role}/{step}"
    work.prepare()
    time.sleep(0.02)  # what the preparation has made still finishes
    tracer = Tracer(target, role, step)
    error: list[BaseException] = []

    def perform() -> None:
        try:
            work.answer = work.perform()
        except Exception as failure:  # noqa: BLE001 - judged below
            error.append(failure)

    client = threading.Thread(target=perform, daemon=True)
    client.start()
    client.join(target.limit + 5)
    if not client.is_alive():
        time.sleep(0.05)  # what follows the answer is counted too
    counted = tracer.end()
    result = (point, counted["last"], tuple(counted["calls"]))
    try:
        if client.is_alive():
            raise Fault(f"no answer in {target.limit:.0f} s")
        if counted["killed"]:
            work.killed = role
        if error and not isinstance(error[0], Gone):
            raise Fault(f"no answer: {error[0]!r}")
        if counted["killed"] and role in ("engine", "zygote"):
            if role == "zygote":  # the engine ends with it
                target.until(lambda: not target.alive(), "the engine ends without its zygote")
            target.restart()
        elif error:
            raise Fault(f"the connection broke, and the engine was not killed: {error[0]!r}")
        if not target.alive():
            raise Fault(f"the engine has ended: {target.engine.log_tail()}")
        work.verify()
        work.clean_up()
        target.nothing_left()
    except (Fault, *Gone, OSError) as fault:
        return Result(*result, str(fault) or repr(fault))
    return Result(*result, None)


def sweep(
    target: Target, operation: str, chosen: tuple[str, ...], every: int, first: int
) -> Iterator[Result]:
    """Yield the result of every ``every``-th point from ``first`` on, for each chosen role."""
    for role in chosen:
        counted = run_point(target, operation, role, "0")
        yield counted
        if counted.fault:
            target.reset()
        for step in range(first, len(counted.calls) + 1, every):
            result = run_point(target, operation, role, str(step))
            yield result
            if result.fault:
                target.reset()
