"""The names that hugetlb's files give to page sizes: ``64KB``, ``2MB``, ``1GB``."""

from __future__ import annotations

from jaula.errors import InvalidRequest


def checked(page_size: str) -> str:
    """``page_size`` itself; raises ``InvalidRequest`` where it is not a number and a unit."""
    if page_size[-2:] in ("KB", "MB", "GB") and page_size[:-2].isdecimal() and page_size.isascii():
        return page_size
    raise InvalidRequest(f"bad huge page size {page_size!r}", hint="for example 2MB")
