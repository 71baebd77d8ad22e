"""Pairs of SELinux categories (MCS). Each container has a unique pair.

Follows the multi-category policy of selinux(8): 1024 categories, c0 to c1023, give 523776 pairs. A
process may access a file only if it has all categories of the file. With two categories each, no
container has all categories of another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from jaula.errors import Unavailable

CATEGORIES = 1024
_ATTEMPTS = 64  # random pairs to try before a linear search


def level(low: int, high: int) -> str:
    """Return the level of a pair, in the kernel's notation."""
    return f"s0:c{low},c{high}"


def pair(text: str) -> tuple[int, int] | None:
    """Return the two categories of a level, lower first. Return None for any other level."""
    sensitivity, colon, rest = text.partition(":")
    first, comma, second = rest.partition(",")
    if sensitivity != "s0" or not colon or not comma:
        return None
    numbers = []
    for category in (first, second):
        digits = category.removeprefix("c")
        if digits == category or not digits.isascii() or not digits.isdigit():
            return None
        numbers.append(int(digits))
    low, high = sorted(numbers)
    return (low, high) if low != high and high < CATEGORIES else None


def choose(
    used: Collection[tuple[int, int]],
    *,
    count: int = CATEGORIES,
    random_below: Callable[[int], int] | None = None,
) -> tuple[int, int]:
    """Return a random pair that is not in ``used``.

    It is random, so that the next container cannot access the files of a removed one (a volume with
    ``Z``). ``random_below`` returns a random number below its argument.

    :raises Unavailable: when every pair is in use.
    """
    import random

    below = random_below or random.SystemRandom().randrange
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
        hint="remove unused containers, or set a level for this one with"
        " --security-opt label=level:LEVEL",
    )
