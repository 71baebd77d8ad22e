"""Each command that takes the file of a profile, with files that are made to harm it.

``update`` and ``check`` take none.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from harness import containers
from harness.containers import running
from harness.engine import PrivateEngine
from harness.hostile_profiles import HOSTILE

GOOD = 'version = 1\nname = "good"\ncapabilities = ["NET_BIND_SERVICE"]\n'
DOCUMENTS = {**HOSTILE, "large": "#" * 600_000 + "\nx = y\n"}
SECONDS = 20.0
COMMANDS = {
    "run": ("run", "--rm", "--profile", "FILE", "busybox", "true"),
    "create": ("create", "--profile", "FILE", "busybox", "true"),
    "harden apply": ("harden", "apply", "FILE", "NAME"),
    "harden check": ("harden", "check", "--time", "1s", "FILE", "NAME"),
    "harden diff": ("harden", "diff", "FILE", "FILE"),
    "harden": ("harden", "--profile", "FILE"),
    "verify": ("verify", "--probe", "--profile", "FILE", "NAME"),
}


@pytest.fixture(scope="module")
def name(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    with running(engine, busybox, "sleep", "600") as made:
        yield made


def refuse(engine: PrivateEngine, command: str, file: str, name: str, *words: str) -> None:
    """Check that a command refuses a file soon, in one short line, and changes nothing."""
    before = {row["Id"] for row in engine.request("GET", "/containers/json?all=1").json()}
    start = time.monotonic()
    line = [{"FILE": file, "NAME": name}.get(word, word) for word in COMMANDS[command]]
    done = engine.cli("jaula", *line, timeout=60)
    assert time.monotonic() - start < SECONDS
    assert done.returncode in (1, 125), done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 2000
    for word in ("rofile" if not words else "", *words):
        assert word in done.stderr, done.stderr
    assert {row["Id"] for row in engine.request("GET", "/containers/json?all=1").json()} == before
    assert containers.inspect(engine, name)["State"]["Running"]


@pytest.mark.parametrize("text", DOCUMENTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_hostile_document_is_refused(
    engine: PrivateEngine, name: str, tmp_path: Path, command: str, text: str
) -> None:
    file = tmp_path / "hostile.toml"
    file.write_text(DOCUMENTS[text])
    refuse(engine, command, str(file), name)


@pytest.mark.parametrize("command", COMMANDS)
def test_files_that_are_not_plain_are_refused_or_read_with_a_bound(
    engine: PrivateEngine, name: str, tmp_path: Path, command: str
) -> None:
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)
    refuse(engine, command, str(loop), name, "Too many levels of symbolic links")
    refuse(engine, command, "/dev/zero", name)
    refuse(engine, command, str(tmp_path) + "/", name, "Is a directory")
    hostile = tmp_path / "hostile.toml"
    hostile.write_text(HOSTILE["dots"])
    link = tmp_path / "link.toml"
    link.symlink_to(hostile)
    refuse(engine, command, str(link), name)


@contextmanager
def fifo(path: Path, content: bytes, repeat: int = 1) -> Iterator[str]:
    """Make a FIFO, and write to it for its first reader."""
    os.mkfifo(path)

    def write() -> None:
        with open(path, "wb", buffering=0) as file, suppress(BrokenPipeError):
            for _ in range(repeat):
                file.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    yield str(path)
    writer.join(60)
    assert not writer.is_alive()


@pytest.mark.parametrize("command", [each for each in COMMANDS if each != "harden diff"])
def test_an_endless_fifo_is_read_with_a_bound(
    engine: PrivateEngine, name: str, tmp_path: Path, command: str
) -> None:
    with fifo(tmp_path / "fifo.toml", b"#" * 65536, 1 << 20) as file:
        refuse(engine, command, file, name)


@pytest.mark.parametrize(
    ("command", "output"), [("run", "0000000000000400"), ("harden", 'name = "good"')]
)
def test_a_fifo_may_have_the_profile(
    engine: PrivateEngine, busybox: str, tmp_path: Path, command: str, output: str
) -> None:
    """As that of a shell's ``<(...)``."""
    words = {
        "run": ("--rm", "FILE", busybox, "grep", "CapBnd", "/proc/self/status"),
        "harden": ("FILE",),
    }
    with fifo(tmp_path / "fifo.toml", GOOD.encode()) as file:
        line = (part for each in words[command] for part in _flag(each, file))
        done = engine.cli("jaula", command, *line)
    assert done.returncode == 0, done.stderr
    assert output in done.stdout, done


def _flag(word: str, file: str) -> tuple[str, ...]:
    return ("--profile", file) if word == "FILE" else (word,)


@pytest.mark.parametrize("text", DOCUMENTS)
def test_an_update_takes_no_profile(engine: PrivateEngine, name: str, text: str) -> None:
    before = containers.inspect(engine, name)["HostConfig"]
    answer = engine.request("POST", f"/containers/{name}/update", {"Profile": DOCUMENTS[text]})
    assert answer.status in (200, 400), answer
    assert containers.inspect(engine, name)["HostConfig"] == before
