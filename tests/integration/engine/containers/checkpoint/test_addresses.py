"""A restored container gets its address, also if the engine holds it ready for other containers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine

pytestmark = pytest.mark.criu

COUNT = 4
SCRIPT = "mkdir /w; echo page >/w/f; cd /w; exec httpd -f -p 80"


def jaula(engine: PrivateEngine, *words: str) -> str:
    done = engine.cli("jaula", *words)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def test_addresses_that_the_pool_has_taken_are_given_to_restored_containers(
    new_engine: Callable[..., PrivateEngine], busybox_archive: Path
) -> None:
    engine = new_engine()
    jaula(engine, "load", "-i", str(busybox_archive))
    names = [f"kept{number}" for number in range(COUNT)]
    addresses = {}
    for name in names:
        jaula(engine, "run", "-d", "--name", name, "busybox", "sh", "-c", SCRIPT)
        addresses[name] = containers.address(engine, name)
    for name in names:
        jaula(engine, "checkpoint", "create", name, "one")
    engine.stop()
    engine.start()
    # The pool is filled: the container below has an address of one of the four.
    jaula(engine, "run", "--rm", "busybox", "true")
    failures: list[str] = []

    def start(name: str) -> None:
        done = engine.cli("jaula", "start", "--checkpoint", "one", name)
        if done.returncode:
            failures.append(done.stderr)

    threads = [threading.Thread(target=start, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {name: containers.address(engine, name) for name in names} == addresses
    fresh = jaula(engine, "run", "--rm", "busybox", "hostname", "-i").split()[0]
    assert fresh not in addresses.values()
    for name in names:
        jaula(engine, "rm", "-f", name)
    containers.assert_clean(engine)
