"""Output is plain text without a terminal, on a dumb one, and has no colours with NO_COLOR."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PROJECT, PrivateEngine
from harness.terminal import Terminal
from jaula.cli import command_table
from jaula.cli.main import main

COLOR = re.compile(r"\x1b\[[0-9;]*m")
JAULA = str(PROJECT / "jaula")

# Command lines with their output; NAME is a running container, FILE a new path, IMAGE an image.
COMMANDS = """
ps -a
images
images --tree
inspect NAME
logs NAME
top NAME
stats --no-stream NAME
cgtop --batch
port NAME
diff NAME
history IMAGE
image inspect IMAGE
image verify IMAGE
image sbom IMAGE
image audit IMAGE
save -o FILE IMAGE
load -i FILE
export -o FILE.tree NAME
import FILE.tree imported:plain
commit NAME committed:plain
cp NAME:/etc/hosts FILE.hosts
rmi imported:plain committed:plain
volume ls
network ls
network inspect bridge
secret ls
config ls
context ls
events --since 1m --until 0s
info
version
check
doctor
system df -v
system check
system audit-log
container prune -f
image prune -f
volume prune -f
network prune -f
builder prune -f
tree NAME
caps a80425fb
verify NAME
verify --list
audit --containers --no-history
record --for 1s -o FILE.record NAME
record show FILE.record
harden NAME --record FILE.record
help topics
help networks
no-such-command
run --no-such-flag
inspect no-such-name
run --rm no-such-host.example/image
"""


@pytest.mark.parametrize("words", sorted({*command_table.commands(), *command_table.groups()}))
def test_help_is_plain_text(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", *words.split()]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_no_command_prints_an_escape_without_a_terminal(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    environment = engine.environment() | {"TERM": "xterm-256color"}
    with containers.running(engine, busybox) as name:
        for line in COMMANDS.split("\n"):
            words = [
                word.replace("NAME", name).replace("IMAGE", busybox)
                .replace("FILE", str(tmp_path / "file"))
                for word in line.split()
            ]  # fmt: skip
            done = engine.cli("jaula", *words, env=environment)
            assert "\x1b" not in done.stdout + done.stderr, line


@pytest.mark.parametrize(
    ("variables", "escapes", "colors"),
    [
        (["TERM=xterm"], True, True),
        (["TERM=xterm", "NO_COLOR=1"], True, False),
        (["TERM=dumb"], False, False),
    ],
)
def test_a_build_on_a_terminal_follows_the_environment(
    variables: list[str],
    escapes: bool,
    colors: bool,
    engine: PrivateEngine,
    busybox: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox}\nRUN true\n")
    words = ["env", *variables, JAULA, "build", "--no-cache", str(tmp_path)]
    with Terminal(words, engine.environment()) as terminal:
        assert terminal.wait() == 0
    assert ("\x1b[" in terminal.seen) is escapes
    assert bool(COLOR.search(terminal.seen)) is colors


def test_the_flag_switches_colours_off(engine: PrivateEngine, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox}\nRUN true\n")
    words = [JAULA, "--no-color", "build", "--no-cache", str(tmp_path)]
    with Terminal(words, engine.environment()) as terminal:
        assert terminal.wait() == 0
    assert "\x1b[" in terminal.seen
    assert not COLOR.search(terminal.seen)


def test_a_mistyped_name_has_a_hint_on_a_terminal_only(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox) as name:
        mistyped = name[:-2] + name[-1] + name[-2] if name[-1] != name[-2] else name + "x"
        piped = engine.cli("jaula", "stop", mistyped)
        assert piped.stderr == f"Error response from daemon: No such container: {mistyped}\n"
        with Terminal([JAULA, "stop", mistyped], engine.environment()) as terminal:
            assert terminal.wait() == 1
        assert f"Did you mean {name}" in terminal.seen
