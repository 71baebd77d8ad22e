"""Huge page sizes in the names of hugetlb files: ``64KB``, ``2MB``, ``1GB``."""

from __future__ import annotations

import os

from jaula.errors import InvalidRequest


def validate(page_size: str) -> str:
    """Return ``page_size`` unchanged.

    :raises InvalidRequest: when it is not a number with a unit.
    """
    if page_size[-2:] in ("KB", "MB", "GB") and page_size[:-2].isdecimal() and page_size.isascii():
        return page_size
    raise InvalidRequest(f"bad huge page size {page_size!r}", hint="for example 2MB")


def host_sizes() -> tuple[str, ...]:
    """Return the page sizes of the kernel, smallest first; () without huge pages."""
    try:
        names = os.listdir("/sys/kernel/mm/hugepages")
    except FileNotFoundError:
        return ()
    sizes = sorted(int(name.removeprefix("hugepages-").removesuffix("kB")) for name in names)
    return tuple(format_size(size) for size in sizes)


def format_size(kib: int) -> str:
    """Format a size in KiB: 64 is ``64KB``, 2048 is ``2MB``."""
    for unit, amount in (("GB", 1 << 20), ("MB", 1 << 10)):
        if kib >= amount:
            return f"{kib // amount}{unit}"
    return f"{kib}KB"
