"""Lists of CPUs and memory nodes, ``0-3,8``. Pure.

Source: cpuset(7) "List format".
"""

from __future__ import annotations

from jaula.errors import InvalidRequest

_HIGHEST = 8191  # NR_CPUS of the largest builds


def parse(text: str) -> tuple[int, ...]:
    """The numbers, in order; () for an empty list. Raises ``InvalidRequest``."""
    found: set[int] = set()
    for part in text.strip().split(","):
        if not part.strip():
            continue
        first, dash, last = part.strip().partition("-")
        numbers = (first, last if dash else first)
        if not all(number.isascii() and number.isdigit() for number in numbers):
            raise InvalidRequest(f"bad list of CPUs or memory nodes {text!r}", hint="as 0-3,8")
        low, high = int(numbers[0]), int(numbers[1])
        if low > high or high > _HIGHEST:
            raise InvalidRequest(f"bad range {part.strip()!r} in {text!r}")
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def bits(text: str) -> bytes:
    """The numbers as a bit mask, lowest byte first, as systemd's properties have them."""
    mask = sum(1 << number for number in parse(text))
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")
