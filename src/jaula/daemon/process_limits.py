"""Process limits of the engine: open files, and memory use of the C library's heap."""

from __future__ import annotations

_M_ARENA_MAX = -8  # malloc.h


def raise_file_limit() -> None:
    """Raise the limit of open files: each client and each running container needs one.

    Limits of containers are in their specs and do not change.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def trim_heap() -> None:
    """Release memory that only the start needed (malloc_trim(3)); not all C libraries have it."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def use_one_arena() -> None:
    """Share one heap between all threads: they are few, and an arena of each costs megabytes.

    mallopt(3), ``M_ARENA_MAX``.
    """
    import ctypes

    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_ARENA_MAX, 1)
