"""Builds with the usual clients: the docker command, its SDK for Python, compose."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import docker
import pytest
from docker.errors import BuildError

from harness import builds
from harness.containers import unique
from harness.engine import PrivateEngine

CLASSIC = {"DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0"}
# The SDK's own sockets and responses complain when they are collected after their connection.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def name(engine: PrivateEngine) -> Iterator[str]:
    chosen = unique("built")
    yield f"{chosen}:1"
    engine.request("DELETE", f"/images/{chosen}:1?force=1")


@pytest.fixture
def place(tmp_path: Path, busybox: str) -> Path:
    (tmp_path / "file").write_text("content\n")
    (tmp_path / "secret").write_text("not for the image\n")
    (tmp_path / ".dockerignore").write_text("secret\n")
    (tmp_path / "Dockerfile").write_text(
        f"FROM {busybox}\nARG GREETING=none\nRUN echo says $GREETING\n"
        "COPY . /all\nRUN ls -A /all\nLABEL made=by-a-test\n"
    )
    return tmp_path


def classic(engine: PrivateEngine, *words: str) -> CompletedProcess[str]:
    environment = engine.environment() | CLASSIC
    return engine.cli("docker", *words, env=environment, timeout=120)


def test_the_docker_command_builds_and_runs_the_image(
    engine: PrivateEngine, place: Path, name: str
) -> None:
    words = ("build", "-t", name, "--build-arg", "GREETING=hello", str(place))
    first = classic(engine, *words)
    assert first.returncode == 0, first.stderr
    assert "says hello" in first.stdout
    assert "Step 3/6 : RUN echo says $GREETING" in first.stdout
    assert f"Successfully tagged {name}" in first.stdout
    ignored = first.stdout.partition("RUN ls -A /all")[2].partition("Step")[0]
    assert "secret\n" not in ignored and "file\n" in ignored
    again = classic(engine, *words)
    assert again.stdout.count("Using cache") == 5
    printed = engine.cli("docker", "images", "--filter", "label=made=by-a-test", "-q", "--no-trunc")
    quiet = classic(engine, "build", "-q", *words[1:])
    assert quiet.stdout == printed.stdout
    used = engine.cli("docker", "run", "--rm", name, "cat", "/all/file")
    assert used.stdout == "content\n"
    history = engine.cli("docker", "history", "--format", "{{.CreatedBy}}", "--no-trunc", name)
    assert history.stdout.splitlines()[0] == "LABEL made=by-a-test"


def test_a_failed_step_reports_the_exit_status_of_its_command(
    engine: PrivateEngine, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo before; exit 9\n")
    failed = classic(engine, "build", str(tmp_path))
    assert failed.returncode == 9
    assert "returned a non-zero code: 9" in failed.stderr
    assert "before" in failed.stdout
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY\n")
    wrong = classic(engine, "build", str(tmp_path))
    assert wrong.returncode == 1
    assert "Dockerfile:2" in wrong.stderr


def test_docker_build_reads_a_dockerfile_from_standard_input(
    engine: PrivateEngine, busybox: str, name: str
) -> None:
    done = engine.cli(
        "docker",
        *("build", "-t", name, "-"),
        input=f"FROM {busybox}\nRUN echo from-stdin\n",
        env=engine.environment() | CLASSIC,
    )
    assert done.returncode == 0, done.stderr
    assert "from-stdin" in done.stdout


def test_docker_builder_prune_empties_the_cache(engine: PrivateEngine, place: Path) -> None:
    assert classic(engine, "build", str(place)).returncode == 0
    listed = engine.cli("docker", "system", "df", "-v")
    assert "Build cache usage" in listed.stdout
    pruned = classic(engine, "builder", "prune", "-af")
    assert pruned.returncode == 0, pruned.stderr
    assert "Total reclaimed space" in pruned.stdout
    assert engine.request("GET", "/v1.45/system/df").json()["BuildCache"] == []


def test_the_python_sdk_builds(engine: PrivateEngine, place: Path, name: str) -> None:
    client = docker.DockerClient(base_url=engine.host, timeout=60)
    try:
        image, log = client.images.build(
            path=str(place), tag=name, buildargs={"GREETING": "sdk"}, labels={"a": "b"}, rm=True
        )
        text = "".join(line.get("stream", "") for line in log)
        assert "says sdk" in text
        assert image.tags == [name]
        assert image.labels == {"made": "by-a-test", "a": "b"}
        text = f"FROM {name}\nRUN echo wrong >&2; false\n"
        with pytest.raises(BuildError) as caught:
            client.images.build(fileobj=io.BytesIO(text.encode()), rm=True)
        output = "".join(line.get("stream", "") for line in caught.value.build_log)
        assert "wrong" in output
        assert "non-zero code: 1" in str(caught.value)
        assert client.api.prune_builds()["SpaceReclaimed"] >= 0
    finally:
        client.close()


@pytest.mark.needs("docker-compose")
def test_compose_builds_its_services(engine: PrivateEngine, place: Path) -> None:
    project = unique("composed")
    (place / "compose.yaml").write_text(
        "services:\n  one:\n    build:\n      context: .\n      args: {GREETING: composed}\n"
        f"    image: {project}:1\n    command: cat /all/file\n"
    )
    environment = engine.environment() | CLASSIC

    def compose(*words: str) -> CompletedProcess[str]:
        return subprocess.run(
            ["docker", "compose", "-p", project, "-f", str(place / "compose.yaml"), *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    try:
        built = compose("build")
        assert built.returncode == 0, built.stderr
        assert "says composed" in built.stdout + built.stderr
        ran = compose("run", "--rm", "one")
        assert ran.stdout == "content\n", ran.stderr
    finally:
        compose("down", "--rmi", "all")
        engine.request("DELETE", f"/images/{project}:1?force=1")


@pytest.mark.packages
@pytest.mark.skipif("JAULA_VM" in os.environ, reason="no package mirror in the virtual machine")
def test_a_step_downloads_packages_through_the_network_of_the_build(
    engine: PrivateEngine, debian: str
) -> None:
    text = (
        f"FROM {debian}\nRUN --mount=type=cache,target=/var/cache/apt --mount=type=cache,"
        "target=/var/lib/apt apt-get update -qq && apt-get install -y -qq --no-install-recommends"
        " tree > /dev/null && tree --version\n"
    )
    built = builds.done(engine, {"Dockerfile": text}, timeout=400)
    assert "tree v" in built.text
    assert "/usr/bin/tree" in builds.files_of(engine, built.image)


def test_an_empty_command_is_an_empty_list(
    engine: PrivateEngine, busybox: str, tmp_path: Path, name: str
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox}\nCMD []\n")
    assert classic(engine, "build", "-t", name, str(tmp_path)).returncode == 0
    image = engine.request("GET", f"/v1.45/images/{name}/json").json()
    assert image["Config"]["Cmd"] == []  # as dockerd's classic builder
    made = engine.request("POST", "/containers/create", {"Image": name, "Entrypoint": ["true"]})
    id = made.json()["Id"]
    assert engine.request("DELETE", f"/containers/{id}").status == 204
    refused = engine.request("POST", "/containers/create", {"Image": name})
    assert refused.status == 400 and "no command specified" in refused.json()["message"].lower()


def test_cache_from_replaces_the_local_cache(
    engine: PrivateEngine, busybox: str, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_text("content\n")
    (tmp_path / "Dockerfile").write_text(
        f"FROM {busybox}\nENV A={unique('v')}\nRUN date +%N > /made\nCOPY file /file\n"
        'LABEL l=1\nCMD ["x"]\n'
    )
    assert classic(engine, "build", "-t", name, str(tmp_path)).returncode == 0
    first = engine.request("GET", f"/images/{name}/json").json()["Id"]
    other = f"{name.partition(':')[0]}:other"

    def rebuilt(*words: str) -> tuple[int, str]:
        done = classic(engine, "build", *words, "-t", other, str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert "cannot use" not in done.stdout  # as dockerd
        id = engine.request("GET", f"/images/{other}/json").json()["Id"]
        return done.stdout.count("Using cache"), id

    try:
        assert rebuilt() == (5, first)
        assert rebuilt("--cache-from", name) == (5, first)
        assert rebuilt("--cache-from", "absent:1", "--cache-from", name) == (5, first)
        engine.request("POST", "/build/prune?all=1")
        assert rebuilt("--cache-from", name) == (5, first)  # from the image's history alone
        for source in (busybox, "absent:1"):
            cached, id = rebuilt("--cache-from", source)
            assert cached == 0 and id != first
        client = docker.DockerClient(base_url=engine.host)
        try:
            image, _ = client.images.build(path=str(tmp_path), cache_from=[name], tag=other)
            assert image.id == first
            image, _ = client.images.build(path=str(tmp_path), cache_from=["absent:1"], tag=other)
            assert image.id != first
        finally:
            client.close()
    finally:
        engine.request("DELETE", f"/images/{other}?force=1")
