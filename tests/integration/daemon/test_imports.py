"""The modules that an engine imports until it is idle."""

from __future__ import annotations

import marshal
import re
import time
from pathlib import Path

import pytest

from harness import leaks
from harness.engine import PrivateEngine
from jaula.daemon import engine_archive

IMPORTED = re.compile(r"^import time:\s+\d+ \|\s+\d+ \|\s+(jaula\.\S+)$", re.MULTILINE)
BEFORE_THE_ARCHIVE = {"jaula.cli", "jaula.daemon", "jaula.daemon.engine_archive", "jaula.spec"}
"""Packages and modules that find the archive, or that every command of the client imports."""


class ListingEngine(PrivateEngine):
    """An engine that writes the names of the modules that it imports to its log."""

    def command(self) -> list[str]:
        return ["env", "PYTHONPROFILEIMPORTTIME=1", *super().command()]


def archived() -> set[str]:
    """Return the names of the modules in the archive."""
    path = Path(engine_archive.archive_path())
    if not path.exists():
        pytest.skip("the tree has no archive: scripts/setup archive")
    data = path.read_bytes()
    size = int.from_bytes(data[4:8], "little")
    return set(marshal.loads(data[8 : 8 + size])[0])


def test_an_idle_engine_has_its_modules_from_the_archive(worker_index: int) -> None:
    """A module beside the archive costs a search and a read at each start."""
    engine = ListingEngine((worker_index + 61) % 250 + 1)
    with leaks.nothing_left(engine, own_network=True):
        time.sleep(2)  # it is idle
        names = set(IMPORTED.findall(engine.log.read_text()))
    assert len(names) > 300
    beside = {
        name
        for name in names - archived() - BEFORE_THE_ARCHIVE
        if not name.startswith(("jaula.cli.", "jaula.spec.visible_text"))
    }
    assert beside == set()
