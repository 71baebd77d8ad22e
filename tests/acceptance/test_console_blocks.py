"""The console blocks of the documents show what the commands print.

``./test -m replay`` runs those of all pages, a test for each page. README.md is in every run.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import console_blocks, leaks
from harness.console_blocks import Replay
from harness.engine import PROJECT, PrivateEngine

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
DEFAULT = {"README.md"}


def _pages() -> Iterator[object]:
    for path in PAGES:
        if any(not block.reason for block in console_blocks.blocks(path)):
            name = str(path.relative_to(PROJECT))
            marks = [] if name in DEFAULT else [pytest.mark.replay]
            yield pytest.param(path, id=name, marks=[*marks, pytest.mark.timeout(600)])


@pytest.fixture
def quiet_engine(worker_index: int) -> Iterator[PrivateEngine]:
    """Yield an engine in its own network namespace: pages publish ports by fixed numbers."""
    private = PrivateEngine((worker_index + 57) % 250 + 1)
    with leaks.nothing_left(private, own_network=True):
        assert private.process is not None
        subprocess.run(
            [
                "nsenter",
                f"--net=/proc/{private.process.pid}/ns/net",
                "ip",
                "link",
                "set",
                "lo",
                "up",
            ],
            check=True,
        )
        yield private


@pytest.mark.parametrize("path", [*_pages()])
def test_a_page_shows_what_its_commands_print(
    path: Path, quiet_engine: PrivateEngine, tmp_path: Path
) -> None:
    with Replay(quiet_engine, tmp_path) as replay:
        differences = [
            difference
            for block in console_blocks.blocks(path)
            if not block.reason
            for difference in replay.run(block)
        ]
    assert not differences, "\n\n".join(differences)
