"""Immortal objects: their reference count is fixed, and an unknown layout changes nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jaula.runtime import immortal

PROJECT = Path(__file__).resolve().parents[3]
HAS_IMMORTAL_OBJECTS = sys.version_info >= (3, 12)


def run(program: str) -> list[str]:
    """Run a program, whose objects become immortal, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nfrom jaula.runtime import immortal\n{program}"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(PROJECT / "src"), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


USES = """
class Thing:
    pass

def function(argument=(1.5, "a text that no name has")):
    return [argument, (2.5, 3.5), Thing]

thing = Thing()
values = (
    thing, Thing, function, function.__code__, function.__code__.co_consts,
    function.__defaults__, function.__defaults__[0][0], function.__defaults__[0][1],
)
def counts():
    return [sys.getrefcount(value) for value in values]

counts()
"""


@pytest.mark.skipif(not HAS_IMMORTAL_OBJECTS, reason="this Python has no immortal objects")
def test_the_use_of_present_objects_changes_no_count() -> None:
    output = run(
        USES
        + """
assert immortal.make_all_immortal() > 10_000
before = counts()
more = [values] + [each for each in values] * 100
del more
assert counts() == before == [sys.getrefcount(None)] * len(values)
print("same")
"""
    )
    assert output == ["same"]


@pytest.mark.skipif(not HAS_IMMORTAL_OBJECTS, reason="this Python has no immortal objects")
def test_later_objects_are_freed_and_the_collector_works() -> None:
    output = run(
        USES
        + """
import gc, weakref
immortal.make_all_immortal()
gc.collect()
gc.freeze()
single, circle = Thing(), Thing()
circle.itself = circle
freed = []
weakref.finalize(single, freed.append, "single")
weakref.finalize(circle, freed.append, "circle")
del single, circle
assert freed == ["single"]
gc.collect()
print(*freed)
"""
    )
    assert output == ["single", "circle"]


@pytest.mark.skipif(not HAS_IMMORTAL_OBJECTS, reason="this Python has no immortal objects")
def test_a_second_call_finds_only_the_objects_since_the_first() -> None:
    output = run(
        USES
        + """
first = immortal.make_all_immortal()
later = [Thing() for _ in range(100)]
second = immortal.make_all_immortal()
assert 100 <= second < first / 10, (first, second)
print("few")
"""
    )
    assert output == ["few"]


def test_an_unknown_layout_changes_nothing() -> None:
    output = run(
        """
import ctypes
immortal._count_of = lambda address: ctypes.c_uint32.from_address(address + 8)
value = object()
before = sys.getrefcount(value)
assert immortal.make_all_immortal() == 0
assert sys.getrefcount(value) == before
print("unchanged")
"""
    )
    assert output == ["unchanged"]


@pytest.mark.skipif(HAS_IMMORTAL_OBJECTS, reason="this Python has immortal objects")
def test_an_interpreter_without_them_changes_nothing() -> None:
    assert immortal.make_all_immortal() == 0
