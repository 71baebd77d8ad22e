"""Immortal objects (PEP 683): their use writes no reference count, so their pages stay shared.

Facts about a fork of the interpreter: each use of an object changes its reference count, and the
kernel copies a page that is written. An immortal object has a fixed count, which the interpreter
tests and never writes. CPython has them since 3.12; ``None`` is one. Its garbage collector expects
that an object becomes immortal at any time (``update_refs`` in Python/gc.c), but no function of
Python makes one.

Facts about the layout: an object begins with its reference count. Modules for the stable ABI of
3.11 change it there, and run with all later versions. The lower half of the count tells whether an
object is immortal (Include/refcount.h). The count of an immortal object is copied from ``None``,
and the layout is tested before an object is changed. If a test fails, as it does with 3.11, objects
stay as they are: then the processes use more memory, and nothing else differs.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from types import CodeType

_REFERENCES = 1000  # that a test adds and removes

_count_of = ctypes.c_uint32.from_address


class _Probe:
    """An object of the test."""


def make_all_immortal() -> int:
    """Make all present objects immortal, and return their number; 0 if that is not possible.

    Objects that the interpreter has made immortal are not in the number. The hash of a text is
    computed here, since its first use would write it to the object.
    """
    fixed = _fixed_count()
    if fixed is None:
        return 0
    pending = gc.get_objects()
    number = 0
    while pending:
        item = pending.pop()
        count = _count_of(id(item))
        if count.value == fixed:
            continue
        count.value = fixed
        number += 1
        if isinstance(item, str):
            hash(item)
        elif isinstance(item, CodeType):  # the collector does not know its references
            pending += item.co_consts
            pending += (item.co_consts, item.co_names, item.co_linetable, item.co_exceptiontable)
            pending += (item.co_filename, item.co_name, item.co_qualname)
        else:
            pending += gc.get_referents(item)
    return number


def _fixed_count() -> int | None:
    """Return the count of immortal objects; None without them, or if the layout is another."""
    fixed = sys.getrefcount(None)
    probe = _Probe()
    count, of_none = _count_of(id(probe)), _count_of(id(None))
    before = count.value
    references = [None, probe] * _REFERENCES
    if count.value - before != _REFERENCES or of_none.value != fixed:
        return None
    if sys.getrefcount(None) != fixed:
        return None
    count.value = fixed
    references.clear()
    return fixed if count.value == sys.getrefcount(probe) == fixed else None
