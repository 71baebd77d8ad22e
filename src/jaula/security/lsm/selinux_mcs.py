"""Pairs of SELinux categories: one for each container, shared by no two that exist.

Follows the multi-category policy of selinux(8): 1024 categories, c0 to c1023, so 523776 pairs of
two different ones. A process may touch a file only if it has all of the file's categories; with two
each, a container never has all of another's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection

from jaula.errors import Unavailable

CATEGORIES = 1024
_ATTEMPTS = 64  # random ones, before the rest is searched


def level(low: int, high: int) -> str:
    """As the kernel writes it."""
    return f"s0:c{low},c{high}"


def pair(text: str) -> tuple[int, int] | None:
    """The two categories of a level, lower first; None for any other level."""
    sensitivity, colon, rest = text.partition(":")
    first, comma, second = rest.partition(",")
    if sensitivity != "s0" or not colon or not comma:
        return None
    numbers = []
    for word in (first, second):
        digits = word.removeprefix("c")
        if digits == word or not digits.isascii() or not digits.isdigit():
            return None
        numbers.append(int(digits))
    low, high = sorted(numbers)
    return (low, high) if low != high and high < CATEGORIES else None


def choose(
    used: Collection[tuple[int, int]],
    *,
    count: int = CATEGORIES,
    number: Callable[[int], int] | None = None,
) -> tuple[int, int]:
    """A pair that is not in ``used``, at random.

    At random, so that what a removed container left labelled (a volume with ``Z``) is not opened by
    the next one. ``number`` gives a random number below its argument. Raises ``Unavailable`` when
    every pair is in use.
    """
    below = number or random.SystemRandom().randrange
    for _ in range(_ATTEMPTS):
        low, high = below(count), below(count)
        if low != high and (min(low, high), max(low, high)) not in used:
            return min(low, high), max(low, high)
    for low in range(count):
        for high in range(low + 1, count):
            if (low, high) not in used:
                return low, high
    raise Unavailable(
        f"all {count * (count - 1) // 2} pairs of SELinux categories are in use",
        hint="remove containers that are not needed, or give this one a level of its own with"
        " --security-opt label=level:LEVEL",
    )
