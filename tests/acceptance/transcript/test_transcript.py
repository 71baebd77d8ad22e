"""The docker command against this engine and against dockerd: the same output and exit status."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from acceptance.transcript.scenes import EVENTS, EXEC, FILES, LIFE, RUN, SCENES, UPDATES
from harness.callers.dockerd import BridgedDockerd
from harness.engine import PrivateEngine
from harness.transcript import Result, Run, Scene, both, play

pytestmark = [
    pytest.mark.client(name="docker command"),
    pytest.mark.needs("dockerd"),
    pytest.mark.xdist_group("transcript"),
]


def marked(scene: Scene) -> object:
    """Mark every scene but the life of a container slow: dockerd takes seconds for each."""
    return pytest.param(scene, marks=() if scene is LIFE else pytest.mark.slow, id=scene.name)


@pytest.mark.parametrize("scene", [marked(scene) for scene in SCENES])
def test_the_output_is_the_same(
    scene: Scene, own: PrivateEngine, dockerd: BridgedDockerd, tmp_path: Path
) -> None:
    results = both(
        partial(_play, partial(own.cli, "docker"), scene, tmp_path / "a"),
        partial(_play, partial(dockerd, expect=None), scene, tmp_path / "b"),
    )
    compare(scene, *results)


# With 1.24 the docker command waits for ever where a container did not start.
OLDER = [
    *(
        pytest.param("1.41", s, id=f"1.41-{s.name}")
        for s in (LIFE, EXEC, RUN, EVENTS, FILES, UPDATES)
    ),
    pytest.param("1.24", LIFE, id="1.24-life"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("version", "scene"), OLDER)
def test_the_output_is_the_same_for_an_older_client(
    version: str,
    scene: Scene,
    own: PrivateEngine,
    dockerd: BridgedDockerd,
    tmp_path: Path,
) -> None:
    older = {"DOCKER_API_VERSION": version}
    here, there = own.environment() | older, dockerd.environment() | older
    results = both(
        partial(_play, partial(own.cli, "docker", env=here), scene, tmp_path / "a"),
        partial(_play, partial(dockerd, expect=None, env=there), scene, tmp_path / "b"),
    )
    compare(scene, *results)


def compare(scene: Scene, ours: list[Result], theirs: list[Result]) -> None:
    different = [
        _shown(step.words, mine, other)
        for step, mine, other in zip(scene.steps, ours, theirs, strict=True)
        if mine != other
    ]
    assert not different, "\n".join(different)


def _play(run: Run, scene: Scene, directory: Path) -> list[Result]:
    directory.mkdir()
    clean = [
        ("rm", "-f", "-v", "t-1", "t-2", "t-3", "t-4", "t-5"),
        ("network", "rm", "tr-net", "tr-two", "tr-bad", "tr-conf"),
        ("volume", "rm", "tr-v"),
        ("rmi", "-f", *(f"tr/{name}:1" for name in ("new", "root", "other", "built", "bad", "x"))),
    ]
    return play(run, scene, directory, clean)


def _shown(words: tuple[str, ...], ours: Result, theirs: Result) -> str:
    lines = [f"$ docker {' '.join(words)}"]
    for kind, a, b in (
        ("status", str(ours.status), str(theirs.status)),
        ("out", ours.out, theirs.out),
        ("err", ours.err, theirs.err),
    ):
        if a != b:
            lines += [f"  {kind} here:   {a!r}", f"  {kind} docker: {b!r}"]
    return "\n".join(lines)
