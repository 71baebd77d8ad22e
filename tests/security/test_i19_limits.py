"""I19: pids, memory, descriptors, logs, API bodies and streams are limited."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine


def test_processes_are_limited_by_default(engine: PrivateEngine, plain: str) -> None:
    value = containers.cgroup_file(containers.pid(engine, plain), "pids", "pids.max", "pids.max")
    assert 0 < int(value) <= 32768


def test_a_fork_bomb_stops_at_the_pids_limit(engine: PrivateEngine, busybox: str) -> None:
    words = "i=0; while [ $i -lt 100 ]; do sleep 600 & i=$((i+1)); done; wait"
    name = containers.unique("fork")
    flags = ("run", "-d", "--name", name, "--pids-limit", "20")
    engine.cli("jaula", *flags, busybox, "sh", "-c", words)
    try:
        time.sleep(1)
        top = engine.request("GET", f"/containers/{name}/top")
        assert top.status != 200 or len(top.json()["Processes"]) <= 20
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


def test_descriptors_are_limited_by_default(engine: PrivateEngine, plain: str) -> None:
    limits = Path(f"/proc/{containers.pid(engine, plain)}/limits").read_text()
    line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
    soft, hard = line.split()[3:5]
    assert int(soft) <= 65536 and int(hard) <= 1048576


@pytest.mark.parametrize("cve", ["CVE-2024-3056"])
def test_shared_memory_is_limited_by_default(engine: PrivateEngine, plain: str, cve: str) -> None:
    shm = containers.mountinfo(containers.pid(engine, plain))["/dev/shm"]
    assert any(option == "size=65536k" for option in shm.super_options), shm


@pytest.mark.parametrize("cve", ["CVE-2022-1708"])
def test_a_log_is_rotated_and_limited(engine: PrivateEngine, busybox: str, cve: str) -> None:
    name = containers.unique("log")
    words = "i=0; while [ $i -lt 40000 ]; do echo $i 0123456789012345678901234567890123456789;"
    words += " i=$((i+1)); done"
    flags = ("--log-opt", "max-size=200k", "--log-opt", "max-file=2")
    done = engine.cli("jaula", "run", "-d", "--name", name, *flags, busybox, "sh", "-c", words)
    try:
        assert done.returncode == 0, done.stderr
        engine.cli("jaula", "wait", name)
        log = Path(str(containers.inspect(engine, name)["LogPath"]))
        files = [path for path in log.parent.iterdir() if path.name.startswith(log.name)]
        assert len(files) == 2
        assert sum(path.stat().st_size for path in files) < 500_000
        assert engine.cli("jaula", "logs", "--tail", "1", name).stdout.startswith("39999 ")
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


@pytest.mark.parametrize("cve", ["CVE-2022-1708"])
def test_the_memory_of_the_engine_does_not_grow_with_exec_output(
    engine: PrivateEngine, plain: str, cve: str
) -> None:
    before = resident(engine)
    words = ("dd", "if=/dev/zero", "bs=1M", "count=64")
    done = engine.cli("jaula", "exec", plain, *words, text=False)
    assert len(done.stdout) == 64 * 2**20
    assert resident(engine) - before < 20 * 2**20


def resident(engine: PrivateEngine) -> int:
    assert engine.process is not None
    return int(containers.status(engine.process.pid)["VmRSS"].split()[0]) * 1024


def descriptors(engine: PrivateEngine) -> int:
    assert engine.process is not None
    return len(os.listdir(f"/proc/{engine.process.pid}/fd"))


@pytest.mark.parametrize("cve", ["CVE-2025-64329"])
def test_clients_that_attach_and_disconnect_leave_no_descriptors(
    engine: PrivateEngine, plain: str, cve: str
) -> None:
    engine.request("GET", "/_ping")
    shim = containers.shim(containers.pid(engine, plain))
    before = descriptors(engine), len(os.listdir(f"/proc/{shim}/fd"))
    path = f"/containers/{plain}/attach?stream=1&stdout=1&stderr=1"
    request = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    for _ in range(60):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(engine.socket))
            client.sendall(request.encode())
            assert b"101" in client.recv(4096)

    def settled() -> bool:
        now = descriptors(engine), len(os.listdir(f"/proc/{shim}/fd"))
        return now[0] <= before[0] + 3 and now[1] <= before[1] + 3

    containers.eventually(settled, "the descriptors are closed")


@pytest.mark.parametrize(
    "data",
    [
        b"GET /_ping HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 2_000_000,
        b"GET /" + b"a" * 2_000_000,
        b"GET /_ping HTTP/1.1\r\n" + b"X: y\r\n" * 200_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 100,
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 9"
        + b"9" * 30
        + b"\r\n\r\n",
    ],
    ids=["header", "target", "headers", "not HTTP", "negative length", "absurd length"],
)
def test_an_oversized_request_is_refused_without_cost(engine: PrivateEngine, data: bytes) -> None:
    before = resident(engine)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(engine.socket))
        try:
            client.sendall(data)
            answer = client.recv(4096)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
    assert answer == b"" or answer.split(b" ")[1].startswith((b"4", b"5")), answer[:200]
    assert engine.request("GET", "/_ping").status == 200
    assert resident(engine) - before < 20 * 2**20


def test_a_body_above_the_limit_is_refused(engine: PrivateEngine) -> None:
    before = resident(engine)
    body = b'{"Image":"' + b"x" * 40_000_000 + b'"}'
    kind = {"Content-Type": "application/json"}
    try:
        reply = engine.request("POST", "/containers/create", body, headers=kind)
        assert 400 <= reply.status < 500, reply.status
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused before the body was sent
    assert engine.request("GET", "/_ping").status == 200
    assert resident(engine) - before < 40 * 2**20


def test_deeply_nested_json_is_refused(engine: PrivateEngine) -> None:
    body = b'{"Image":' + b"[" * 100_000
    reply = engine.request(
        "POST", "/containers/create", body, headers={"Content-Type": "application/json"}
    )
    assert reply.status == 400
    assert engine.request("GET", "/_ping").status == 200
