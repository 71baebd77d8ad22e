"""Clients that follow a log: another process than the engine reads it and sends it to them."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import struct
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine, UnixConnection

SCRIPT = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; read line; echo end"


def follow(engine: PrivateEngine, name: str, query: str = "") -> http.client.HTTPResponse:
    """Return the answer to a request whose body has no end yet."""
    connection = UnixConnection(str(engine.socket), 60)
    connection.request("GET", f"/containers/{name}/logs?follow=1&stdout=1&stderr=1{query}")
    return connection.getresponse()


def frames(data: bytes) -> list[tuple[int, str]]:
    found = []
    while data:
        stream, size = struct.unpack(">BxxxL", data[:8])
        found.append((stream, data[8 : 8 + size].decode()))
        data = data[8 + size :]
    return found


def follower_processes(engine: PrivateEngine) -> list[int]:
    """Return the pids of the engine's processes that follow logs."""
    assert engine.process is not None
    of_parent: dict[int, list[tuple[int, str]]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid, comm, parent = re.match(r"(\d+) \((.*)\) \S (\d+)", text, re.S).groups()  # type: ignore[union-attr]
        of_parent.setdefault(int(parent), []).append((int(pid), comm))
    below, found = [engine.process.pid], []
    while below:
        for pid, comm in of_parent.get(below.pop(), []):
            below.append(pid)
            if comm == "jaula-logs":
                found.append(pid)
    return found


def open_files(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(os.readlink(entry))
        except FileNotFoundError:
            continue
    return found


def test_a_follower_gets_everything_up_to_the_exit(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox, "sh", "-c", SCRIPT, flags=("-i",)) as name:
        whole, last = follow(engine, name), follow(engine, name, "&tail=1&timestamps=1")
        assert whole.getheader("Transfer-Encoding") == "chunked"
        assert whole.getheader("Connection") == "close"
        containers.eventually(lambda: follower_processes(engine), "the process that follows")
        stored = f"/containers/{name}/logs?stdout=1&stderr=1"
        containers.eventually(
            lambda: len(frames(engine.request("GET", stored).body)) == 6, "the output"
        )
        assert engine.request("POST", f"/containers/{name}/kill").status == 204
        texts = frames(whole.read())
        assert sorted(texts) == sorted(
            (stream, f"{word} {number}\n")
            for stream, word in ((1, "out"), (2, "err"))
            for number in (1, 2, 3)
        )
        assert re.fullmatch(r"\d{4}-\S+Z (out|err) 3\n", frames(last.read())[0][1])
        again = follow(engine, name)  # of a container that has exited
        assert frames(again.read()) == texts
    containers.eventually(lambda: not follower_processes(engine), "the end of the process")


def test_a_container_may_be_removed_as_soon_as_its_follower_has_the_head(
    engine: PrivateEngine, busybox: str
) -> None:
    for query in ("", "&tail=5"):
        name = containers.unique()
        done = engine.cli("jaula", "run", "--name", name, busybox, "echo", "hello")
        assert done.returncode == 0, done.stderr
        answer = follow(engine, name, query)
        assert engine.request("DELETE", f"/containers/{name}").status == 204
        assert frames(answer.read()) == [(1, "hello\n")]


def test_the_log_of_a_terminal_is_not_framed(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox, "echo", "hello", flags=("-t",)) as name:
        assert follow(engine, name).read() == b"hello\r\n"


def test_followers_that_do_not_read_are_not_served_by_the_engine(
    engine: PrivateEngine, busybox: str
) -> None:
    with containers.running(engine, busybox, "yes") as name:
        silent = [follow(engine, name) for _ in range(20)]
        reader = follow(engine, name)
        assert frames(reader.read(10 * 1000)) == [(1, "y\n")] * 1000
        log = containers.inspect(engine, name)["LogPath"]
        assert engine.process is not None
        assert not any(path.startswith(log) for path in open_files(engine.process.pid))
        (process,) = follower_processes(engine)
        assert any(path.startswith(log) for path in open_files(process))
        for answer in (reader, *silent):
            answer.close()
        containers.eventually(lambda: not follower_processes(engine), "the end of the process")


def test_a_killed_process_cuts_its_clients_and_the_next_client_gets_another(
    engine: PrivateEngine, busybox: str
) -> None:
    with containers.running(engine, busybox, "sh", "-c", "echo hello; sleep 600") as name:
        cut = follow(engine, name)
        assert frames(cut.read(14)) == [(1, "hello\n")]
        (process,) = follower_processes(engine)
        os.kill(process, signal.SIGKILL)
        with pytest.raises(http.client.IncompleteRead):
            cut.read()
        again = follow(engine, name)
        assert frames(again.read(14)) == [(1, "hello\n")]
        assert follower_processes(engine) != [process]
        again.close()


def test_a_driver_that_keeps_no_log_is_an_error_before_the_answer(
    engine: PrivateEngine, busybox: str
) -> None:
    with containers.running(engine, busybox, flags=("--log-driver", "none")) as name:
        answer = follow(engine, name)
        assert answer.status == 501
        assert b"does not support reading" in answer.read()


def test_a_client_that_leaves_ends_its_follower(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox) as name:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with sock:
            sock.connect(str(engine.socket))
            path = f"/containers/{name}/logs?follow=1&stdout=1"
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert sock.recv(15) == b"HTTP/1.1 200 OK"
            containers.eventually(lambda: follower_processes(engine), "the process that follows")
        containers.eventually(lambda: not follower_processes(engine), "the end of the process")
