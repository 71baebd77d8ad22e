"""The watch of OOM events of a cgroup that systemd may remove meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jaula.cgroups.v2 import memory_v2
from jaula.kernel import inotify


def test_a_cgroup_that_is_removed_before_the_watch_has_no_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = tmp_path / "memory.events"
    events.write_text("oom_kill 0\n")
    create, created = inotify.create, []

    def create_late() -> int:
        events.unlink()
        created.append(create())
        return created[0]

    monkeypatch.setattr(inotify, "create", create_late)
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        assert memory_v2.subscribe_oom(directory) is None
    finally:
        os.close(directory)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(created[0])


def test_a_change_of_the_events_is_readable(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("oom_kill 0\n")
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        watch = memory_v2.subscribe_oom(directory)
        assert watch is not None
        try:
            events.write_text("oom_kill 1\n")
            assert os.read(watch, 4096)
        finally:
            os.close(watch)
    finally:
        os.close(directory)
