"""After SIGKILL of the engine while images change, the next engine has an intact store."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import load_image
from harness import layers
from harness.engine import PROJECT, PrivateEngine

NewEngine = Callable[..., PrivateEngine]
rounds = pytest.mark.parametrize("rounds", [1, pytest.param(4, marks=pytest.mark.slow)])
"""Kills in a test."""


@pytest.fixture
def crashing(new_engine: NewEngine) -> PrivateEngine:
    """Return an engine that the test may kill."""
    crashing = new_engine()
    load_image(crashing, "busybox")
    return crashing


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return an image archive of 600 files and 9 MB."""
    files = [(f"d{n % 20}/f{n}", os.urandom(15_000)) for n in range(600)]
    both = [layers.layer(files[:300]), layers.layer(files[300:])]
    place = tmp_path / "archive.tar"
    place.write_bytes(layers.image("many:1", *((each, layers.digest(each)) for each in both)))
    return place


def load(engine: PrivateEngine, archive: Path) -> None:
    with archive.open("rb") as file:
        done = engine.cli("jaula", "load", stdin=file)
    assert done.returncode == 0, done.stderr


def killed_during(engine: PrivateEngine, *words: str, stdin: Path | None = None) -> None:
    """Start a command, kill the engine at some moment and start the next engine."""
    with contextlib.ExitStack() as held:
        archive = held.enter_context(stdin.open("rb")) if stdin else subprocess.DEVNULL
        client = subprocess.Popen(
            [str(PROJECT / "jaula"), *words],
            env=engine.environment(),
            stdin=archive,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(random.uniform(0.02, 0.4))
        engine.kill()
        client.terminate()
        client.wait(20)
    engine.start()


def check_whole(engine: PrivateEngine) -> None:
    for words in (("system", "check", "--contents"), ("image", "verify", "--all")):
        done = engine.cli("jaula", *words, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
    assert engine.cli("jaula", "run", "--rm", "busybox", "echo", "well").stdout == "well\n"


@rounds
def test_an_engine_killed_during_a_load_leaves_an_intact_store(
    crashing: PrivateEngine, archive: Path, rounds: int
) -> None:
    for _ in range(rounds):
        killed_during(crashing, "load", stdin=archive)
        check_whole(crashing)
    load(crashing, archive)
    check_whole(crashing)


@rounds
def test_an_engine_killed_during_a_removal_leaves_an_intact_store(
    crashing: PrivateEngine, archive: Path, rounds: int
) -> None:
    for _ in range(rounds):
        load(crashing, archive)
        killed_during(crashing, "rmi", "-f", "many:1")
        check_whole(crashing)


@rounds
def test_an_engine_killed_during_a_prune_leaves_an_intact_store(
    crashing: PrivateEngine, archive: Path, rounds: int
) -> None:
    for _ in range(rounds):
        load(crashing, archive)
        crashing.cli("jaula", "create", "--name", "keeper", "busybox")
        killed_during(crashing, "image", "prune", "-af")
        check_whole(crashing)


@rounds
def test_an_engine_killed_during_a_commit_leaves_an_intact_store(
    crashing: PrivateEngine, rounds: int
) -> None:
    write = "head -c 30000000 /dev/urandom > /big"
    assert (
        crashing.cli("jaula", "run", "--name", "c1", "busybox", "sh", "-c", write).returncode == 0
    )
    for _ in range(rounds):
        killed_during(crashing, "commit", "c1", "made")
        check_whole(crashing)
