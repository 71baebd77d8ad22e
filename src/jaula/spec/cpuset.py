"""Lists of CPUs and memory nodes such as ``0-3,7``: cpuset(7), "List format". Pure.

Numbers are bounded by what a kernel can be built for, so that a short text makes no large set.
"""

from __future__ import annotations

from collections.abc import Iterable

from jaula.errors import InvalidRequest

_MAX_TEXT = 64 * 1024  # characters; a list of every number has less
MOST = 8192  # the largest CONFIG_NR_CPUS of the kernel's x86 and arm64 ports; nodes are fewer


def parse(
    text: str, *, field: str = "list of cpus", empty_elements: bool = False
) -> frozenset[int]:
    """Return the numbers of a list; ``field`` starts the message of the error.

    ``empty_elements`` are skipped for the texts of the kernel and in resources, as the kernel's
    ``bitmap_parselist`` and runc's ``RangeToBits`` do. Then an empty list is one too.

    :raises InvalidRequest: the text is not such a list, or a number is too large.
    """
    if len(text) > _MAX_TEXT:
        raise InvalidRequest(f"{field}: {text[:128]!r}... is longer than {_MAX_TEXT} characters")
    bits = 0  # a set would make the time the product of the text's length and the largest number
    for element in text.split(","):
        element = element.strip()
        if not element and empty_elements:
            continue
        first, dash, last = element.partition("-")
        low = _number(first, text, field)
        high = _number(last, text, field) if dash else low
        if low > high:
            raise InvalidRequest(f"{field}: range {element!r} runs backwards")
        bits |= (1 << high + 1) - (1 << low)
    return frozenset(number for number in range(bits.bit_length()) if bits >> number & 1)


def _number(text: str, whole: str, field: str) -> int:
    if not 0 < len(text) <= 8 or not (text.isascii() and text.isdigit()):
        raise InvalidRequest(f"{field}: {whole[:128]!r} is not a list of cpus such as 0-3,7")
    number = int(text)
    if number >= MOST:
        raise InvalidRequest(f"{field}: cpu {number} is not below {MOST}")
    return number


def text_of(numbers: Iterable[int]) -> str:
    """Return numbers in the kernel's list format."""
    parts: list[str] = []
    ordered = sorted(numbers)
    start = 0
    for index, number in enumerate(ordered):
        if index + 1 < len(ordered) and ordered[index + 1] == number + 1:
            continue
        low = ordered[start]
        parts.append(str(low) if low == number else f"{low}-{number}")
        start = index + 1
    return ",".join(parts)


def bit_mask(numbers: Iterable[int]) -> bytes:
    """Return numbers as a bit mask, lowest byte first, as systemd's properties have them."""
    mask = sum(1 << number for number in numbers)
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")
