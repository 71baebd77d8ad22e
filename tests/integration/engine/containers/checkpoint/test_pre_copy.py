"""Pre-copy: memory is written in rounds while the container runs, and the last one is short."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.checkpoints import CheckedContainer
from harness.engine import PROJECT, PrivateEngine
from jaula.features.checkpoint.runtime.criu import Criu

pytestmark = pytest.mark.criu

TMPFS = ("--tmpfs", "/work")
CRASHES = """#!{python}
# CRIU that says that the kernel tracks pages, and crashes in round {round} of a pre-copy.
import os, signal, socket, sys
sys.path[:0] = {path!r}
from jaula.features.checkpoint.runtime.proto import rpc_pb2 as rpc
sock = socket.socket(fileno=int(sys.argv[-1]))
request = rpc.Request.FromString(sock.recv(65536, socket.MSG_PEEK))
if request.type == rpc.FEATURE_CHECK:
    features = rpc.Features(mem_track=True)
    answer = rpc.Response(type=rpc.FEATURE_CHECK, success=True, features=features)
    sock.send(answer.SerializeToString())
elif request.type == rpc.PRE_DUMP and bool(request.options.parent_images) == ({round} > 1):
    os.kill(os.getpid(), signal.SIGSEGV)
else:
    os.set_inheritable(sock.fileno(), True)
    os.execv({real!r}, sys.argv)
"""


def tracks_memory() -> bool:
    with Criu() as service:
        return service.tracks_memory()


@pytest.fixture
def kept(engine: PrivateEngine) -> Iterator[CheckedContainer]:
    container = CheckedContainer(engine, TMPFS, ("threads", "memory", "connections"))
    container.rounds(3)
    yield container
    container.remove()


def inspect(engine: PrivateEngine, name: str) -> dict[str, object]:
    document: dict[str, object] = engine.request(
        "GET", f"/jaula/containers/{name}/checkpoints/one"
    ).json()
    return document


def test_a_container_goes_on_from_a_checkpoint_with_rounds(
    engine: PrivateEngine, kept: CheckedContainer
) -> None:
    if not tracks_memory():
        pytest.skip("this kernel does not track written pages")
    done = engine.cli("jaula", "checkpoint", "create", "--pre-copy", "3", "--tcp-established",
                      kept.name, "one")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "round 1: " in done.stderr
    assert "the container stood still for " in done.stderr
    document = inspect(engine, kept.name)
    assert document["Usable"] is True, document
    rounds = document["PreCopy"]
    assert isinstance(rounds, list)
    assert 1 <= len(rounds) <= 3
    (made,) = (engine.root / "lib/checkpoints").glob("*/one")
    assert sorted(path.name for path in made.iterdir() if path.name.startswith("round")) == []
    last = sum(path.stat().st_size for path in (made / "images").glob("pages-*"))
    assert last < rounds[0] / 2
    kept.start()
    kept.advance()


def test_an_edited_round_is_refused(engine: PrivateEngine, kept: CheckedContainer) -> None:
    if not tracks_memory():
        pytest.skip("this kernel does not track written pages")
    kept.create("--pre-copy", "1", "--tcp-established")
    (pages,) = (engine.root / "lib/checkpoints").glob("*/one/images/before-1.pages-1.img")
    with pages.open("r+b") as file:
        file.write(b"x")
    assert "before-1.pages-1.img was changed" in kept.refused(
        "start", "--checkpoint", "one", kept.name
    )


def test_a_kernel_that_does_not_track_pages_has_one_sentence_and_the_plain_way(
    engine: PrivateEngine, kept: CheckedContainer
) -> None:
    if tracks_memory():
        pytest.skip("this kernel tracks written pages")
    done = engine.cli("jaula", "checkpoint", "create", "--pre-copy", "3", "--tcp-established",
                      kept.name, "one")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "no pre-copy: this kernel does not track written pages" in done.stderr
    assert inspect(engine, kept.name)["PreCopy"] == []
    kept.start()
    kept.advance()


def test_a_number_of_rounds_is_checked(engine: PrivateEngine, kept: CheckedContainer) -> None:
    for number in ("-1", "17"):
        error = kept.refused("checkpoint", "create", "--pre-copy", number, kept.name, "one")
        assert "0 to 16 rounds" in error
    assert containers.inspect(engine, kept.name)["State"]["Running"]


@pytest.mark.parametrize("number", [1, 2])
def test_after_a_crash_in_a_round_all_memory_is_written_while_it_stands_still(
    new_engine: Callable[..., PrivateEngine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    if number > 1 and not tracks_memory():
        pytest.skip("this kernel does not track written pages")
    program, real = tmp_path / "criu", str(shutil.which("criu"))
    path = [str(PROJECT / "src"), *sys.path]
    program.write_text(CRASHES.format(python=sys.executable, round=number, path=path, real=real))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    engine = new_engine()
    kept = CheckedContainer(engine, TMPFS, ("threads", "memory", "connections"))
    kept.rounds(3)
    done = engine.cli("jaula", "checkpoint", "create", "--pre-copy", "3", "--tcp-established",
                      kept.name, "one")  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "one\n"), done.stderr
    assert f"warning: round {number} failed, so all memory was written" in done.stderr
    assert "no pre-copy" not in done.stderr
    document = inspect(engine, kept.name)
    assert document["Usable"] is True, document
    assert "criu ended" in str(document["PreCopyFailure"])
    rounds = document["PreCopy"]
    assert isinstance(rounds, list)
    assert len(rounds) == number - 1
    (made,) = (engine.root / "lib/checkpoints").glob("*/one")
    assert not list(made.glob("round*"))
    last = sum(path.stat().st_size for path in (made / "images").glob("pages-*"))
    assert last > 1 << 20
    program.unlink()
    program.symlink_to(real)
    kept.start()
    kept.advance()
