"""An engine whose file system is full or read-only: it starts, and answers with the remedy."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from conftest import image_archive, load_image
from harness import loop_mount
from harness.engine import PrivateEngine, Reply

INODES = 1024
FULL = "free some space and try again"
READ_ONLY = "make the file system writable and try again"


@pytest.fixture
def engine(new_engine: Callable[..., PrivateEngine], tmp_path: Path) -> Iterator[PrivateEngine]:
    """Return an engine with an image, on ext4 with few inodes. Its audit log can be written."""
    private = new_engine("--storage-driver", "overlay", start=False)
    library = private.root / "lib"
    library.mkdir()
    maker = ("mkfs.ext4", "-q", "-N", str(INODES))
    with (
        loop_mount.mounted(tmp_path, *maker, options="errors=remount-ro") as disk,
        ExitStack() as mounts,
    ):

        def mount(*words: str) -> None:
            subprocess.run(["mount", *words], check=True)
            mounts.callback(subprocess.run, ["umount", words[-1]], check=True)

        mount("--bind", str(disk), str(library))
        (library / "audit").mkdir()
        mount("-t", "tmpfs", "tmpfs", str(library / "audit"))
        try:
            private.start()
            load_image(private, "busybox")
            yield private
        finally:
            if private.process is not None:
                private.kill()


def run(engine: PrivateEngine, *words: str) -> str:
    done = engine.cli("jaula", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def take_inodes(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    try:
        for number in range(2 * INODES):
            (directory / str(number)).touch()
    except OSError:
        pass
    assert os.statvfs(directory).f_ffree == 0


def make_read_only(library: Path) -> None:
    """Report an error to the file system, which refuses every write from then on."""
    rows = [row.split() for row in Path("/proc/self/mountinfo").read_text().splitlines()]
    (device,) = [row[row.index("-") + 2] for row in rows if row[4] == str(library)]
    Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("1")


def archive(**files: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return data.getvalue()


def build(engine: PrivateEngine, instruction: str) -> Reply:
    context = archive(Dockerfile=f"FROM busybox\n{instruction}\n", file="x" * 5000)
    return engine.request("POST", "/build?q=1", context)


def message(reply: Reply) -> str:
    return str(json.loads(reply.body)["message"])


@pytest.mark.parametrize("killed", [False, True])
def test_an_engine_starts_without_free_inodes(engine: PrivateEngine, killed: bool) -> None:
    run(engine, "run", "--name", "old", "busybox", "true")
    filler = engine.root / "lib" / "filler"
    take_inodes(filler)
    if killed:
        engine.kill()
    else:
        assert engine.stop() == 0
    engine.start()
    (row,) = engine.request("GET", "/containers/json?all=1").json()
    assert row["Names"] == ["/old"]
    run(engine, "rm", "old")
    for path in filler.iterdir():
        path.unlink()
    assert run(engine, "run", "--rm", "busybox", "echo", "again") == "again\n"
    engine.discard()


@pytest.mark.parametrize("reason", [FULL, READ_ONLY], ids=["full", "read-only"])
def test_every_request_that_writes_is_answered_with_the_remedy(
    engine: PrivateEngine, reason: str
) -> None:
    assert build(engine, "RUN true").status == 200  # the directories of builds exist now
    run(engine, "run", "--name", "dead", "busybox", "true")
    run(engine, "create", "--name", "live", "-v", "vol:/v", "busybox", "sleep", "1000")
    live = "live"
    if reason == FULL:
        run(engine, "start", live)
        take_inodes(engine.root / "lib" / "filler")
    else:
        make_read_only(engine.root / "lib")
    create = {"Image": "busybox", "Cmd": ["true"]}
    tar = archive(new="x" * 5000)
    requests = (
        ("POST", "/containers/create", create),
        ("POST", "/containers/create", create | {"Volumes": {"/x": {}}}),
        ("POST", "/containers/dead/start", None),
        ("PUT", "/containers/dead/archive?path=/", tar),
        ("PUT", "/containers/live/archive?path=/v", tar),
        ("POST", "/commit?container=dead&repo=made", None),
        ("POST", "/images/busybox/tag?repo=other", None),
        ("POST", "/images/load?quiet=1", image_archive("busybox").read_bytes()),
        ("POST", "/images/create?fromSrc=-&repo=imported", tar),
        ("POST", "/volumes/create", {"Name": "volume"}),
        ("POST", "/secrets/create", {"Name": "secret", "Data": "eHg="}),
    )
    for method, path, body in requests:
        reply = engine.request(method, path, body)
        assert (reply.status, reason in message(reply)) == (503, True), (path, reply)
    for instruction in ("RUN echo x > /x", "COPY file /", "WORKDIR /a/b", "ENV a=b"):
        reply = build(engine, instruction)
        assert (reply.status, reason in message(reply)) == (503, True), (instruction, reply)
    if reason == FULL:
        engine.discard()
    else:
        engine.stop()
    assert "Traceback" not in engine.log_tail(1 << 20)


def test_a_build_that_runs_out_of_inodes_anywhere_is_answered_with_the_remedy(
    engine: PrivateEngine,
) -> None:
    assert build(engine, "RUN true").status == 200
    filler = engine.root / "lib" / "filler"
    statuses = set()
    for free in range(0, 40, 3):
        take_inodes(filler)
        for path in list(filler.iterdir())[:free]:
            path.unlink()
        reply = build(engine, f"RUN true {free}")
        statuses.add(reply.status)
        assert reply.status == 200 or FULL in message(reply), (free, reply)
    assert statuses == {200, 503}
    engine.discard()
