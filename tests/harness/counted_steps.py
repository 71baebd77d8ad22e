"""Steps of an engine's work: the engine kills itself at one of them.

    python SCRIPT FAULT daemon [FLAG...]

FAULT is a file. While it has a number, the engine kills itself when the work has made so many
steps. At the end of the work its number of steps is written to FAULT.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class CountedSteps:
    """The steps of one kind of work in this process."""

    def __init__(self, fault: Path) -> None:
        self._fault = fault
        self._active = False
        self._count = self._last = 0

    def _step(self) -> None:
        if not self._active:
            return
        self._count += 1
        if self._count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def count(self, owner: Any, name: str, *, ends: bool = False) -> None:
        """Make each call of a function or coroutine a step, with ``ends`` also its return."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def replaced(*args: Any, **kwargs: Any) -> Any:
            self._step()
            result = original(*args, **kwargs)
            if ends:
                self._step()
            return result

        @functools.wraps(original)
        async def replaced_coroutine(*args: Any, **kwargs: Any) -> Any:
            self._step()
            result = await original(*args, **kwargs)
            if ends:
                self._step()
            return result

        is_coroutine = inspect.iscoroutinefunction(original)
        setattr(owner, name, replaced_coroutine if is_coroutine else replaced)

    def during(self, owner: Any, name: str) -> None:
        """Count the steps during each call of a coroutine, which is the work."""
        original = getattr(owner, name)

        @functools.wraps(original)
        async def work(*args: Any, **kwargs: Any) -> Any:
            self._last = int(self._fault.read_text() or 0) if self._fault.exists() else 0
            self._active, self._count = True, 0
            try:
                return await original(*args, **kwargs)
            finally:
                self._active = False
                self._fault.write_text(str(self._count))

        setattr(owner, name, work)


def main(replace: Callable[[CountedSteps], None]) -> None:
    """Run the engine of the command line with the steps that ``replace`` counts."""
    fault = Path(sys.argv[1])
    del sys.path[0], sys.argv[1]
    replace(CountedSteps(fault))
    from jaula.cli.main import run_and_exit

    run_and_exit()
