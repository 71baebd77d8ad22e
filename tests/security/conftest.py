"""Fixtures of the security statements: a default container, and a canary in place of the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine


@pytest.fixture(scope="module")
def plain(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    """Yield a container with default settings, for tests that only read.

    It ends with its module: a worker has tests of other directories between, which look for what
    their own containers leave.
    """
    with containers.running(engine, busybox, "sleep", "infinity") as name:
        yield name


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """Yield a tree of the host that no container may read or change."""
    tree = tmp_path / "canary"
    tree.mkdir(mode=0o700)
    (tree / "secret").write_text("only the host may read this")
    (tree / "directory").mkdir()
    before = _fingerprint(tree)
    yield tree
    assert _fingerprint(tree) == before, "the canary was changed"
    assert str(tree) not in Path("/proc/self/mountinfo").read_text()


def _fingerprint(tree: Path) -> list[tuple[str, int, int, int, bytes]]:
    result = []
    for path in sorted([tree, *tree.rglob("*")]):
        facts = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        result.append((str(path), facts.st_mode, facts.st_uid, facts.st_gid, content))
    return result
