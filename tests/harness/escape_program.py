"""Run a table of system calls in a container with the program of ``verify --probe``."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.engine import PrivateEngine
from jaula.features.verify.escape.program import BEGIN, Answer, Entry, build, read


def answers(
    engine: PrivateEngine, image: str, calls: Mapping[str, Sequence[Entry]], flags: Sequence[str]
) -> dict[str, tuple[Answer, tuple[Answer, ...]]]:
    """Return, by name, the status of the calling process and the result of each call."""
    entries = [entry for steps in calls.values() for entry in (Entry(BEGIN), *steps)]
    with tempfile.TemporaryDirectory(prefix="jltp", dir="/run") as directory:
        Path(directory).chmod(0o755)
        program = Path(directory, "probe")
        program.write_bytes(build(entries))
        program.chmod(0o755)
        bind = ("-v", f"{program}:/probe:ro")
        done = engine.cli("jaula", "run", "--rm", *bind, *flags, image, "/probe")
    assert done.returncode == 0, done.stderr + engine.log_tail()
    result = iter(read(done.stdout, len(entries)))
    return {
        name: (next(result), tuple(next(result) for _ in steps)) for name, steps in calls.items()
    }


def last(answer: tuple[Answer, tuple[Answer, ...]]) -> int:
    """Return the result of the last call; minus the signal number less 10000 after a signal."""
    status, steps = answer
    assert status.reached
    if status.value & 0x7F:
        return -10000 - (status.value & 0x7F)
    return steps[-1].value
