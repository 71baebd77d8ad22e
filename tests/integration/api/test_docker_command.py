"""The docker command line against the engine: answers have Docker's form."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess

import pytest

from harness.engine import PrivateEngine
from harness.terminal import Terminal

Run = Callable[..., "CompletedProcess[str]"]

pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command")


@pytest.fixture
def name(engine: PrivateEngine) -> Iterator[str]:
    """A container's name of the test's own; what has it at the end is removed."""
    chosen = f"jlt-{uuid.uuid4().hex[:12]}"
    yield chosen
    engine.request("DELETE", f"/containers/{chosen}?force=1&v=1")


def _sleeper(docker: Run, name: str, busybox: str, *flags: str) -> None:
    script = "trap exit TERM; echo out; echo err >&2; while :; do sleep 0.05; done"
    done = docker("run", "-d", "--name", name, *flags, busybox, "sh", "-c", script)
    assert done.returncode == 0, done.stderr


def test_run_gives_output_and_exit_status(docker: Run, busybox: str) -> None:
    done = docker("run", "--rm", busybox, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


@pytest.mark.parametrize(("program", "status"), [("/nosuch", 127), ("/etc", 126)])
def test_run_of_a_program_that_cannot_start(
    docker: Run, busybox: str, program: str, status: int
) -> None:
    assert docker("run", "--rm", busybox, program).returncode == status


def test_run_of_an_unknown_image_tries_to_pull_it(docker: Run) -> None:
    done = docker("run", "--rm", "127.0.0.1:9/nosuch:2", "true")
    assert done.returncode == 125
    assert "Unable to find image '127.0.0.1:9/nosuch:2' locally" in done.stderr
    assert "connection refused" in done.stderr


def test_megabytes_pass_through_run_in_both_directions(docker: Run, busybox: str) -> None:
    text = "".join(f"line {number}\n" for number in range(300_000))
    done = docker("run", "-i", "--rm", busybox, "cat", input=text)
    assert done.returncode == 0
    assert done.stdout == text


def test_megabytes_pass_through_exec_in_both_directions(
    docker: Run, busybox: str, name: str
) -> None:
    _sleeper(docker, name, busybox)
    text = "".join(f"line {number}\n" for number in range(300_000))
    done = docker("exec", "-i", name, "cat", input=text)
    assert (done.returncode, done.stdout == text) == (0, True)
    failed = docker("exec", name, "sh", "-c", "echo err >&2; exit 3")
    assert (failed.returncode, failed.stdout, failed.stderr) == (3, "", "err\n")
    assert docker("exec", name, "nosuch").returncode == 127


def test_a_terminal_is_resized_and_left_by_the_detach_keys(
    engine: PrivateEngine, busybox: str, name: str
) -> None:
    command = ["docker", "run", "-it", "--name", name, busybox, "sh"]
    with Terminal(command, engine.environment(), rows=30, columns=90) as terminal:
        terminal.expect("[#$] ")
        terminal.send("stty size\n")
        terminal.expect(r"30 90")
        terminal.resize(20, 70)
        terminal.send("sleep 0.3; stty size\n")
        terminal.expect(r"20 70")
        terminal.send("\x10\x11")
        assert terminal.wait() == 0
    state = engine.request("GET", f"/containers/{name}/json").json()["State"]
    assert state["Running"] is True


def test_logs_are_followed_to_the_end_with_each_stream_on_its_own(
    docker: Run, busybox: str, name: str
) -> None:
    script = "for i in 1 2 3; do echo o$i; echo e$i >&2; sleep 0.1; done"
    assert docker("run", "-d", "--name", name, busybox, "sh", "-c", script).returncode == 0
    followed = docker("logs", "-f", name)
    assert (followed.stdout, followed.stderr) == ("o1\no2\no3\n", "e1\ne2\ne3\n")
    assert docker("logs", "--tail", "1", name).stderr == "e3\n"
    stamped = docker("logs", "-t", "--tail", "1", name).stderr
    assert stamped.startswith("20")
    assert stamped.endswith("Z e3\n")


def test_the_life_of_a_container(docker: Run, busybox: str, name: str) -> None:
    _sleeper(docker, name, busybox, "--label", "tested=yes", "-e", "A=b")
    for command in [
        ("ps", "-q", "--filter", f"name={name}"),
        ("top", name),
        ("diff", name),
        ("port", name),
        ("pause", name),
        ("unpause", name),
        ("update", "-m", "80m", "--memory-swap", "-1", name),
        ("stats", "--no-stream", name),
        ("restart", "-t", "5", name),
        ("stop", "-t", "5", name),
        ("wait", name),
        ("start", name),
        ("kill", name),
    ]:
        done = docker(*command)
        assert done.returncode == 0, (command, done.stderr)
    document = json.loads(docker("inspect", name).stdout)[0]
    assert document["Config"]["Labels"] == {"tested": "yes"}
    assert document["HostConfig"]["Memory"] == 80 * 1024 * 1024
    other = f"{name}-b"
    assert docker("rename", name, other).returncode == 0
    assert docker("rm", "-f", other).stdout == f"{other}\n"


def test_start_with_attach_gives_the_output_of_this_run_only(
    docker: Run, busybox: str, name: str
) -> None:
    assert docker("create", "--name", name, busybox, "echo", "once").returncode == 0
    for _ in range(2):
        assert docker("start", "-a", name).stdout == "once\n"


def test_images_are_saved_and_loaded(
    docker: Run, busybox: str, name: str, engine: PrivateEngine
) -> None:
    archive = str(engine.root / f"{name}.tar")
    tag = f"{name}:1"
    assert docker("tag", busybox, tag).returncode == 0
    assert docker("save", tag, "-o", archive).returncode == 0
    assert f"Untagged: {tag}" in docker("rmi", tag).stdout
    assert f"Loaded image: {tag}" in docker("load", "-i", archive).stdout
    assert docker("image", "inspect", tag).returncode == 0
    assert docker("history", tag).returncode == 0
    assert docker("rmi", tag).returncode == 0
    assert docker("create", "--name", name, busybox).returncode == 0
    assert docker("export", name, "-o", archive).returncode == 0
    imported = docker("import", "-c", 'CMD ["echo", "hi"]', archive, tag)
    assert imported.returncode == 0, imported.stderr
    assert docker("run", "--rm", tag).stdout == "hi\n"
    assert docker("rmi", tag).returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        ("version",),
        ("info",),
        ("images", "-a", "--digests"),
        ("volume", "ls"),
        ("network", "ls"),
        ("network", "inspect", "bridge"),
        ("plugin", "ls"),
        ("system", "df"),
        ("system", "df", "-v"),
        ("events", "--since", "1s", "--until", "0s"),
        ("volume", "prune", "-f"),
        ("builder", "prune", "-f"),
        ("network", "prune", "-f"),
    ],
)
def test_a_query_command_is_answered(
    docker: Run, engine: PrivateEngine, command: tuple[str, ...]
) -> None:
    done = docker(*command)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "needle"),
    [
        (("node", "ls"), "This node is not a swarm manager"),
        (("search", "127.0.0.1:9/x"), "connection refused"),
        (("pull", "127.0.0.1:9/nosuch:1"), "connection refused"),
        (("inspect", "nosuch"), "No such object: nosuch"),
        (("rm", "nosuch"), "No such container: nosuch"),
        (("volume", "rm", "nosuch"), "nosuch"),
    ],
)
def test_a_missing_object_is_reported_in_one_line(
    docker: Run, engine: PrivateEngine, command: tuple[str, ...], needle: str
) -> None:
    done = docker(*command)
    assert done.returncode == 1
    assert needle in done.stderr
    assert "Traceback" not in done.stderr
