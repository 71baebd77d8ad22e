"""Work that is not left half-done: whoever is cancelled meanwhile waits for its end first."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

Result = TypeVar("Result")
Given = ParamSpec("Given")


async def whole(work: Coroutine[Any, Any, Result]) -> Result:
    """Do ``work`` to its end; where the caller is cancelled, it learns of that afterwards."""
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((running,))
        if not running.cancelled():
            running.exception()  # looked at: the cancellation is what is told
        raise


async def in_thread(
    work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs
) -> Result:
    """Do ``work`` in a thread."""
    return await whole(asyncio.to_thread(work, *args, **kwargs))
