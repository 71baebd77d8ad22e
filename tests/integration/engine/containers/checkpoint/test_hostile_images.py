"""Edited images with a right MAC: each is refused before CRIU runs, and the host is unchanged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import checkpoint_edits, containers
from harness.engine import PrivateEngine
from jaula.errors import InvalidRequest, JaulaError
from jaula.features.checkpoint.checkpoint_store import CheckpointStore
from jaula.features.checkpoint.runtime import affinity, check_images, criu_images, expected, pages
from jaula.runtime_interfaces import runtime_interfaces
from jaula.spec import runtime_spec

pytestmark = pytest.mark.criu

NAME = "edited"
CONFINED = (
    *("--network", "none", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp"),
    *("--ulimit", "nofile=1024:1024"),
)
STARTED = (
    "all of cap_eff",
    "all of the host's namespaces",
    "part of /dev",
    "truncated file",
    "short pages",
)
"""Edits that are started by the engine; for the others the function that it calls is enough."""
ALARM = "#!/bin/sh\necho called >{fifo}\n"


def test_edited_images_are_refused_before_criu_runs(
    new_engine: Callable[..., PrivateEngine],
    busybox_archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    canary = tmp_path / "canary"
    canary.write_text("unchanged")
    (tmp_path / "bin").mkdir()
    program, real = tmp_path / "bin/criu", shutil.which("criu")
    program.symlink_to(str(real))
    monkeypatch.setenv("PATH", f"{program.parent}", prepend=":")
    engine = new_engine()
    fifo = engine.run / "called"  # CRIU sees no writable directory of the host
    os.mkfifo(fifo)
    alarm = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    engine.cli("jaula", "load", "-i", str(busybox_archive))
    script = "exec 3>/tmp/open; while sleep 1; do :; done"
    run = ("run", "-d", "--name", NAME, *CONFINED, "busybox", "sh", "-c", script)
    assert engine.cli("jaula", *run).returncode == 0
    done = engine.cli("jaula", "checkpoint", "create", NAME, "one")
    assert done.returncode == 0, done.stderr
    container = containers.inspect(engine, NAME)["Id"]
    store = CheckpointStore(engine.root / "lib/checkpoints")
    spec = runtime_spec.decode(
        (engine.root / "lib/containers" / container / "config.json").read_bytes()
    )
    state = runtime_spec.State(container, "creating", "/")
    confinement = expected.of_container(spec, state, runtime_interfaces(), seccomp_cache=None)
    monkeypatch.setattr("os.fsync", lambda _fd: None)  # of the copies
    failures = []
    program.unlink()
    program.write_text(ALARM.format(fifo=fifo))
    program.chmod(0o755)
    check(store.verify(store.read(container, "one")), confinement)
    for edit in checkpoint_edits.edits(canary):
        try:
            made = checkpoint_edits.sign_again(store, container, edit.apply, "edited")
        except JaulaError:
            assert edit.name == "link"  # the store signs plain files only
            continue
        if edit.name in STARTED:
            reply = engine.request("POST", f"/containers/{NAME}/start?checkpoint=edited")
            message = f"{reply.status}: {reply.body.decode()}"
        else:
            message = refusal(store.verify(store.read(container, "edited")), confinement)
            assert made.is_dir()
        if edit.words not in message or "Traceback" in message:
            failures.append((edit.name, edit.words, message))
        store.remove(container, "edited")
    assert not failures, "\n".join(str(each) for each in failures)
    with pytest.raises(BlockingIOError):
        os.read(alarm, 64)
    assert canary.read_text() == "unchanged"
    assert engine.cli("jaula", "start", "--checkpoint", "one", NAME).returncode != 0
    assert os.read(alarm, 64) == b"called\n"
    os.close(alarm)
    assert not containers.inspect(engine, NAME)["State"]["Running"]
    program.unlink()
    program.symlink_to(str(real))
    assert engine.cli("jaula", "start", "--checkpoint", "one", NAME).returncode == 0


def check(directory: Path, confinement: check_images.Expected) -> None:
    """Check images as a restore does, before it starts CRIU."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        check_images.check(criu_images.read_all(fd), confinement)
        pages.check(fd)
        affinity.read(fd)
    finally:
        os.close(fd)


def refusal(directory: Path, confinement: check_images.Expected) -> str:
    """Return the error about images."""
    with pytest.raises(InvalidRequest) as caught:
        check(directory, confinement)
    return caught.value.message
