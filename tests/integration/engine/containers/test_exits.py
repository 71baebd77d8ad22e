"""Exits beside other requests: waits with a restart policy, removal beside a restart, pauses."""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import struct
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers
from harness.container_records import records
from harness.containers import eventually, inspect
from harness.engine import PrivateEngine, Reply

NET_BIND_SERVICE = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
"""A capability of a file (linux/capability.h, VFS_CAP_REVISION_2)."""
REMOVALS = int(os.environ.get("JAULA_REMOVALS", "20"))


@pytest.fixture
def restarting(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    """A container that exits with 3 after half a second and is restarted."""
    name = containers.unique("restarting")
    body = {
        "Image": busybox,
        "Cmd": ["sh", "-c", "sleep 0.5; exit 3"],
        "HostConfig": {"RestartPolicy": {"Name": "always"}},
    }
    assert engine.request("POST", f"/containers/create?name={name}", body).status == 201
    yield name
    engine.request("DELETE", f"/containers/{name}?force=1")


@pytest.mark.parametrize("query", ["", "?condition=not-running", "?condition=next-exit"])
def test_a_wait_ends_with_an_exit_that_a_restart_follows(
    engine: PrivateEngine, restarting: str, query: str
) -> None:
    engine.request("POST", f"/containers/{restarting}/start")
    reply = engine.request("POST", f"/containers/{restarting}/wait{query}", timeout=20)
    assert reply.json()["StatusCode"] == 3


def test_a_wait_for_the_removal_outlasts_a_restart(engine: PrivateEngine, restarting: str) -> None:
    replies: list[Reply] = []

    def wait() -> None:
        path = f"/containers/{restarting}/wait?condition=removed"
        replies.append(engine.request("POST", path))

    engine.request("POST", f"/containers/{restarting}/start")
    waiting = threading.Thread(target=wait)
    waiting.start()
    eventually(lambda: inspect(engine, restarting)["RestartCount"] > 1, "it is restarted")
    assert not replies
    assert engine.request("DELETE", f"/containers/{restarting}?force=1").status == 204
    waiting.join(20)
    assert replies[0].status == 200


@pytest.mark.parametrize("program", ["docker", "jaula"])
@pytest.mark.parametrize("words", [("start", "-a"), ("start", "-ai")])
def test_an_attached_client_ends_with_an_exit_that_a_restart_follows(
    engine: PrivateEngine, restarting: str, program: str, words: tuple[str, ...]
) -> None:
    assert engine.cli(program, *words, restarting, timeout=20).returncode == 3


@pytest.mark.parametrize("program", ["docker", "jaula"])
def test_run_and_attach_end_with_an_exit_that_a_restart_follows(
    engine: PrivateEngine, busybox: str, program: str
) -> None:
    name = containers.unique("restarting")
    words = ("--restart", "always", "--name", name, busybox, "sh", "-c", "sleep 1; exit 3")
    try:
        assert engine.cli(program, "run", *words, timeout=20).returncode == 3
        eventually(lambda: inspect(engine, name)["State"]["Status"] == "running", "it runs again")
        assert engine.cli(program, "attach", name, timeout=20).returncode == 3
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


@pytest.mark.slow
def test_a_removal_beside_a_restart_leaves_nothing(engine: PrivateEngine, busybox: str) -> None:
    body = {
        "Image": busybox,
        "Cmd": ["true"],
        "HostConfig": {"RestartPolicy": {"Name": "always"}},
    }
    random.seed(12)
    failures: list[str] = []

    def client(number: int) -> None:
        for count in range(REMOVALS):
            name = f"removed-{os.getpid()}-{number}-{count}"
            engine.request("POST", f"/containers/create?name={name}", body)
            engine.request("POST", f"/containers/{name}/start")
            time.sleep(random.uniform(0.05, 0.45))  # the first restart begins after 0.1 seconds
            reply = engine.request("DELETE", f"/containers/{name}?force=1")
            if reply.status != 204:
                failures.append(reply.body.decode())

    clients = [threading.Thread(target=client, args=(number,)) for number in range(3)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert failures == []
    left = engine.request("GET", "/containers/json?all=1").json()
    assert [c["Names"] for c in left if c["Names"][0].startswith("/removed-")] == []


def test_a_start_soon_after_the_kill_of_its_shim_finds_no_cgroup_in_use(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine = new_engine()
    load_image(engine, "busybox")
    assert engine.process is not None
    zygote = containers.zygote(engine)
    random.seed(12)
    for count in range(8):
        name = f"killed{count}"
        words = ("create", "--name", name, "busybox", "sleep", "600")
        assert engine.cli("jaula", *words).returncode == 0
        before = children(zygote)
        start = threading.Thread(
            target=lambda name=name: engine.request("POST", f"/containers/{name}/start")
        )
        start.start()
        while not (shims := children(zygote) - before) and start.is_alive():
            time.sleep(0.001)
        time.sleep(random.uniform(0.005, 0.03))
        for shim in shims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(shim, signal.SIGKILL)
        start.join()
        for again in ("start", "restart?t=0"):
            reply = engine.request("POST", f"/containers/{name}/{again}")
            assert reply.status in (204, 304), reply
        assert engine.request("DELETE", f"/containers/{name}?force=1").status == 204


def children(process: int) -> set[int]:
    return {
        int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    }


# -- export ----------------------------------------------------------------------------------------


def test_export_of_a_running_container_has_its_files_without_its_mounts(
    engine: PrivateEngine, busybox: str
) -> None:
    change = "mkdir /made; echo a > /made/f; chown 7:8 /made/f; rm /etc/group; echo v > /data/v"
    with containers.running(engine, busybox, flags=("-v", "/data", "--tmpfs", "/tmp")) as name:
        assert engine.cli("jaula", "exec", name, "sh", "-c", change).returncode == 0
        upper = engine.root / "lib" / "containers" / inspect(engine, name)["Id"] / "upper"
        os.setxattr(upper / "made/f", "security.capability", NET_BIND_SERVICE)
        running = members(engine.request("GET", f"/containers/{name}/export").body)
        engine.request("POST", f"/containers/{name}/stop?t=0")
        stopped = members(engine.request("GET", f"/containers/{name}/export").body)
    assert running == stopped
    assert running["made/f"][:2] == (7, 8)
    assert running["made/f"][-1]
    assert "data/v" not in running
    assert "etc/group" not in running
    assert not [name for name in running if name.startswith("proc/")]


def members(body: bytes) -> dict[str, tuple[int, int, int, int, float, str]]:
    """Return owner, mode, size, time and extended attributes of each member."""
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        return {m.name: (m.uid, m.gid, m.mode, m.size, m.mtime, xattrs(m.pax_headers)) for m in tar}


def xattrs(headers: Mapping[str, str]) -> str:
    return repr({k: v for k, v in headers.items() if k.startswith("SCHILY.xattr.")} or "")[1:-1]


# -- pauses ----------------------------------------------------------------------------------------


def freezer(process: int) -> tuple[Path, str, str]:
    """Return the file that freezes a container, and its values for frozen and thawed."""
    base, path = Path("/sys/fs/cgroup"), ""
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "freezer":
            return base / "freezer" / path.lstrip("/") / "freezer.state", "FROZEN", "THAWED"
    return base / path.lstrip("/") / "cgroup.freeze", "1", "0"


def freeze(process: int) -> None:
    file, frozen, _ = freezer(process)
    file.write_text(frozen)
    eventually(lambda: is_frozen(process), "it is frozen")


def is_frozen(process: int) -> bool:
    file, frozen, _ = freezer(process)
    return file.read_text().strip() == frozen


def test_a_container_that_another_program_froze_is_paused(
    engine: PrivateEngine, busybox: str
) -> None:
    with containers.running(engine, busybox) as name:
        process = containers.pid(engine, name)
        freeze(process)
        state = inspect(engine, name)["State"]
        assert (state["Status"], state["Paused"]) == ("paused", True)
        assert engine.request("POST", f"/containers/{name}/pause").status == 409
        assert engine.request("POST", f"/containers/{name}/unpause").status == 204
        assert not is_frozen(process)
        assert inspect(engine, name)["State"]["Status"] == "running"
        freeze(process)
        assert engine.request("POST", f"/containers/{name}/unpause").status == 204
        freeze(process)
        assert engine.request("DELETE", f"/containers/{name}?force=1").status == 204
        assert not Path(f"/proc/{process}").exists()


def test_a_container_that_another_program_thawed_is_running(
    engine: PrivateEngine, busybox: str
) -> None:
    with containers.running(engine, busybox) as name:
        assert engine.request("POST", f"/containers/{name}/pause").status == 204
        file, _, thawed = freezer(containers.pid(engine, name))
        file.write_text(thawed)
        assert inspect(engine, name)["State"]["Status"] == "running"


def test_the_next_engine_records_what_is_frozen(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine = new_engine()
    load_image(engine, "busybox")
    engine.cli("jaula", "run", "-d", "--name", "frozen", "busybox", "sleep", "600")
    engine.kill()  # in a pause, between the freezer and the record
    (record,) = records(engine)
    freeze(record["pid"])
    engine.start()
    listed = lambda: engine.request("GET", "/containers/json").json()[0]["State"]  # noqa: E731
    eventually(lambda: bool(listed() == "paused"), "it is listed as paused")
    assert engine.request("POST", "/containers/frozen/unpause").status == 204


def test_the_next_engine_thaws_what_a_commit_froze_and_keeps_what_a_client_paused(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine = new_engine()
    load_image(engine, "busybox")
    engine.cli("jaula", "run", "-d", "--name", "paused", "busybox", "sleep", "600")
    fill = "dd if=/dev/urandom of=/big bs=1M count=200; exec sleep 600"
    engine.cli("jaula", "run", "-d", "--name", "big", "busybox", "sh", "-c", fill)
    process = containers.pid(engine, "big")
    cmdline = Path(f"/proc/{process}/cmdline")
    eventually(lambda: cmdline.read_bytes().startswith(b"sleep"), "it is filled", 60)
    assert engine.request("POST", "/containers/paused/pause").status == 204

    def commit() -> None:
        with pytest.raises((OSError, HTTPException)):
            engine.request("POST", "/commit?container=big&repo=big")

    client = threading.Thread(target=commit)
    client.start()
    while not is_frozen(process):
        time.sleep(0.001)
    engine.kill()
    client.join()
    assert is_frozen(process)
    engine.start()
    assert not is_frozen(process)
    assert inspect(engine, "big")["State"]["Status"] == "running"
    assert inspect(engine, "paused")["State"]["Status"] == "paused"
    assert is_frozen(containers.pid(engine, "paused"))
    assert engine.request("POST", "/commit?container=big&repo=big").status == 201
    assert inspect(engine, "big")["State"]["Status"] == "running"
