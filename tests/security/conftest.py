"""What the statements share: a default container to look at, and a canary that plays the host."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PROJECT, PrivateEngine


@pytest.fixture(scope="session")
def plain(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    """A container with nothing but defaults, for tests that only look."""
    with containers.running(engine, busybox) as name:
        yield name


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A tree of the host that no container may read or change."""
    tree = tmp_path / "canary"
    tree.mkdir(mode=0o700)
    (tree / "secret").write_text("only the host may read this")
    (tree / "directory").mkdir()
    before = _fingerprint(tree)
    mounts = Path("/proc/self/mountinfo").read_text().count("canary")
    yield tree
    assert _fingerprint(tree) == before, "the canary was changed"
    assert Path("/proc/self/mountinfo").read_text().count("canary") == mounts


@pytest.fixture(scope="session", autouse=True)
def untouched_source() -> Iterator[None]:
    """No test of this directory may change the engine's own program."""
    source = PROJECT / "src" / "jaula" / "runtime"
    before = {path: path.stat().st_ino for path in sorted(source.glob("*.py"))}
    digests = {path: hashlib.sha256(path.read_bytes()).digest() for path in before}
    yield
    for path, digest in digests.items():
        assert hashlib.sha256(path.read_bytes()).digest() == digest, f"{path} was changed"


def _fingerprint(tree: Path) -> list[tuple[str, int, int, int, bytes]]:
    found = []
    for path in sorted([tree, *tree.rglob("*")]):
        facts = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found.append((str(path), facts.st_mode, facts.st_uid, facts.st_gid, content))
    return found
