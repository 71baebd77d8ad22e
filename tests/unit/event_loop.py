"""Control of the event loop: tests use it instead of a sleep."""

from __future__ import annotations

import asyncio

_QUIET_TURNS = 3  # of the loop: what one turn writes, a later one finds readable


async def idle() -> None:
    """Run the loop until it waits for a timer, a descriptor or a thread.

    Every immediate callback has run by then. So a test can assert that something did not happen.
    """
    loop = asyncio.get_running_loop()
    quiet = 0
    while quiet < _QUIET_TURNS:
        await asyncio.sleep(0)
        quiet = 0 if loop._ready else quiet + 1  # type: ignore[attr-defined]
