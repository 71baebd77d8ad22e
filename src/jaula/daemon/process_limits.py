"""What the engine's process asks of the C library and the kernel: one heap, many descriptors."""

from __future__ import annotations

_M_ARENA_MAX = -8  # malloc.h


def raise_file_limit() -> None:
    """Open as many files as we may: a client or a running container costs the engine one.

    What containers may open is set in their specs and does not change with this.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def trim_heap() -> None:
    """Give back what the start needed for a moment (malloc_trim(3)); other C libraries lack it."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def use_one_arena() -> None:
    """Worker threads share the heap: they are few, and an arena of each costs megabytes.

    mallopt(3), ``M_ARENA_MAX``.
    """
    import ctypes

    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_ARENA_MAX, 1)
