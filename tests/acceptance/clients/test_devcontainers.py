"""The unmodified Dev Containers command, on which VS Code's extension is built.

It drives the docker command: bind mounts, labels and filters by them, a long shell over the input
of an exec, events, and images that it builds.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import client_packages
from harness.engine import PrivateEngine
from harness.terminal import Terminal

pytestmark = [
    pytest.mark.client(name="@devcontainers/cli"),
    pytest.mark.needs("npm"),
    pytest.mark.slow,
    pytest.mark.needs("docker"),
]

PACKAGE = "@devcontainers/cli@0.89.0"
DOCKERFILE = """\
FROM busybox
ARG WORD=none
RUN echo dev:x:1234:1234::/home/dev:/bin/sh >> /etc/passwd && echo dev:x:1234: >> /etc/group
RUN mkdir -p /home/dev && chown 1234:1234 /home/dev && echo "$WORD" > /word
"""

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def program() -> Path:
    return client_packages.npm("node-devcontainers", PACKAGE) / ".bin" / "devcontainer"


@pytest.fixture
def devcontainer(engine: PrivateEngine, program: Path, tmp_path: Path) -> Command:
    """Run it for the workspace ``tmp_path/ws``."""

    def run(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(program), words[0], "--workspace-folder", str(tmp_path / "ws"), *words[1:]],
            env=environment(engine, tmp_path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            **options,
        )

    return run


def environment(engine: PrivateEngine, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "home").mkdir(exist_ok=True)
    variables = engine.environment() | {"HOME": str(tmp_path / "home")}
    del variables["DOCKER_BUILDKIT"]  # it builds with buildx then
    return variables


def workspace(tmp_path: Path, **settings: Any) -> Path:
    place = tmp_path / "ws"
    folder = place / ".devcontainer"
    folder.mkdir(parents=True)
    (folder / "devcontainer.json").write_text(json.dumps({"name": "test", **settings}))
    return place


def outcome(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    assert result["outcome"] == "success"
    return result


def remove(engine: PrivateEngine, place: Path) -> None:
    label = f"label=devcontainer.local_folder={place}"
    result = engine.cli("docker", "ps", "-aq", "--filter", label).stdout.split()
    assert engine.cli("docker", "rm", "-f", "-v", *result).returncode == 0


def test_a_workspace_starts_and_is_reused(
    engine: PrivateEngine, busybox: str, devcontainer: Command, program: Path, tmp_path: Path
) -> None:
    place = workspace(
        tmp_path,
        image=busybox,
        updateRemoteUserUID=False,
        containerEnv={"COLOUR": "green"},
        remoteEnv={"SHAPE": "round"},
        mounts=["source=dc-cache,target=/cache,type=volume"],
        runArgs=["--init", "--label", "own=label"],
        onCreateCommand="echo made > made",
        postStartCommand="date +%s%N >> /tmp/started",
    )
    try:
        first = outcome(devcontainer("up"))
        assert (place / "made").read_text() == "made\n"
        done = devcontainer(
            *("exec", "sh", "-c", "echo $COLOUR $SHAPE; pwd; touch /cache/x; exit 4")
        )
        assert (done.returncode, done.stdout) == (4, "green round\n/workspaces/ws\n"), done.stderr
        assert outcome(devcontainer("up"))["containerId"] == first["containerId"]
        time.sleep(1.1)  # the first start was in an earlier second
        since = str(int(time.time()))
        name = first["containerId"]
        assert engine.cli("docker", "stop", "-t", "1", name).returncode == 0
        assert outcome(devcontainer("up"))["containerId"] == name
        started = engine.cli("docker", "exec", name, "wc", "-l", "/tmp/started").stdout.split()
        assert started[0] == "2"
        time.sleep(1.1)  # the docker command names whole seconds
        reported = engine.cli(
            *("docker", "events", "--since", since, "--until", "0s", "--format", "{{json .}}"),
            *("--filter", "event=start", "--filter", f"label=devcontainer.local_folder={place}"),
        )
        assert [json.loads(line)["id"] for line in reported.stdout.splitlines()] == [name]
        words = [str(program), "exec", "--workspace-folder", str(place), "sh"]
        with Terminal(words, environment(engine, tmp_path)) as terminal:
            terminal.expect("# ")
            terminal.send("tty; echo $SHAPE-$TERM; exit 5\n")
            terminal.expect(r"/dev/pts/0\s+round-xterm")
            assert terminal.process.wait(20) == 5
    finally:
        remove(engine, place)
        engine.cli("docker", "volume", "rm", "dc-cache")


def test_an_image_is_built_for_a_workspace(
    engine: PrivateEngine, busybox: str, devcontainer: Command, tmp_path: Path
) -> None:
    build = {"dockerfile": "Dockerfile", "args": {"WORD": "built"}}
    place = workspace(tmp_path, build=build, remoteUser="dev", updateRemoteUserUID=False)
    (place / ".devcontainer" / "Dockerfile").write_text(DOCKERFILE)
    os.chown(place, 1234, 1234)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o011)
    try:
        assert outcome(devcontainer("up"))["remoteUser"] == "dev"
        done = devcontainer("exec", "sh", "-c", "id -un; cat /word; echo mine > mine")
        assert (done.returncode, done.stdout) == (0, "dev\nbuilt\n"), done.stderr
        facts = (place / "mine").stat()
        assert (facts.st_uid, facts.st_gid) == (1234, 1234)
    finally:
        remove(engine, place)
        images = engine.cli("docker", "images", "-q", "vsc-ws-*").stdout.split()
        assert engine.cli("docker", "rmi", "-f", *set(images)).returncode == 0
        engine.cli("docker", "builder", "prune", "-af")


def test_a_tree_is_copied_in_and_out_unchanged(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    """Do the steps of the extension by hand: a container with labels, ``docker cp``, inspect."""
    source = tmp_path / "tree"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "file").write_text("content\n")
    (source / "deep" / "run").write_text("#!/bin/sh\necho ran\n")
    (source / "deep" / "run").chmod(0o751)
    (source / "link").symlink_to("deep/er/file")
    os.link(source / "deep" / "run", source / "hard")
    folder = f"dev.folder={tmp_path}"
    made = engine.cli("docker", "run", "-d", "--init", "-l", folder, busybox, "sleep", "600")
    name = made.stdout.strip()
    try:
        result = engine.cli("docker", "ps", "-q", "-a", "--no-trunc", "--filter", f"label={folder}")
        assert result.stdout.split() == [name]
        for kind, status in (("container", 0), ("image", 1)):
            assert engine.cli("docker", "inspect", "--type", kind, name).returncode == status
        assert engine.cli("docker", "cp", str(source), f"{name}:/tmp").returncode == 0
        assert engine.cli("docker", "exec", name, "/tmp/tree/hard").stdout == "ran\n"
        done = engine.cli("docker", "cp", f"{name}:/tmp/tree/.", str(tmp_path / "back"))
        assert done.returncode == 0, done.stderr
        done = subprocess.run(
            ["diff", "-r", "--no-dereference", str(source), str(tmp_path / "back")],
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (0, "")
        back = tmp_path / "back"
        assert (back / "deep" / "run").stat().st_mode & 0o777 == 0o751
        assert (back / "link").readlink() == Path("deep/er/file")
        assert (back / "hard").samefile(back / "deep" / "run")
    finally:
        engine.cli("docker", "rm", "-f", name)


def test_a_feature_is_built_into_the_image(
    engine: PrivateEngine, devcontainer: Command, busybox: str, tmp_path: Path
) -> None:
    place = workspace(
        tmp_path, image=busybox, features={"./own": {"word": "given"}}, updateRemoteUserUID=False
    )
    own = place / ".devcontainer" / "own"
    own.mkdir()
    option = {"type": "string", "default": "none"}
    feature = {"id": "own", "version": "1.0.0", "name": "own", "options": {"word": option}}
    (own / "devcontainer-feature.json").write_text(json.dumps(feature))
    (own / "install.sh").write_text('#!/bin/sh\necho "$WORD" > /from-feature\n')
    try:
        outcome(devcontainer("up"))
        read = devcontainer("exec", "cat", "/from-feature")
        assert read.stdout == "given\n", read.stderr
    finally:
        remove(engine, place)
        engine.cli("docker", "builder", "prune", "-af")
