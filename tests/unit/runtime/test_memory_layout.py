"""Layout of memory: copies of code are adjacent and equal, and pools have no free place."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import CodeType

import pytest

from jaula.runtime import memory_layout


@pytest.fixture(scope="module", autouse=True)
def listed_objects() -> Iterator[None]:
    """Let the collector list the objects of the collection, as those of a zygote."""
    gc.unfreeze()
    yield
    gc.freeze()


def outer(number: int, *, factor: int = 2) -> int:
    def inner(value: int) -> int:
        return value * factor

    return sum(inner(each) for each in range(number))


def not_called() -> None:
    """Have code that is not executed."""


class Point:
    """A class with an attribute."""

    def __init__(self) -> None:
        self.x = 1


def test_the_code_of_called_functions_is_listed_in_the_order_of_calls() -> None:
    first = outer.__code__
    executed = memory_layout.executed_code(lambda: (outer(3), Point()))
    names = [code.co_name for code in executed]
    assert first in executed
    assert names.index("outer") < names.index("inner") < names.index("__init__")
    assert not_called.__code__ not in executed
    assert sys.getprofile() is None


def test_a_function_works_as_before_with_its_copy() -> None:
    code, inner = outer.__code__, nested(outer.__code__)
    assert memory_layout.move_together([code]) == 1
    assert outer.__code__ is not code
    assert outer.__code__ == code
    assert nested(outer.__code__) is not inner  # a closure gets the copy too
    assert outer(4, factor=3) == 18


def nested(code: CodeType) -> CodeType:
    return next(each for each in code.co_consts if isinstance(each, CodeType))


def test_code_without_a_function_is_left() -> None:
    assert memory_layout.move_together([compile("1", "file", "exec")]) == 0


def test_new_objects_are_together_when_pools_are_full() -> None:
    def new(number: int) -> list[bytes]:
        return [bytes(range(150, 250)) * 2 for _ in range(number)]

    def pools(objects: list[bytes]) -> int:
        return len({id(each) // memory_layout._POOL for each in objects})

    present = new(4000)
    del present[::20]  # leaves a few free places in each pool
    scattered = new(100)
    assert pools(scattered) > 10
    del scattered
    fillers = memory_layout.fill_pools()
    assert pools(new(50)) <= 4
    assert sum(map(sys.getsizeof, fillers)) < 8 << 20


def test_classes_are_complete_and_have_no_more_instances() -> None:
    before = len([each for each in gc.get_objects() if isinstance(each, Point)])
    memory_layout.complete_classes()
    assert len([each for each in gc.get_objects() if isinstance(each, Point)]) == before
