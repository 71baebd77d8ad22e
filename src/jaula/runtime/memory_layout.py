"""Layout of the zygote's memory: what each shim writes is on few pages.

Facts about code: the interpreter writes to the code that it executes, since it counts branches and
calls there (PEP 659). The code of a module is in the order of its source, among code that a shim
does not execute. A copy of all executed code is on adjacent pages.

Facts about the allocator of small objects (Objects/obmalloc.c): objects of one size share pools of
16 KiB, and a new object takes the first free place of any pool. After imports nearly every pool has
such places, so the few objects of a shim are on many pages. Where the places are taken, the next
objects begin new pools.

Facts about instances: a class predicts the number of attributes of its instances, and corrects that
with each of the first 30 (``SHARED_KEYS_MAX_SIZE``, Objects/dictobject.c).
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable
from types import CodeType, FrameType, FunctionType

_SIZES = range(48, 513, 16)  # bytes of small objects; a pool has objects of one size
_POOL = 16 * 1024  # bytes, at a multiple of its size
_POOL_HEADER = 48  # bytes
_MAX_FILLED = 128 * 1024  # bytes for each size
_INSTANCES = 30


def executed_code(action: Callable[[], object]) -> list[CodeType]:
    """Execute an action, and return the code that it called, in the order of the first calls."""
    executed: dict[CodeType, None] = {}

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            executed.setdefault(frame.f_code)

    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return list(executed)


def move_together(executed: list[CodeType]) -> int:
    """Let functions use copies of their code that are next to each other; return their number."""
    functions: dict[CodeType, list[FunctionType]] = {}
    for item in gc.get_objects():
        if isinstance(item, FunctionType):
            functions.setdefault(item.__code__, []).append(item)
    number = 0
    for code in executed:
        copy = _copy(code) if code in functions else code
        for function in functions.get(code, ()):
            function.__code__ = copy
            number += 1
    return number


def _copy(code: CodeType) -> CodeType:
    """Return a copy of code, with copies of the functions that are nested in it."""
    constants = (_copy(each) if isinstance(each, CodeType) else each for each in code.co_consts)
    return code.replace(co_consts=tuple(constants))


def complete_classes() -> None:
    """Create as many instances of each class of the project as change the class."""
    for item in gc.get_objects():
        if not isinstance(item, type) or not str(item.__module__).startswith("jaula."):
            continue
        constructor: object = item.__new__
        if constructor is object.__new__ and not hasattr(item, "__del__"):
            with contextlib.suppress(TypeError):  # abstract, or with a base that is written in C
                for _ in range(_INSTANCES):
                    object.__new__(item)


def fill_pools() -> list[object]:
    """Return objects that take the free places of all pools for small objects."""
    fillers: list[object] = []
    for size in _SIZES:
        capacity = (_POOL - _POOL_HEADER) // size
        pools: dict[int, list[object]] = {}
        for _ in range(_MAX_FILLED // size):
            filler = bytes(size - sys.getsizeof(b""))
            pool = pools.setdefault(id(filler) // _POOL, [])
            pool.append(filler)
            if len(pool) == capacity:  # a new one, which is free again afterwards
                pool.clear()
                break
        for pool in pools.values():
            fillers += pool
    return fillers
