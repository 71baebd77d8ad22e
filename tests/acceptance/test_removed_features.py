"""The core without features: all of them removed from a copy of the source, and each one alone.

A core that needs a feature would be found here: an engine starts, and containers are created,
executed, inspected, stopped and removed by jaula, docker and compose.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import load_image
from harness import leaks
from harness.containers import unique
from harness.engine import PROJECT, PrivateEngine
from jaula import feature

FEATURES = sorted(feature.table())
COMPOSE = """
services:
  web:
    image: busybox
    command: httpd -f -p 80
    init: true
  client:
    image: busybox
    command: sh -c 'until wget -qO /dev/null http://web/ 2>&1 | grep -q 404; do sleep 0.1; done'
    depends_on: [web]
"""


def clone(directory: Path, removed: str) -> Path:
    """Return a copy of the source without the feature ``removed``, or without all for ''.

    The copy has the compiled modules, but not the archives of them, which have each feature.
    """
    ignored = shutil.ignore_patterns("jaula*.pyc", "*.modules", "clone-exec")
    shutil.copytree(PROJECT / "src/jaula", directory / "src/jaula", ignore=ignored)
    shutil.rmtree(directory / "src/jaula/features" / removed)
    shutil.copy(PROJECT / "jaula", directory)
    (directory / ".venv").symlink_to(PROJECT / ".venv")
    return directory


@pytest.fixture
def without(tmp_path: Path, worker_index: int) -> Iterator[Callable[[str], PrivateEngine]]:
    """Return a function that starts an engine of a source without a feature."""
    made: list[PrivateEngine] = []

    def make(removed: str) -> PrivateEngine:
        project = clone(tmp_path / "clone", removed)
        engine = PrivateEngine((worker_index + 131) % 250 + 1, project=project)
        made.append(engine)
        engine.start()
        load_image(engine, "busybox")
        return engine

    try:
        yield make
        for engine in made:
            if engine.process is None or engine.process.poll() is not None:
                continue  # the test has failed
            engine.discard()
            assert not (left := leaks.of_engine(engine)), f"left behind by the engine: {left}"
    finally:
        for engine in made:
            if engine.process is not None and engine.process.poll() is None:
                engine.kill()
            leaks.clean_up(engine)
            engine.delete_directories()


def lifecycle(engine: PrivateEngine, program: str) -> None:
    """Use a container from its creation to its removal."""
    name = unique()

    def run(*words: str) -> str:
        done = engine.cli(program, *words)
        assert done.returncode == 0, (words, done.stderr, engine.log_tail())
        return done.stdout

    assert run("run", "--rm", "busybox", "echo", "hello") == "hello\n"
    volume = f"{name}v:/data"
    run("run", "-d", "--name", name, "-p", "80", "-v", volume, "-m", "64m", "busybox", "top")
    assert run("exec", name, "id", "-u") == "0\n"
    assert json.loads(run("inspect", name))[0]["State"]["Running"]
    assert name in run("ps")
    run("pause", name)
    run("unpause", name)
    run("update", "-m", "128m", "--memory-swap", "128m", name)
    run("restart", "-t", "0", name)
    run("commit", "--change", "LABEL a=b", name, f"{name}:1")
    run("rmi", f"{name}:1")
    run("stop", "-t", "0", name)
    run("rm", "-v", name)
    run("volume", "rm", f"{name}v")
    run("system", "df")
    assert "Total reclaimed space" in run("system", "prune", "-f")


@pytest.mark.parametrize("removed", FEATURES)
def test_the_core_and_the_other_features_work_without_one(
    without: Callable[[str], PrivateEngine], removed: str
) -> None:
    engine = without(removed)
    lifecycle(engine, "jaula")
    for words in feature.table()[removed]:
        done = engine.cli("jaula", words)
        assert done.returncode == 1
        assert f"belongs to the feature {removed}, which is not installed" in done.stderr
    helped = engine.cli("jaula", "--help")
    assert helped.returncode == 0, helped.stderr


@pytest.mark.parametrize("program", ["jaula", "docker"])
def test_the_core_works_without_any_feature(
    without: Callable[[str], PrivateEngine], program: str
) -> None:
    lifecycle(without(""), program)


@pytest.mark.needs("docker-compose")
def test_compose_works_without_any_feature(
    without: Callable[[str], PrivateEngine], tmp_path: Path
) -> None:
    engine = without("")
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    project = ("-f", str(tmp_path / "compose.yaml"), "-p", unique())
    try:
        done = engine.cli("docker-compose", *project, "up", "--exit-code-from", "client")
        assert done.returncode == 0, (done.stderr, engine.log_tail())
    finally:
        engine.cli("docker-compose", *project, "down", "-v", "-t", "0")
