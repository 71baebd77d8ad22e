"""A container that runs at the target of its migration: its end here."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.features.migration import held_container


@pytest.mark.parametrize(
    ("number", "is_error"), [(errno.ENOENT, False), (errno.ENODEV, False), (errno.EIO, True)]
)
def test_a_cgroup_that_is_removed_while_its_processes_are_killed_is_no_error(
    monkeypatch: pytest.MonkeyPatch, number: int, is_error: bool
) -> None:
    """The shim removes it as soon as they have exited."""
    steps: list[str] = []

    def thaw() -> None:
        steps.append("thaw")
        raise OSError(number, os.strerror(number), "freezer.state")

    @contextlib.contextmanager
    def open_cgroup(services: object, record: object) -> Iterator[Any]:
        yield SimpleNamespace(kill=lambda: steps.append("kill"), thaw=thaw)

    async def work() -> None:
        container: Any = SimpleNamespace(live=True, record=None, exited=asyncio.Event())
        container.exited.set()
        services: Any = None
        await held_container.end(services, container)

    monkeypatch.setattr(held_container, "open_cgroup", open_cgroup)
    if is_error:
        with pytest.raises(OSError, match="freezer"):
            asyncio.run(work())
    else:
        asyncio.run(work())
    assert steps == ["kill", "thaw"]
