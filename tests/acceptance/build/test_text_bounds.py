"""Dockerfiles whose work grows faster than their bytes, and the event loop meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.builds import build
from harness.engine import PrivateEngine

TICKS = os.sysconf("SC_CLK_TCK")
PATTERN = "a?" * 2000 + "b"
HOSTILE = {
    "ports of many instructions": (
        "FROM scratch\n" + "EXPOSE 1-65535/tcp 1-65535/udp 1-65535/sctp\n" * 100,
        "EXPOSE instructions of the build have more than 196605 ports",
    ),
    "a long pattern for a long value": (
        "FROM scratch\nARG A=" + "a" * 100_000 + "\n" + ("ARG B=${A//" + PATTERN + "/}\n") * 20,
        "too many patterns for values of this length",
    ),
    "many patterns": (
        "FROM scratch\nARG A=" + "a" * 100_000 + "\n" + "LABEL b=${A//x/}\n" * 2000,
        "too many patterns for values of this length",
    ),
    "a value that doubles": (
        "FROM scratch\nARG A=0123456789abcdef\n" + "ARG A=${A}${A}\n" * 100,
        "A and its value are longer than 131071 bytes",
    ),
    "a global value that doubles": (
        "ARG A=0123456789abcdef\n" + "ARG A=${A}${A}\n" * 100 + "FROM scratch\nLABEL a=b\n",
        "the result is longer than 8388608 characters",
    ),
}
SLOW = {
    "many long results": (
        "FROM scratch\nARG A=" + "a" * 130_000 + "\n" + ("LABEL b=" + "${A}" * 60 + "\n") * 30,
        "the expanded instructions of the build are longer than 33554432 characters",
    ),
    "many variables": (
        "FROM scratch\n" + "".join(f"ENV V{n}=1\n" for n in range(9_990)),
        "too many steps for a configuration of this size",
    ),
    "many ports and many steps": (
        "FROM scratch\nEXPOSE 1-65535/tcp 1-65535/udp\n" + "USER a\nUSER b\n" * 300,
        "too many steps for a configuration of this size",
    ),
}


def _loop_seconds(engine: PrivateEngine) -> float:
    """Return the processor time of the engine's first thread, which runs the event loop."""
    assert engine.process is not None
    pid = engine.process.pid
    stat = Path(f"/proc/{pid}/task/{pid}/stat").read_text(encoding="ascii")
    fields = stat.rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@pytest.mark.parametrize(
    "name", [*HOSTILE, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_the_text_of_a_build_is_bounded_and_not_read_on_the_event_loop(
    engine: PrivateEngine, name: str
) -> None:
    text, reason = (HOSTILE | SLOW)[name]
    before = _loop_seconds(engine)
    built = build(engine, {"Dockerfile": text})
    spent = _loop_seconds(engine) - before
    assert reason in built.error, built.text[-2000:] + built.error
    steps = built.text.count("Step ")
    assert spent < 0.5 + 0.002 * steps


def test_a_large_but_plain_build_works(engine: PrivateEngine) -> None:
    lines = ["FROM scratch", "EXPOSE 10000-20000/udp"]
    lines += [f"ENV V{n}=${{V{n - 1}:-0}}{n}" for n in range(20)]
    lines += [f"LABEL l{n}=${{V19//1/2}}" for n in range(20)]
    built = build(engine, {"Dockerfile": "\n".join(lines)}, nocache=1)
    assert not built.error, built.error
    engine.cli("jaula", "rmi", "-f", built.image)
