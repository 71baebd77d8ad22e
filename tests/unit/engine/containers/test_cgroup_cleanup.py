"""A removal of a cgroup in progress, and a start that needs the cgroup."""

from __future__ import annotations

import asyncio
import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.engine.containers import cgroup_cleanup
from jaula.engine.containers.cgroup_cleanup import CgroupReaper
from jaula.errors import NotFound, RuntimeFailure
from jaula.tasks import BackgroundTasks


class Cgroups:
    """Cgroups of which one can be removed only after some tries."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def open(self, path: str) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeFailure(f"{path} has processes")
        raise NotFound(path)


def reaper(monkeypatch: pytest.MonkeyPatch, failures: int) -> tuple[CgroupReaper, Cgroups]:
    monkeypatch.setattr(cgroup_cleanup, "cgroup_path", lambda _services, _record: "/path")
    cgroups = Cgroups(failures)
    services: Any = SimpleNamespace(cgroups=cgroups, config=SimpleNamespace(runtimes=()))
    return CgroupReaper(services, BackgroundTasks(logging.getLogger("test"), "removal")), cgroups


@pytest.mark.parametrize("failures", [0, 2])
def test_a_removal_does_not_wait_for_the_lock_of_the_caller(
    monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    async def work() -> None:
        made, cgroups = reaper(monkeypatch, failures)
        container: Any = SimpleNamespace(lock=asyncio.Lock(), live=False, record=None)
        async with container.lock:
            made.remove(container)
            begun = time.monotonic()
            await made.remove_locked(container)
            assert time.monotonic() - begun < 5
            assert cgroups.failures == 0
        await asyncio.wait_for(asyncio.gather(*made.removals.values()), 5)
        assert made.removals == {}

    asyncio.run(work())


def test_a_cgroup_that_stays_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        monkeypatch.setattr(cgroup_cleanup, "_GONE_TIMEOUT", 0.3)
        made, cgroups = reaper(monkeypatch, 1000)
        container: Any = SimpleNamespace(lock=asyncio.Lock(), live=False, record=None)
        async with container.lock:
            made.remove(container)
            await asyncio.wait_for(made.remove_locked(container), 5)
            assert 0 < cgroups.failures < 1000
            cgroups.failures = 0
        await asyncio.wait_for(asyncio.gather(*made.removals.values()), 5)

    asyncio.run(work())
