"""An engine that is killed at a chosen step of a rollback.

    python rollback_faults.py FAULT daemon [FLAG...]

FAULT is a file. While it has a number, the engine kills itself when a rollback has made so many
steps. A step is a change of a directory (mkdir, rename, rmdir), a write of a record, or a call of a
method of the rollback. At the end of a rollback its number of steps is written to FAULT.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FAULT = Path(sys.argv[1]) if __name__ == "__main__" else Path()


class _Steps:
    active = False
    count = 0
    last = 0


def _step() -> None:
    if not _Steps.active:
        return
    _Steps.count += 1
    if _Steps.count == _Steps.last:
        os.kill(os.getpid(), signal.SIGKILL)


def _counted(owner: Any, name: str) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(original)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        _step()
        return original(*args, **kwargs)

    setattr(owner, name, replaced)


def replace_all() -> None:
    from jaula.engine.containers.rollback import Rollbacks
    from jaula.engine.model.container_store import ContainerStore

    for name in ("mkdir", "rename", "rmdir"):
        _counted(os, name)
    _counted(ContainerStore, "save")
    for name in ("_complete", "_continue", "_check_users"):
        _counted(Rollbacks, name)
    original = Rollbacks.rollback

    async def rollback(self: Any, *args: Any) -> None:
        _Steps.active, _Steps.count = True, 0
        _Steps.last = int(FAULT.read_text()) if FAULT.exists() else 0
        try:
            await original(self, *args)
        finally:
            _Steps.active = False
        FAULT.write_text(str(_Steps.count))

    Rollbacks.rollback = rollback  # type: ignore[method-assign]


if __name__ == "__main__":
    del sys.path[0], sys.argv[1]
    replace_all()
    from jaula.cli.main import run_and_exit

    run_and_exit()
