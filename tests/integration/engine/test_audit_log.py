"""The audit log of a running engine: who did what, and that it survives a kill."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import containers
from harness.api_user import ApiUser
from harness.engine import PrivateEngine


@pytest.fixture
def lone(new_engine: Callable[..., PrivateEngine]) -> PrivateEngine:
    private = new_engine()
    load_image(private, "busybox")
    return private


def lines(engine: PrivateEngine) -> list[dict[str, Any]]:
    done = engine.cli("jaula", "system", "audit-log", "--format", "json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_each_change_is_an_entry_and_a_query_is_none(engine: PrivateEngine, busybox: str) -> None:
    start = len(lines(engine))
    name = containers.unique("noted")
    flags = ("--name", name, "--cap-add", "NET_ADMIN", "-e", "PASSWORD=hidden", "-v", "/etc:/e:ro")
    engine.cli("jaula", "run", "-d", *flags, busybox, "sleep", "60")
    engine.cli("jaula", "ps", "-a")
    engine.cli("jaula", "inspect", name)
    engine.cli("jaula", "exec", "-e", "TOKEN=hidden", name, "sh", "-c", "true argument")
    engine.cli("jaula", "rm", "-f", name)
    found = lines(engine)[start:]
    about = [(line["action"], line["status"]) for line in found]
    assert about == [
        ("container create", 200),
        ("container spec", 200),
        ("container start", 200),
        ("exec create", 200),
        ("exec start", 200),
        ("container remove", 200),
    ]
    created, spec, started, execed = found[:4]
    assert created["image"] == busybox
    assert set(created["asks"]) == {"capability=NET_ADMIN", "host-mount=/etc:ro"}
    assert started["name"] == name
    assert started["object"] == spec["object"] == created["object"]
    assert len(spec["spec_seal"]) == 64
    assert execed["argv"] == ["sh", "-c", "true argument"]
    assert {line["uid"] for line in found} == {0}
    assert all(line["pid"] > 0 and line["command"] for line in found)
    assert "hidden" not in json.dumps(found)


def test_the_caller_is_the_socket_peer(engine: PrivateEngine) -> None:
    start = len(lines(engine))
    engine.request("POST", "/volumes/create", {"Name": containers.unique("vol")})
    line = lines(engine)[start]
    assert line["pid"] == os.getpid()
    with open("/proc/self/comm") as file:
        assert line["command"] == file.read().strip()
    with open("/proc/self/loginuid") as file:
        login = int(file.read())
    assert line.get("login_uid") == (None if login == 2**32 - 1 else login)


def test_refusals_and_failures_are_noted(
    new_engine: Callable[..., PrivateEngine], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[user.54321]\naccess = "run"\n')
    lone = new_engine("--policy", str(policy))
    load_image(lone, "busybox")
    lone.run.chmod(0o711)
    lone.socket.chmod(0o666)
    visitor = ApiUser(lone, 54321, 54321)
    assert visitor.create("busybox", Privileged=True).status == 403
    lone.request("POST", "/containers/none/start")
    refused, failed = lines(lone)[-2:]
    assert (refused["uid"], refused["status"]) == (54321, 403)
    assert refused["asks"] == ["privileged"]
    assert (failed["action"], failed["object"], failed["status"]) == (
        "container start",
        "none",
        404,
    )


def test_repeated_refusals_do_not_replace_entries(
    new_engine: Callable[..., PrivateEngine], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[user.54321]\naccess = "run"\n')
    lone = new_engine("--policy", str(policy))
    lone.run.chmod(0o711)
    lone.socket.chmod(0o666)
    user = ApiUser(lone, 54321, 54321)
    for number in range(50):
        assert user.request("POST", f"/containers/none-{number}/kill").status == 404
    about = [line for line in lines(lone) if line["action"] == "container kill"]
    assert [line["object"] for line in about] == ["none-0"]
    lone.stop()
    refused = lone.root / "lib" / "audit" / "refused"
    counted = json.loads(next(refused.glob("*.log")).read_bytes().splitlines()[-1])
    assert (counted["object"], counted["count"]) == ("none-49", 49)
    done = lone.cli("jaula", "system", "audit-log", "--verify", "--root", str(lone.root / "lib"))
    assert done.returncode == 0
    assert "refused requests: lines 1 to 2 are intact" in done.stdout
    lone.start()


def test_heads_are_sent_elsewhere_and_find_a_rewritten_log(
    new_engine: Callable[..., PrivateEngine], tmp_path: Path
) -> None:
    path = f"/tmp/jlt-heads-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        server.settimeout(30)
        try:
            lone = new_engine("--audit-head", f"unixgram://{path}")
            assert b"audit head " in server.recv(4096)  # of the start
            lone.request("POST", "/volumes/create", {"Name": "one"})
            lone.stop()
            words = server.recv(4096).decode().split()
        finally:
            os.unlink(path)
    done, refused = words[-2:]
    verify = ("system", "audit-log", "--root", str(lone.root / "lib"), "--verify")
    assert lone.cli("jaula", *verify, "--head", done, "--head", refused).returncode == 0
    forged = f"{done.partition(':')[0]}:{'0' * 64}"
    found = lone.cli("jaula", *verify, "--head", forged)
    assert found.returncode == 1
    assert "is not the one of the given head" in found.stdout
    assert lone.cli("jaula", *verify, "--head", "x").returncode == 125


def test_the_log_is_whole_after_kills_in_the_middle_of_work(lone: PrivateEngine) -> None:
    for _ in range(3):
        stop = threading.Event()

        def work(stop: threading.Event = stop) -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    lone.request("POST", "/volumes/create", {"Name": "again"}, timeout=5)

        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        before = len(lines(lone))
        while len(lines(lone)) < before + 20:
            pass
        lone.kill()
        stop.set()
        for worker in workers:
            worker.join()
        lone.start()
    done = lone.cli("jaula", "system", "audit-log", "--verify")
    assert done.returncode == 0, done.stdout
    assert "are intact; the head is" in done.stdout


def test_verify_finds_a_line_that_was_changed_behind_its_back(lone: PrivateEngine) -> None:
    for name in ("one", "two", "three"):
        lone.request("POST", "/volumes/create", {"Name": name})
    path = next((lone.root / "lib" / "audit").glob("*.log"))
    path.write_bytes(path.read_bytes().replace(b'"two"', b'"TWO"'))
    done = lone.cli("jaula", "system", "audit-log", "--verify")
    assert done.returncode == 1
    assert "is not the one that line" in done.stdout
    assert "NOT intact" in done.stdout


def test_a_span_of_time_and_a_table(engine: PrivateEngine) -> None:
    name = containers.unique("vol")
    engine.request("POST", "/volumes/create", {"Name": name})
    table = engine.cli("jaula", "system", "audit-log", "--since", "1m").stdout
    assert table.startswith("TIME")
    assert name[:12] in table
    nothing = engine.cli("jaula", "system", "audit-log", "--until", "2001-01-01T00:00:00Z").stdout
    assert nothing.count("\n") == 1


def test_the_log_is_read_where_no_engine_runs(lone: PrivateEngine) -> None:
    lone.request("POST", "/volumes/create", {"Name": "kept"})
    lone.stop()
    done = lone.cli("jaula", "system", "audit-log", "--root", str(lone.root / "lib"))
    lone.start()
    assert "volume create" in done.stdout
