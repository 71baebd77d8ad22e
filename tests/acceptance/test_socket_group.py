"""Docker's clients of a user in the socket's group: everyday work, and what belongs to others."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import engine_with_policy
from harness import containers
from harness.engine import PrivateEngine

GROUP, USER = 54950, 54951
POLICY = f'[group.{GROUP}]\naccess = "run"\n'
COMPOSE = """
services:
  web:
    build: .
    image: {image}
    command: sleep 60
    volumes: [data:/data]
volumes:
  data:
"""


@pytest.fixture(scope="module")
def guarded(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text(POLICY)
    with engine_with_policy(worker_index + 131, policy) as private:
        yield private


@pytest.fixture
def project() -> Iterator[Path]:
    """Yield a directory of the user, which is also its home.

    The directories of pytest are closed to other users.
    """
    with tempfile.TemporaryDirectory(prefix="jaula-home-") as top:
        os.chown(top, USER, USER)
        yield Path(top)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=["0", "1"], ids=["classic", "buildkit"])
def docker(request: pytest.FixtureRequest, guarded: PrivateEngine, project: Path) -> Run:
    """Run ``docker`` as the user in the project's directory, with both builders."""
    variables = guarded.environment() | {
        "HOME": str(project),
        "DOCKER_CONFIG": str(project),
        "DOCKER_BUILDKIT": str(request.param),
    }

    def run(*words: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = guarded.cli(
            "docker", *words, env=variables, cwd=project, user=USER, group=USER,
            extra_groups=[GROUP],
        )  # fmt: skip
        assert status is None or done.returncode == status, (words, done.stdout, done.stderr)
        return done

    return run


def test_a_developer_builds_runs_retags_and_removes(docker: Run, project: Path) -> None:
    name = containers.unique("dev")
    for text in ("one", "two"):
        (project / "Dockerfile").write_text(f"FROM busybox\nRUN echo {text} >/note\n")
        docker("build", "-q", "-t", name, ".")
        assert docker("run", "--rm", name, "cat", "/note").stdout == f"{text}\n"
        docker("tag", name, f"{name}:stable")
    docker("network", "create", name)
    docker("volume", "create", name)
    docker("run", "-d", "--name", name, "--network", name, "-v", f"{name}:/v", name, "sleep", "60")
    docker("commit", name, f"{name}:committed")
    docker("rm", "-f", name)
    docker("network", "rm", name)
    docker("volume", "rm", name)
    docker("rmi", f"{name}:committed", f"{name}:stable", name)
    assert name not in docker("images").stdout


def test_compose_brings_a_project_up_and_down(docker: Run, project: Path) -> None:
    image = containers.unique("composed")
    (project / "Dockerfile").write_text("FROM busybox\nRUN echo composed >/note\n")
    (project / "compose.yaml").write_text(COMPOSE.format(image=image))
    for _ in range(2):
        docker("compose", "-p", image, "up", "-d", "--build")
        assert docker("compose", "-p", image, "exec", "-T", "web", "cat", "/note").stdout
        docker("compose", "-p", image, "down", "-v", "--rmi", "all", "-t", "0")
        assert image not in docker("images").stdout


def test_what_is_of_root_stays(guarded: PrivateEngine, docker: Run, project: Path) -> None:
    name = containers.unique("root")
    for words in (
        ("tag", "busybox", name),
        ("create", "--name", name, name),
        ("volume", "create", name),
        ("network", "create", name),
    ):
        assert guarded.cli("docker", *words).returncode == 0
    try:
        (project / "Dockerfile").write_text("FROM busybox\nRUN echo mine >/note\n")
        own = f"{name}-own"
        docker("build", "-q", "-t", own, ".")
        for words in (
            ("tag", own, name),
            ("build", "-t", name, "."),
            ("rmi", name),
            ("rmi", "-f", name),
            ("rm", "-f", name),
            ("volume", "rm", name),
            ("network", "rm", name),
        ):
            done = docker(*words, status=None)
            assert done.returncode != 0, words
            assert "may not" in done.stderr + done.stdout, (words, done)
        (project / "compose.yaml").write_text(
            COMPOSE.format(image=name).replace("    build: .\n", "")
        )
        docker("compose", "-p", name, "up", "-d")
        docker("compose", "-p", name, "down", "-v", "--rmi", "all", "-t", "0", status=None)
        docker("system", "prune", "-af", "--volumes")
        docker("image", "prune", "-af")
        docker("builder", "prune", "-af")
        assert own not in docker("images").stdout
        for kind in ("container", "image", "volume", "network"):
            shown = guarded.cli("docker", kind, "inspect", name)
            assert shown.returncode == 0, kind
    finally:
        for words in (("rm", "-f"), ("volume", "rm"), ("network", "rm"), ("rmi",)):
            guarded.cli("docker", *words, name)
