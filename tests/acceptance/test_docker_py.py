"""Docker's unmodified SDK for Python against a real engine: everyday use."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound

from harness.engine import PrivateEngine

# The SDK's own sockets and responses complain when they are collected after their connection.
pytestmark = [
    pytest.mark.client(name="docker (PyPI)"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TICKS = ["sh", "-c", "while :; do echo tick; echo tock >&2; sleep 0.1; done"]


@pytest.fixture
def client(engine: PrivateEngine, busybox: str) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(base_url=engine.host, timeout=30)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def ticking(client: docker.DockerClient, busybox: str) -> Iterator[Any]:
    """Return a container that writes a line to both streams ten times a second."""
    container = client.containers.run(busybox, TICKS, detach=True, mem_limit="64m")
    try:
        yield container
    finally:
        container.remove(force=True)


def test_run_returns_the_output_and_raises_for_a_status(
    client: docker.DockerClient, busybox: str
) -> None:
    assert client.containers.run(busybox, "echo hi", remove=True) == b"hi\n"
    with pytest.raises(ContainerError) as caught:
        client.containers.run(busybox, ["sh", "-c", "echo no >&2; exit 3"], remove=True)
    assert caught.value.exit_status == 3
    assert b"no" in caught.value.stderr
    lines = client.containers.run(
        busybox, ["sh", "-c", "echo 1; sleep 0.1; echo 2"], remove=True, stream=True
    )
    assert b"".join(lines) == b"1\n2\n"


def test_logs_are_followed_with_both_streams(ticking: Any) -> None:
    stream = ticking.logs(stream=True, follow=True)
    assert {next(stream) for _ in range(6)} == {b"tick\n", b"tock\n"}
    assert ticking.logs(tail=1, stderr=False) == b"tick\n"


def test_exec_run_returns_status_streams_and_a_socket(ticking: Any) -> None:
    assert ticking.exec_run("echo hi") == (0, b"hi\n")
    done = ticking.exec_run(["sh", "-c", "echo o; echo e >&2; exit 4"], demux=True)
    assert done == (4, (b"o\n", b"e\n"))
    assert ticking.exec_run("nosuch").exit_code == 127
    assert ticking.exec_run("true", user="nosuch").exit_code == 126
    assert b"".join(ticking.exec_run("echo hi", stream=True).output) == b"hi\n"
    assert ticking.exec_run("tty", tty=True).output == b"/dev/pts/0\r\n"
    connection = ticking.exec_run("cat", stdin=True, socket=True).output
    connection._sock.sendall(b"hello\n")
    assert connection._sock.recv(100) == b"\x01\0\0\0\0\0\0\x06hello\n"
    connection.close()


def test_attach_returns_past_and_future_output(ticking: Any) -> None:
    stream = ticking.attach(stream=True, logs=False)
    assert {next(stream) for _ in range(6)} <= {b"tick\n", b"tock\n"}
    for _ in range(10):
        assert ticking.attach(logs=True, stream=False, stderr=False).startswith(b"tick\n")


def test_stats_top_and_diff_work(ticking: Any) -> None:
    sample = ticking.stats(stream=False)
    assert sample["memory_stats"]["limit"] == 64 * 1024 * 1024
    stream = ticking.stats(stream=True, decode=True)
    assert all(next(stream)["pids_stats"]["current"] >= 1 for _ in range(2))
    processes = ticking.top(ps_args="-o pid,args")["Processes"]
    assert any("tick" in process[1] for process in processes)
    ticking.exec_run("touch /made")
    assert {"Path": "/made", "Kind": 1} in ticking.diff()


def test_events_arrive_immediately(client: docker.DockerClient, ticking: Any) -> None:
    events = client.events(decode=True, filters={"container": ticking.id, "type": "container"})
    threading.Timer(0.2, ticking.pause).start()
    assert next(events)["Action"] == "pause"
    events.close()
    ticking.unpause()


def test_kill_wait_and_restart_work(ticking: Any) -> None:
    threading.Timer(0.2, ticking.kill).start()
    assert ticking.wait(condition="next-exit") == {"StatusCode": 137}
    with pytest.raises(APIError) as caught:
        ticking.kill()
    assert caught.value.status_code == 409
    ticking.restart(timeout=0)
    ticking.reload()
    assert ticking.status == "running"
    with pytest.raises(APIError) as caught:
        ticking.remove()
    assert caught.value.status_code == 409


def test_an_attached_socket_carries_stdin(client: docker.DockerClient, busybox: str) -> None:
    container = client.containers.run(busybox, "cat", stdin_open=True, detach=True)
    connection = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    connection._sock.sendall(b"x\n")
    assert connection._sock.recv(100) == b"\x01\0\0\0\0\0\0\x02x\n"
    connection.close()
    container.remove(force=True)


def test_images_are_saved_loaded_and_listed(
    client: docker.DockerClient, busybox: str, busybox_archive: Path
) -> None:
    assert client.images.get(busybox).tag("jlt-docker-py", tag="1")
    image = client.images.get("jlt-docker-py:1")
    saved = io.BytesIO(b"".join(image.save(named="jlt-docker-py:1")))
    with tarfile.open(fileobj=saved) as archive:
        assert "manifest.json" in archive.getnames()
    client.images.remove("jlt-docker-py:1")
    with pytest.raises(ImageNotFound):
        client.images.get("jlt-docker-py:1")
    loaded = client.images.load(saved.getvalue())
    assert [image.id for image in loaded] == [client.images.get(busybox).id]
    client.images.remove("jlt-docker-py:1")
    with busybox_archive.open("rb") as stored:
        assert client.images.load(stored)


def test_errors_are_exceptions_of_the_sdk(client: docker.DockerClient, busybox: str) -> None:
    with pytest.raises(NotFound, match="Not Found"):
        client.containers.get("nosuch")
    with pytest.raises(NotFound):
        client.volumes.get("nosuch")
    with pytest.raises(APIError) as caught:
        client.containers.create(busybox, name="!!")
    assert caught.value.status_code == 400
    with pytest.raises(APIError) as caught:
        client.images.pull("BAD")
    assert caught.value.status_code == 400
    with pytest.raises(APIError, match="connection refused"):
        client.containers.run("127.0.0.1:9/nosuch")


@pytest.mark.parametrize("version", ["1.24", "1.30", "1.41", "1.43"])
def test_an_older_api_version_still_works(
    engine: PrivateEngine, busybox: str, version: str
) -> None:
    """Use an API version that the client requests."""
    older = docker.DockerClient(base_url=engine.host, timeout=30, version=version)
    script = ["sh", "-c", "echo out; echo err >&2; read line; echo got $line; exit 3"]
    container = older.containers.create(busybox, script, stdin_open=True, mem_limit="64m")
    try:
        sock = container.attach_socket(params={"stdin": 1, "stream": 1})
        container.start()
        container.pause()
        assert older.containers.get(container.id).status == "paused"
        container.unpause()
        done = container.exec_run(["sh", "-c", "echo inside; exit 5"])
        assert (done.exit_code, done.output) == (5, b"inside\n")
        stats = container.stats(stream=False)
        assert stats["memory_stats"]["limit"] == 64 << 20
        assert stats["cpu_stats"]["system_cpu_usage"] >= stats["precpu_stats"]["system_cpu_usage"]
        container.update(mem_limit="96m", memswap_limit="192m")
        sock._sock.sendall(b"words\n")
        assert container.wait()["StatusCode"] == 3
        assert container.logs(stderr=False) == b"out\ngot words\n"
        assert container.logs(stdout=False) == b"err\n"
        container.reload()
        assert container.attrs["HostConfig"]["Memory"] == 96 << 20
        ipc = "private" if version in ("1.41", "1.43") else "shareable"
        assert container.attrs["HostConfig"]["IpcMode"] == ipc
        image = older.images.get(busybox)
        assert image.attrs["VirtualSize"] == image.attrs["Size"]
        assert [one.id for one in older.containers.list(all=True, filters={"id": container.id})]
        actions = [
            event["Action"].partition(":")[0]
            for event in older.events(
                since=1,
                until=int(time.time()) + 1,
                filters={"container": container.id},
                decode=True,
            )
        ]
        assert actions[:3] == ["create", "attach", "start"]
        assert {"pause", "unpause", "exec_create", "exec_start", "update", "die"} <= set(actions)
    finally:
        container.remove(force=True)
        older.close()
