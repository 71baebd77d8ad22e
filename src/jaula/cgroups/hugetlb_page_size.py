"""The names that hugetlb's files give to page sizes: ``64KB``, ``2MB``, ``1GB``."""

from __future__ import annotations

import os

from jaula.errors import InvalidRequest


def validate(page_size: str) -> str:
    """``page_size`` itself; raises ``InvalidRequest`` where it is not a number and a unit."""
    if page_size[-2:] in ("KB", "MB", "GB") and page_size[:-2].isdecimal() and page_size.isascii():
        return page_size
    raise InvalidRequest(f"bad huge page size {page_size!r}", hint="for example 2MB")


def host_sizes() -> tuple[str, ...]:
    """The sizes that this kernel has, smallest first; () where it has no huge pages."""
    try:
        names = os.listdir("/sys/kernel/mm/hugepages")
    except FileNotFoundError:
        return ()
    sizes = sorted(int(name.removeprefix("hugepages-").removesuffix("kB")) for name in names)
    return tuple(format_size(size) for size in sizes)


def format_size(kib: int) -> str:
    """A size in KiB by its name: 64 is ``64KB``, 2048 is ``2MB``."""
    for unit, amount in (("GB", 1 << 20), ("MB", 1 << 10)):
        if kib >= amount:
            return f"{kib // amount}{unit}"
    return f"{kib}KB"
