"""Output of the docker command with two engines, masked and compared.

A scene is a list of related command lines. Ids, times, addresses and sizes of an engine are masked.
Everything else must be identical.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

SETTLE_TIMEOUT = 30.0  # seconds; a machine with other work is slow
Run = Callable[..., "subprocess.CompletedProcess[str]"]
Side = TypeVar("Side")

MASKS: tuple[tuple[str, str], ...] = (
    (r"sha256:[0-9a-f]{64}", "sha256:DIGEST"),
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{12}\b", "SHORT"),
    (r"\b\d{12}\b", "SHORT"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| ?[+-]\d\d:?\d\d( [A-Z]+)?)?", "TIME"),
    (r"\b(Less than a second|About a minute|\d+ (?:seconds?|minutes?|hours?|days?))\b", "SPAN"),
    (r"SPAN ago", "SPAN_AGO"),
    (r"\b(?:10|172)\.\d+\.\d+\.(\d+)\b(/\d+)?", "ADDRESS"),
    (r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", "MAC"),
    (r"\b\d+(?:\.\d+)?(?:e[+-]\d+)?([kMGT]i?)?B\b", "SIZE"),
    (r"\b\d+\.\d\d%", "PERCENT"),
)


@dataclass(frozen=True)
class Step:
    """One command line: the words after ``docker``, and its standard input.

    ``but`` are further masks, each with the reason for the difference.
    """

    words: tuple[str, ...]
    input: str | None = None
    columns: bool = False  # a table whose widths follow from masked values
    unordered: bool = False  # lines come in an order of the engine's own
    but: tuple[tuple[str, str, str], ...] = ()  # pattern, replacement, reason
    differs: str = ""  # why everything but the exit status may differ
    status: bool = True  # whether the exit status is the same
    until: str = ""  # the command is repeated until its output contains this text


@dataclass(frozen=True)
class Scene:
    name: str
    steps: tuple[Step, ...]
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """The masked result of one command line."""

    status: int
    out: str
    err: str


def masked(text: str, step: Step) -> str:
    for pattern, replacement in (*MASKS, *((p, r) for p, r, _ in step.but)):
        text = re.sub(pattern, replacement, text)
    if step.columns:
        text = "\n".join(re.sub(r"\s{2,}|\t", " | ", line).rstrip() for line in text.split("\n"))
    if step.unordered:
        text = "\n".join(sorted(text.split("\n")))
    return text


def _settled(
    run: Run, step: Step, words: Sequence[str], options: dict[str, Any]
) -> subprocess.CompletedProcess[str]:
    """Run the command line; repeat it until the output contains ``step.until``.

    :raises AssertionError: when it does not within :data:`SETTLE_TIMEOUT`.
    """
    deadline = time.monotonic() + SETTLE_TIMEOUT
    while True:
        done = run(*words, **options)
        if step.until in done.stdout:
            return done
        assert time.monotonic() < deadline, (
            f"no {step.until!r} in the output of {' '.join(words)}: {done.stdout}{done.stderr}"
        )
        time.sleep(0.2)


def both(ours: Callable[[], Side], theirs: Callable[[], Side]) -> tuple[Side, Side]:
    """Call both sides of a comparison at once: each waits for the engine of its own."""
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(ours), pool.submit(theirs)
        return first.result(), second.result()


def play(run: Run, scene: Scene, directory: Path, clean: Sequence[tuple[str, ...]]) -> list[Result]:
    """Return the result of every step on one engine; ``clean`` are command lines for the end.

    ``{here}`` in a step is the directory, ``{begin}`` the time when the scene began.
    """
    begin = f"{time.time():.9f}"
    for name, text in scene.files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    output = []
    try:
        for step in scene.steps:
            options: dict[str, Any] = {} if step.input is None else {"input": step.input}
            words = [
                word.replace("{here}", str(directory)).replace("{begin}", begin)
                for word in step.words
            ]
            done = _settled(run, step, words, options)
            here = (str(directory), "HERE")
            out, err = (masked(text.replace(*here), step) for text in (done.stdout, done.stderr))
            status = done.returncode if step.status else 0
            output.append(Result(status, *(("", "") if step.differs else (out, err))))
    finally:
        for words in clean:
            run(*(word.replace("{here}", str(directory)) for word in words))
    return output
