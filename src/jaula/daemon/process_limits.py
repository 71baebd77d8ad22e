"""Process limits of the engine: open files, and memory use of the C library's heap."""

from __future__ import annotations

import contextlib

_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3  # malloc.h
_MAPPED = 512 * 1024  # bytes of an allocation that has a mapping of its own


NEEDED_FILES = 20_000
"""Open files of an engine that runs 4,000 containers and serves as many clients as it accepts.

A container has up to 4: its shim, its engine socket, and listeners of published ports. A client (of
1,024) and a transfer (of 512) have up to 2. An idle engine has 100.
"""


def raise_file_limit() -> None:
    """Raise the limit of open files to what the engine needs, or as far as the kernel permits.

    Limits of containers are in their specs and do not change.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < NEEDED_FILES:
        with contextlib.suppress(ValueError, OSError):  # file_limit_warnings reports it
            resource.setrlimit(resource.RLIMIT_NOFILE, (NEEDED_FILES, NEEDED_FILES))
            return
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def file_limit_warnings() -> tuple[str, ...]:
    """Return the warning of ``info`` if the limit of open files is less than the engine needs."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= NEEDED_FILES:
        return ()
    warning = (
        f"the engine may open {soft} files, and needs {NEEDED_FILES} for many containers and"
        f" clients: set LimitNOFILE={NEEDED_FILES} in its unit, or raise fs.nr_open"
    )
    return (warning,)


def trim_heap() -> None:
    """Release memory that only the start needed (malloc_trim(3)); not all C libraries have it."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def set_heap_options() -> None:
    """Set up the heap of the C library (mallopt(3)) for a process that runs for months.

    All threads share one heap (``M_ARENA_MAX``): they are few, and an arena of each costs
    megabytes. Buffers of transfers have mappings of their own (``M_MMAP_THRESHOLD``). Otherwise the
    library raises the threshold at the first one that is freed, and small objects that live long
    take the place of the next ones, so that the heap grows.
    """
    import ctypes

    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_ARENA_MAX, 1)
        set_option(_M_MMAP_THRESHOLD, _MAPPED)
