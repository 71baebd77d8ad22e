"""The end of a command that exceeds its time."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.engine.containers import exec_session
from jaula.features.kubernetes.pods.exec_sync import exec_sync


class Execs:
    """One command that exits some time after it was killed."""

    def __init__(self) -> None:
        self.finished: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.output = -1

    async def create(self, *_: Any) -> str:
        return "exec"

    def exit_future(self, _: str) -> asyncio.Future[int]:
        return self.finished

    async def start(self, _: str, output: int, *_more: Any) -> None:
        self.output = output

    def find(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(pid=1)

    def forget(self, _: str) -> None:
        os.close(self.output)

    def exit(self) -> None:
        self.finished.set_result(137)


def test_the_error_comes_after_the_exit_of_the_killed_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        execs = Execs()

        async def kill(*_: Any) -> None:
            asyncio.get_running_loop().call_later(0.1, execs.exit)

        monkeypatch.setattr(exec_session, "kill_in_container", kill)
        container: Any = SimpleNamespace(id="c")
        services: Any = None
        with pytest.raises(TimeoutError, match=r"'sleep' did not end in 0.01 s"):
            await exec_sync(services, execs, container, ("sleep",), 0.01)  # type: ignore[arg-type]
        assert execs.finished.done()

    asyncio.run(run())
