"""The engine's own life: its directories, its lock, its memory, its end."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine
from harness.service_manager import ServiceManager

NewEngine = Callable[..., PrivateEngine]


def second(engine: PrivateEngine, *more: str) -> subprocess.CompletedProcess[str]:
    """Try to start another engine with the same command; its last word."""
    from harness.engine import PROJECT

    environment = os.environ | {"PYTHONPATH": str(PROJECT / "src")}
    return subprocess.run(
        [*engine.command(), *more], capture_output=True, text=True, timeout=30, env=environment
    )


def test_a_second_engine_on_the_same_directory_is_refused(new_engine: NewEngine) -> None:
    engine = new_engine()
    done = second(engine)
    assert done.returncode == 125
    assert "another engine uses" in done.stderr
    assert engine.request("GET", "/_ping").status == 200


def test_a_socket_of_another_engine_is_not_replaced(new_engine: NewEngine, tmp_path: Path) -> None:
    engine = new_engine()
    done = second(engine, "--root", str(tmp_path / "lib"))
    assert done.returncode == 125
    assert "in use by another engine" in done.stderr
    assert engine.request("GET", "/_ping").status == 200


def test_a_damaged_database_stops_the_start_and_is_kept(new_engine: NewEngine) -> None:
    engine = new_engine(start=False)
    database = engine.root / "lib" / "jaula.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(b"damaged" * 1000)
    done = second(engine)
    assert done.returncode == 125
    assert "is damaged" in done.stderr
    assert "Traceback" not in done.stderr
    assert database.read_bytes() == b"damaged" * 1000


def test_idle_it_is_small_and_its_interpreter_cannot_be_written(new_engine: NewEngine) -> None:
    engine = new_engine(start=False)
    engine.start(own_network=True)  # libnftables keeps the rules that it has read
    assert engine.process is not None
    proc = Path(f"/proc/{engine.process.pid}")
    status = dict(
        line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line
    )
    # Pages of files are shared, and how many are mapped depends on the page cache.
    assert int(status["RssAnon"].split()[0]) < 31 * 1024
    program = (proc / "exe").readlink()
    rows = [row.split() for row in (proc / "mountinfo").read_text().splitlines()]
    (options,) = [row[5] for row in rows if row[4] == str(program)]
    assert "ro" in options.split(",")


def test_ended_by_a_signal_it_removes_its_socket_and_network(new_engine: NewEngine) -> None:
    engine = new_engine()
    assert engine.stop() == 0
    assert not engine.socket.exists()
    assert not Path(f"/sys/class/net/{engine.bridge}").exists()
    engine.start()
    assert engine.request("GET", "/_ping").status == 200


def test_its_service_manager_is_told_each_step_of_a_start_and_a_stop(
    new_engine: NewEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = new_engine(start=False)
    extended = "EXTEND_TIMEOUT_USEC=300000000"
    with ServiceManager(tmp_path / "notify") as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", str(manager.path))
        engine.start()
        assert engine.process is not None
        main = engine.process.pid
        assert manager.expect("READY=1")
        ready = manager.messages.index("READY=1")
        # Before and after the zygote is forked, and before containers are adopted.
        assert manager.messages[:ready] == [extended] * 3
        del manager.messages[:]
        engine.stop()
        manager.read(0.2)
        assert manager.messages == ["STOPPING=1", *["EXTEND_TIMEOUT_USEC=60000000"] * 2]
        assert set(manager.senders) == {main}


def _limit(pid: int) -> tuple[int, int]:
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)


def test_it_may_open_more_files_than_its_containers(new_engine: NewEngine) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    engine = new_engine(start=False)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        engine.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert engine.process is not None
    assert _limit(engine.process.pid) == (before[1], before[1])


def test_an_engine_without_its_zygote_exits_and_the_next_one_takes_over(
    new_engine: NewEngine, busybox_archive: Path
) -> None:
    engine = new_engine()
    assert engine.process is not None
    image = "busybox"
    assert engine.cli("jaula", "load", "-i", str(busybox_archive)).returncode == 0
    with containers.running(engine, image) as name:
        os.kill(containers.zygote(engine), signal.SIGKILL)
        assert engine.process.wait(15) == 125
        engine.process = None
        engine.start()
        state = engine.request("GET", f"/containers/{name}/json").json()["State"]
        assert state["Running"]
        assert containers.run(engine, image, "echo", "again").strip() == "again"


def test_on_a_full_disk_an_exit_is_handled_and_saved_later(
    new_engine: NewEngine, busybox_archive: Path
) -> None:
    """A file that may not grow is to the engine's database what a full disk is."""
    engine = new_engine()
    assert engine.process is not None
    assert engine.cli("jaula", "load", "-i", str(busybox_archive)).returncode == 0
    with containers.running(engine, "busybox") as name:
        pid = engine.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        assert engine.request("POST", f"/containers/{name}/stop?t=0").status == 204
        state = containers.inspect(engine, name)["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 137)
        assert engine.request("POST", f"/containers/{name}/wait").json()["StatusCode"] == 137
        left = engine.run / "containers" / containers.inspect(engine, name)["Id"] / "exit.json"
        assert left.exists()
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
        containers.eventually(lambda: not left.exists(), "the end is written")
        engine.kill()
        engine.start()
        state = containers.inspect(engine, name)["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 137)


def test_files_that_cannot_be_removed_do_not_stop_the_start(
    new_engine: NewEngine, busybox_archive: Path
) -> None:
    """A mount in a container's directory is removed by no engine, and costs only its container."""
    engine = new_engine()
    assert engine.cli("jaula", "load", "-i", str(busybox_archive)).returncode == 0
    body = {"Image": "busybox", "Cmd": ["true"]}
    created = engine.request("POST", "/containers/create?name=half", body).json()["Id"]
    engine.kill()
    directory = engine.root / "lib/containers"
    shutil.rmtree(directory / created / "upper")  # as a create that was interrupted
    unknown = directory / ("5" * 64)  # as a removal that was interrupted
    places = (directory / created / "busy", unknown / "upper")
    for place in places:
        place.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        engine.start()
        state = containers.inspect(engine, "half")["State"]
        assert (state["Status"], state["Dead"]) == ("dead", True)
        assert "busy" in state["Error"]
        assert str(unknown) in engine.log_tail()
        assert containers.run(engine, "busybox", "echo", "serves").strip() == "serves"
        engine.kill()
    finally:
        for place in places:
            subprocess.run(["umount", place], check=True)
    engine.start()
    assert engine.request("DELETE", "/containers/half").status == 204
    assert not unknown.exists()
    assert not (directory / created).exists()
