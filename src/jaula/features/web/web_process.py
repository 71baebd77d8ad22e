"""The web view as a child of the engine: ``jaula daemon --web``.

The child has a pipe from the engine as its standard input, and ends when that does. So it also ends
when the engine is killed. If it ends by itself, it is started again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING

import jaula
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from jaula.engine.hooks import EngineStart

_FIRST_DELAY, _MAX_DELAY = 1.0, 60.0  # seconds until the child is started again
_SETTLED = 60.0  # seconds after which the delay is the first one again
_END_SECONDS = 5.0  # for the child to end

_log = logging.getLogger("jaula.features.web")


async def start(engine: EngineStart) -> WebProcess:
    """Start the web view; its process loads its packages, the engine none."""
    config = engine.engine.services.config
    process = WebProcess(str(config.socket), config.web)
    process.start()
    return process


class WebProcess:
    """The child for one engine. ``socket`` is that of the engine, ``listen`` ADDRESS:PORT."""

    def __init__(self, socket: str, listen: str) -> None:
        main = os.path.join(os.path.dirname(os.path.abspath(jaula.__file__)), "__main__.py")
        self._command = (
            *(sys.executable, "-I", "-S", "-X", "utf8", main, "--host", f"unix://{socket}"),
            *("web", "--listen", listen, "--until-stdin-ends"),
        )
        self._tasks = BackgroundTasks(_log, "the web view")
        self._process: asyncio.subprocess.Process | None = None
        self._closing = asyncio.Event()

    def start(self) -> None:
        """Start the child; the event loop must run."""
        self._tasks.spawn(self._run())

    async def _run(self) -> None:
        loop, delay = asyncio.get_running_loop(), _FIRST_DELAY
        while not self._closing.is_set():
            begun = loop.time()
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.PIPE
            )
            status = await self._process.wait()
            if self._closing.is_set():
                return
            if loop.time() - begun > _SETTLED:
                delay = _FIRST_DELAY
            _log.error("the web view ended with status %d; again in %.0f seconds", status, delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _MAX_DELAY)

    async def close(self) -> None:
        """End the child and wait for it."""
        self._closing.set()
        process = self._process
        if process is not None and process.stdin is not None:
            process.stdin.close()
            try:
                async with asyncio.timeout(_END_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        self._tasks.cancel()
