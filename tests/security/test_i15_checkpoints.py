"""I15: a checkpoint is hostile input, and so are the files that it finds when it is restored.

The classes of the vulnerabilities that restores had in other engines:

* CVE-2026-119101 (runc), CVE-2026-115520 (crun), CVE-2026-119614 (criu): links in the root or in a
  volume lead the mounts or files of a restore to directories of the host.
* CVE-2026-18107 (criu): credentials in the images. CVE-2026-92574 (CRI-O), CVE-2026-95837
  (containerd): security settings in the checkpoint. Both come from the spec here.
* CVE-2026-53489 (containerd): a log file that is a link.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import checkpoint_edits, containers
from harness.engine import PrivateEngine
from jaula.features.checkpoint.checkpoint_store import CheckpointStore

pytestmark = pytest.mark.criu

OPEN = ("--userns=host", "--security-opt", "landlock=off", "--security-opt", "seccomp=unconfined")
IN_CREATE = 0x100
SCRIPT = "mkdir -p /data/inner; exec 3>/data/inner/held; rm /data/inner/held"


@contextlib.contextmanager
def checkpointed(
    engine: PrivateEngine, image: str, volume: Path, *flags: str, script: str = SCRIPT
) -> Iterator[str]:
    """Yield a container that ended with the checkpoint "one"; ``volume`` is mounted at /data."""
    name = containers.unique("restored")
    volume.mkdir(mode=0o777, exist_ok=True)
    volume.chmod(0o777)
    mount = ("-v", f"{volume}:/data")
    run = ("run", "-d", "--name", name, "--network", "none", *mount, *flags, image)
    done = engine.cli("jaula", *run, "sh", "-c", f"{script}; while :; do sleep 1; done")
    try:
        assert done.returncode == 0, done.stderr
        deadline = time.monotonic() + 20
        while not (volume / "inner").exists() or (volume / "inner/held").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        done = engine.cli("jaula", "checkpoint", "create", name, "one")
        assert done.returncode == 0, done.stderr
        yield name
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1&v=1")


def start(engine: PrivateEngine, name: str) -> str:
    """Start from the checkpoint; return the error, or '' if the container runs."""
    reply = engine.request("POST", f"/containers/{name}/start?checkpoint=one")
    return "" if reply.status == 204 else str(reply.json()["message"])


@pytest.mark.parametrize("flags", [(), OPEN], ids=["default", "no user namespace"])
def test_a_link_in_a_volume_leads_no_deleted_file_to_the_host(
    engine: PrivateEngine, busybox: str, tmp_path: Path, canary: Path, flags: tuple[str, ...]
) -> None:
    volume = tmp_path / "volume"
    with checkpointed(engine, busybox, volume, *flags) as name:
        shutil.rmtree(volume / "inner")
        (volume / "inner").symlink_to(canary / "directory")
        libc = ctypes.CDLL(None)
        watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            assert libc.inotify_add_watch(watch, bytes(canary / "directory"), IN_CREATE) >= 0
            start(engine, name)
            with pytest.raises(BlockingIOError):  # no file was created, not even for a moment
                os.read(watch, 4096)
        finally:
            os.close(watch)


@pytest.mark.parametrize("flags", [(), OPEN], ids=["default", "no user namespace"])
def test_a_link_in_a_volume_leads_no_mount_to_the_host(
    engine: PrivateEngine, busybox: str, tmp_path: Path, canary: Path, flags: tuple[str, ...]
) -> None:
    volume, other = tmp_path / "volume", tmp_path / "other"
    other.mkdir(mode=0o777)
    more = ("-v", f"{other}:/data/inner", *flags)
    with checkpointed(engine, busybox, volume, *more, script=":") as name:
        (volume / "inner").rmdir()
        (volume / "inner").symlink_to(canary)
        error = start(engine, name)
        if not error:
            listing = engine.cli("jaula", "exec", name, "ls", "/data/inner/").stdout
            assert "secret" not in listing


@pytest.mark.parametrize("target", ["/data", "/etc/hosts", "/proc", "/sys", "/dev"])
def test_a_link_in_the_root_leads_no_mount_to_the_host(
    engine: PrivateEngine, busybox: str, tmp_path: Path, canary: Path, target: str
) -> None:
    with checkpointed(engine, busybox, tmp_path / "volume", *OPEN) as name:
        upper = Path(containers.inspect(engine, name)["GraphDriver"]["Data"]["UpperDir"])
        link = upper / target.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_dir():
            shutil.rmtree(link)
        link.unlink(missing_ok=True)
        link.symlink_to(canary / ("secret" if target == "/etc/hosts" else "directory"))
        if not start(engine, name):
            pid = containers.pid(engine, name)
            assert not (Path(f"/proc/{pid}/root") / target.lstrip("/") / "secret").exists()
            mounts = Path(f"/proc/{pid}/mountinfo").read_text()
            assert str(canary) not in mounts


def edit_of(name: str, canary: Path) -> checkpoint_edits.Edit:
    return next(edit for edit in checkpoint_edits.edits(canary) if edit.name == name)


@pytest.mark.parametrize(
    "edit",
    [
        "all of cap_eff",
        "no filter",
        "root of the host",
        "the host's user namespace",
        "part of /dev",
    ],
)
def test_credentials_and_confinement_come_from_the_spec(
    engine: PrivateEngine,
    busybox: str,
    tmp_path: Path,
    canary: Path,
    edit: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.fsync", lambda _fd: None)  # of the copy
    chosen = edit_of(edit, canary / "secret")
    with checkpointed(engine, busybox, tmp_path / "volume") as name:
        store = CheckpointStore(engine.root / "lib/checkpoints")
        container = containers.inspect(engine, name)["Id"]
        checkpoint_edits.sign_again(store, container, chosen.apply, "edited")
        reply = engine.request("POST", f"/containers/{name}/start?checkpoint=edited")
        assert reply.status == 500
        assert chosen.words in reply.json()["message"]
        assert not containers.inspect(engine, name)["State"]["Running"]


Change = Callable[[Path, Path], None]


def log_link(checkpoint: Path, canary: Path) -> None:
    (checkpoint / "images/criu.log").symlink_to(canary)


def log_link_beside(checkpoint: Path, canary: Path) -> None:
    (checkpoint / "criu.log").symlink_to(canary)


def statistics_link(checkpoint: Path, canary: Path) -> None:
    (checkpoint / "images/stats-restore").symlink_to(canary)


@pytest.mark.parametrize("change", [log_link, log_link_beside, statistics_link])
def test_no_log_is_written_through_a_link(
    engine: PrivateEngine, busybox: str, tmp_path: Path, canary: Path, change: Change
) -> None:
    with checkpointed(engine, busybox, tmp_path / "volume") as name:
        container = containers.inspect(engine, name)["Id"]
        change(engine.root / f"lib/checkpoints/{container}/one", canary / "secret")
        start(engine, name)  # the canary's fixture tells a change
