"""Manifest lists that jaula creates, and docker's command on the same files."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from harness import containers
from harness.engine import PrivateEngine
from harness.registry import Registry

pytestmark = pytest.mark.needs("docker-registry")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as made:
        yield made


def must(engine: PrivateEngine, program: str, *words: str) -> str:
    done = engine.cli(program, *words)
    assert done.returncode == 0, done.stdout + done.stderr + engine.log_tail()
    return done.stdout


@pytest.fixture
def images(engine: PrivateEngine, registry: Registry, busybox: str) -> list[str]:
    """Return two images in different repositories."""
    made = containers.unique("made")
    must(engine, "jaula", "create", "--name", made, busybox, "true")
    must(engine, "jaula", "commit", "-m", made, made, f"{made}:1")
    must(engine, "jaula", "rm", made)
    names = [f"{registry.name}/{containers.unique('one')}:1" for _ in range(2)]
    for source, name in zip((busybox, f"{made}:1"), names, strict=True):
        must(engine, "jaula", "tag", source, name)
        must(engine, "jaula", "push", "-q", name)
    return names


def test_a_list_is_created_annotated_pushed_and_pulled(
    engine: PrivateEngine, registry: Registry, images: list[str]
) -> None:
    name = f"{registry.name}/{containers.unique('both')}:1"
    made = must(engine, "jaula", "manifest", "create", name, *images)
    assert made == f"Created manifest list {name}\n"
    words = ("--arch", "arm64", "--variant", "v8", name, images[1])
    must(engine, "jaula", "manifest", "annotate", *words)
    output = json.loads(must(engine, "jaula", "manifest", "inspect", name))
    assert json.loads(must(engine, "docker", "manifest", "inspect", name)) == output
    platforms = {m["platform"]["architecture"] for m in output["manifests"]}
    assert platforms == {"amd64", "arm64"}
    digest = must(engine, "jaula", "manifest", "push", "--purge", name).strip()
    path = name.partition("/")[2].rpartition(":")[0]
    assert registry.manifest(path, "1") == (digest, output)
    must(engine, "jaula", "rmi", *images)
    must(engine, "jaula", "run", "--rm", name, "true")
    assert "arm64" in must(engine, "jaula", "manifest", "inspect", name)  # the registry's, now


def test_docker_continues_a_list_of_jaula(
    engine: PrivateEngine, registry: Registry, images: list[str]
) -> None:
    name = f"{registry.name}/{containers.unique('both')}:1"
    must(engine, "jaula", "manifest", "create", name, images[0])
    must(engine, "docker", "manifest", "create", "--insecure", "--amend", name, images[1])
    must(engine, "docker", "manifest", "annotate", "--arch", "arm", name, images[1])
    document = json.loads(must(engine, "jaula", "manifest", "inspect", name))
    assert len(document["manifests"]) == 2
    one = json.loads(must(engine, "jaula", "manifest", "inspect", name, images[0]))
    assert "layers" in one
    must(engine, "docker", "manifest", "push", "--insecure", name)
    assert json.loads(must(engine, "jaula", "manifest", "inspect", "-v", name))
    must(engine, "jaula", "manifest", "rm", name)


def test_invalid_input_is_one_clear_line(
    engine: PrivateEngine, registry: Registry, images: list[str]
) -> None:
    name = f"{registry.name}/{containers.unique('both')}:1"
    nowhere = f"{registry.name}/nowhere:1"
    must(engine, "jaula", "manifest", "create", name, images[0])
    elsewhere = f"localhost:{registry.port}/{containers.unique('x')}:1"
    must(engine, "jaula", "manifest", "create", elsewhere, images[0])
    for words, reported in (
        (
            ("create", name, images[1]),
            "refusing to amend an existing manifest list with no --amend",
        ),
        (("create", "--amend", name, nowhere), "manifest unknown"),
        (("create", "BAD", images[0]), "repository name must be lowercase"),
        (("annotate", "--arch", "arm", nowhere, images[0]), f"No such manifest: {nowhere}"),
        (("annotate", "--arch", "arm", name, images[1]), "does not exist in"),
        (("push", nowhere), f"No such manifest: {nowhere}"),
        (("push", elsewhere), "cannot use source images from a different registry"),
        (("rm", nowhere), f"No such manifest: {nowhere}"),
        (("inspect", name, images[1]), "does not exist in"),
    ):
        done = engine.cli("jaula", "manifest", *words)
        assert (done.returncode, reported in done.stderr) == (1, True), (words, done.stderr)
    must(engine, "jaula", "manifest", "annotate", "--os", "", name, images[0])
    done = engine.cli("jaula", "manifest", "push", name)
    assert "must have an OS and Architecture" in done.stderr
    must(engine, "jaula", "manifest", "rm", name, elsewhere)
