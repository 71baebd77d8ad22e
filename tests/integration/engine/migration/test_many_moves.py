"""A hundred moves of a container to and fro: nothing accumulates at either engine.

./test -m soak -n 0 -s tests/integration/engine/migration/test_many_moves.py
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from harness import containers
from harness.migration import ADDRESS, NAME, Site, Sites, move, sites, start

pytestmark = [
    pytest.mark.soak,
    pytest.mark.criu,
    pytest.mark.needs("gcc", "ip", "openssl", "nsenter", "nft"),
    pytest.mark.timeout(3000),
]
WARM = 20  # moves after which everything has been loaded and cached once
MOVES = 100
MEMORY = 8 << 20  # bytes that an engine may grow by in the rest of the moves
POOL = 4  # threads that the pool of an engine may have begun late
DISK = 4 << 20  # bytes: database, audit log and events
REFILL = 2.0  # seconds in which the pools of sandboxes and shims are filled again
COUNTED = ("descriptors", "cgroups", "mounts", "links", "tables", "files")


class Use(NamedTuple):
    """What one engine and its zygote use. Sizes are bytes, without those of files in the cache."""

    descriptors: int
    threads: int
    cgroups: int
    mounts: int
    links: int
    tables: int  # of nftables, with their chains, sets and rules: lines
    files: int
    disk: int
    memory: int


def use(site: Site) -> Use:
    engine = site.engine
    assert engine.process is not None
    pids = [engine.process.pid, *_children(engine.process.pid)]
    trees = (engine.root, engine.run)
    files = [path for tree in trees for path in tree.rglob("*") if not path.is_symlink()]
    inside = ("nsenter", f"--net=/run/netns/{site.netns}")
    return Use(
        descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
        threads=sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids),
        cgroups=sum(1 for path in _cgroups(engine.cgroup_parent)),
        mounts=sum(
            any(str(tree) in line for tree in trees)
            for line in Path(f"/proc/{engine.process.pid}/mountinfo").read_text().splitlines()
        ),
        links=len(_output("ip", "-n", site.netns, "-o", "link").splitlines()),
        tables=len(_output(*inside, "nft", "list", "ruleset").splitlines()),
        files=len(files),
        disk=sum(_blocks(path) for path in files),
        memory=sum(_private(pid) for pid in pids),
    )


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _cgroups(parent: str) -> Iterator[Path]:
    for hierarchy in ("", "*/"):
        for path in Path("/sys/fs/cgroup").glob(f"{hierarchy}{parent.strip('/')}"):
            yield from (each for each in path.rglob("*") if each.is_dir())


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _blocks(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _private(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if "Private" in line)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Sites]:
    with sites(tmp_path, 3) as made:
        yield made


def test_a_hundred_moves_leave_nothing(two: Sites) -> None:
    start(two.a)
    pair = (two.a, two.b)
    with two.counting(ADDRESS) as client:
        for number in range(MOVES // 2):
            for source, target in (pair, pair[::-1]):
                move(source, target, "--rm")
                client.answers()  # else its retransmission timer doubles from move to move
            if 2 * (number + 1) == WARM:
                time.sleep(REFILL)
                early = [use(site) for site in pair]
        result = client.finish()
    time.sleep(REFILL)
    late = [use(site) for site in pair]
    for site, before, after in zip(pair, early, late, strict=True):
        print(f"{site.name} after {WARM} moves:  {before}")
        print(f"{site.name} after {MOVES} moves: {after}")
    print(result)
    assert result["failure"] == ""
    assert result["answers"] == result["last"]
    for before, after in zip(early, late, strict=True):
        for name in COUNTED:
            assert getattr(after, name) <= getattr(before, name), name
        assert after.threads - before.threads <= POOL
        assert after.memory - before.memory < MEMORY
        assert after.disk - before.disk < DISK
    two.a.jaula("rm", "-f", NAME)
    for site in pair:
        containers.eventually(lambda site=site: not site.leftovers(), "nothing is left")  # type: ignore[misc]
        assert site.jaula("system", "check") == "No problems found.\n"
