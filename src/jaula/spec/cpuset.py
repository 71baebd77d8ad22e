"""Lists of CPUs such as ``0-3,7``: cpuset(7), "List format". Pure.

CPU numbers are bounded by what a kernel can be built for, so that a short text makes no large set.
"""

from __future__ import annotations

from jaula.errors import InvalidRequest

MOST = 8192  # the largest CONFIG_NR_CPUS of the kernel's x86 and arm64 ports
_DIGITS = frozenset("0123456789")


def parse(text: str, *, field: str = "list of cpus") -> set[int]:
    """The numbers in a list; raises ``InvalidRequest`` that starts with ``field``."""
    found: set[int] = set()
    for part in text.split(","):
        part = part.strip()
        first, dash, last = part.partition("-")
        low = _number(first, text, field)
        high = _number(last, text, field) if dash else low
        if low > high:
            raise InvalidRequest(f"{field}: range {part!r} runs backwards")
        found.update(range(low, high + 1))
    return found


def _number(text: str, whole: str, field: str) -> int:
    if not text or len(text) > 8 or not set(text) <= _DIGITS:
        raise InvalidRequest(f"{field}: {whole[:128]!r} is not a list of cpus such as 0-3,7")
    number = int(text)
    if number >= MOST:
        raise InvalidRequest(f"{field}: cpu {number} is not below {MOST}")
    return number
