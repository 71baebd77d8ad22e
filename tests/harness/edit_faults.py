"""An engine that is killed at a chosen step of ``jaula edit``.

    python edit_faults.py FAULT daemon [FLAG...]

FAULT is a file. While it has a number, the engine kills itself when an edit has made so many steps.
A step is the begin or the end of a function of an edit: requests to the shim, changes of networks,
ports, limits and files, writes of the record. At the end of an edit its number of steps is written
to FAULT.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
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
    original = getattr(owner, name)

    @functools.wraps(original)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        _step()
        result = original(*args, **kwargs)
        _step()
        return result

    @functools.wraps(original)
    async def replaced_coroutine(*args: Any, **kwargs: Any) -> Any:
        _step()
        result = await original(*args, **kwargs)
        _step()
        return result

    is_coroutine = inspect.iscoroutinefunction(original)
    setattr(owner, name, replaced_coroutine if is_coroutine else replaced)


def replace_all() -> None:
    from jaula.engine.containers import edit
    from jaula.engine.containers.service import Containers
    from jaula.engine.networks.connect import NetworkConnector
    from jaula.network.port_mapper import PortMapper
    from jaula.runtime.client import Shim

    for owner, name in (
        (edit._Steps, "_save"),
        (edit, "_write"),
        (edit, "_apply"),
        (Shim, "change_mounts"),
        (NetworkConnector, "connect"),
        (NetworkConnector, "disconnect"),
        (NetworkConnector, "change_ports"),
        (PortMapper, "_add"),
        (PortMapper, "_withdraw"),
    ):
        _counted(owner, name)

    original = Containers.edit

    async def counted_edit(self: Any, *args: Any, **kwargs: Any) -> Any:
        _Steps.last = int(FAULT.read_text() or 0) if FAULT.exists() else 0
        _Steps.active, _Steps.count = True, 0
        try:
            return await original(self, *args, **kwargs)
        finally:
            _Steps.active = False
            if FAULT.exists():
                FAULT.write_text(str(_Steps.count))

    Containers.edit = counted_edit  # type: ignore[method-assign]


if __name__ == "__main__":
    del sys.path[0], sys.argv[1]
    replace_all()
    from jaula.cli.main import run_and_exit

    run_and_exit()
