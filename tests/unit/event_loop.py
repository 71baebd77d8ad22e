"""Driving the event loop: what a test does instead of a pause."""

from __future__ import annotations

import asyncio

_QUIET_TURNS = 3  # of the loop: what one turn writes, a later one finds readable


async def idle() -> None:
    """Run the loop until it waits for a timer, a descriptor or a thread.

    What had to happen at once has then happened. So a test can show that something did not.
    """
    loop = asyncio.get_running_loop()
    quiet = 0
    while quiet < _QUIET_TURNS:
        await asyncio.sleep(0)
        quiet = 0 if loop._ready else quiet + 1  # type: ignore[attr-defined]
