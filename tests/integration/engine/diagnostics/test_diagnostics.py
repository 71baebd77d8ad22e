"""The observer, traces and audits over the API, against the kernel."""

from __future__ import annotations

import io
import json
import os
import secrets
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import engine_with_policy
from harness import containers
from harness.api_user import ApiUser
from harness.engine import PrivateEngine, UnixConnection
from harness.observed import ObservedStream

READER, OWNER = 54101, 54102


@pytest.fixture(scope="module")
def guarded(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    """An engine to which two users besides root have access."""
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text(f'[user.{READER}]\naccess = "read"\n[user.{OWNER}]\naccess = "run"\n')
    with engine_with_policy(worker_index + 83, policy) as private:
        yield private


@pytest.fixture(scope="module")
def watched(guarded: PrivateEngine) -> Iterator[dict[str, Any]]:
    """Return the document of root's container with a memory limit."""
    flags = ("-m", "64m", "--cap-add", "NET_ADMIN", "-p", "127.0.0.1::80")
    with containers.running(guarded, "busybox", flags=flags) as name:
        yield containers.inspect(guarded, name)


def test_a_relaxation_and_a_removed_protection_are_seen(
    guarded: PrivateEngine, watched: dict[str, Any]
) -> None:
    key = watched["Id"]
    file = Path(memory_limit_file(watched["State"]["Pid"]))
    before = file.read_text()
    with ObservedStream(guarded) as stream:
        stream.wait(lambda: stream.isolation(key), "the first report")
        first = stream.isolation(key)
        assert first is not None
        verdicts = {each["Layer"]: each["Verdict"] for each in first["Layers"]}
        assert verdicts["capabilities"] == "relaxed"
        assert verdicts["seccomp"] == verdicts["network"] == "holds"
        assert any("NET_ADMIN" in row["Requested"] for row in first["Rows"])
        try:
            file.write_text(str(96 << 20))
            stream.wait(lambda: layer(stream, key, "cgroups") == "fails", "the raised limit")
            failed = stream.isolation(key)
            assert failed is not None
            assert failed["Changes"][-1]["Id"] == "memory limit"
            assert failed["Changes"][-1]["Before"]["Verdict"] == "holds"
            broken = [row for row in failed["Rows"] if row["Verdict"] == "fails"]
            assert [row["Id"] for row in broken] == ["memory limit"]
            assert broken[0]["Evidence"] == str(file)
        finally:
            file.write_text(before)
        stream.wait(lambda: layer(stream, key, "cgroups") == "holds", "the limit as requested")


def memory_limit_file(process: int) -> str:
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if "memory" in names.split(","):
            return f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"
    return f"/sys/fs/cgroup{path}/memory.max"


def layer(stream: ObservedStream, key: str, name: str) -> str:
    document = stream.isolation(key)
    assert document is not None
    return next(each["Verdict"] for each in document["Layers"] if each["Layer"] == name)


def test_new_containers_and_their_end_are_seen(guarded: PrivateEngine) -> None:
    with ObservedStream(guarded) as stream:
        with containers.running(guarded, "busybox") as name:
            key = containers.inspect(guarded, name)["Id"]
            stream.wait(lambda: stream.isolation(key), "the report of a new container")
            stream.wait(lambda: sampled(stream, key), "a sample")
        stream.wait(
            lambda: {"Type": "removed", "Id": key} in stream.documents, "the end of the container"
        )


def sampled(stream: ObservedStream, key: str) -> bool:
    return any(d["Type"] == "stats" and key in d["Containers"] for d in stream.documents)


def test_two_viewers_share_one_observer_and_its_history(
    guarded: PrivateEngine, watched: dict[str, Any]
) -> None:
    with ObservedStream(guarded) as one, ObservedStream(guarded) as two:
        for stream in (one, two):
            stream.wait(lambda stream=stream: sampled(stream, watched["Id"]), "a sample")  # type: ignore[misc]
        assert len(observers(guarded)) == 1
        reply = guarded.request("GET", f"/jaula/stats?containers={watched['Id']}&fields=memory")
        history = reply.json()
        assert history["Fields"] == ["time", "memory"]
        assert all(value > 0 for _, value in history["Containers"][watched["Id"]])


def observers(engine: PrivateEngine) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"jaula.features.verify.observer" in words and engine.host.encode() in words:
                found.append(int(entry.name))
    return found


def test_a_killed_observer_is_started_again(
    guarded: PrivateEngine, watched: dict[str, Any]
) -> None:
    with ObservedStream(guarded) as stream:
        stream.wait(lambda: stream.isolation(watched["Id"]), "the first report")
        os.kill(observers(guarded)[0], 9)
    reply = guarded.request("GET", f"/jaula/containers/{watched['Id']}/verify")
    assert reply.status == 200
    assert len(observers(guarded)) == 1


def test_every_row_has_its_evidence(guarded: PrivateEngine, watched: dict[str, Any]) -> None:
    report = guarded.request("GET", f"/jaula/containers/{watched['Id']}/verify").json()
    assert {row["Verdict"] for row in report["Rows"]} <= {"holds", "relaxed"}
    assert len(report["Rows"]) > 60
    assert all(row["Check"] in report["Checks"] for row in report["Rows"])
    assert any(row["Evidence"].startswith("/proc/") for row in report["Rows"])


def test_a_published_port_of_a_user_network_is_no_foreign_translation(
    guarded: PrivateEngine,
) -> None:
    network = containers.unique("net")
    assert guarded.request("POST", "/networks/create", {"Name": network}).status == 201
    flags = ("--network", network, "-p", "127.0.0.1::80")
    try:
        with containers.running(guarded, "busybox", flags=flags) as name:
            report = guarded.request("GET", f"/jaula/containers/{name}/verify").json()
            assert [row for row in report["Rows"] if row["Verdict"] == "fails"] == []
    finally:
        guarded.request("DELETE", f"/networks/{network}")


# -- who may see it --------------------------------------------------------------------------------


def test_a_reader_sees_samples_and_no_isolation_of_others(
    guarded: PrivateEngine, watched: dict[str, Any]
) -> None:
    reader = ApiUser(guarded, READER, READER)
    connection = UnixConnection(str(guarded.socket), 60.0)
    connection.sock = reader.connect()
    with ObservedStream(guarded, connection) as stream:
        stream.wait(lambda: sampled(stream, watched["Id"]), "a sample")
        assert stream.isolation(watched["Id"]) is None
    assert reader.request("GET", "/jaula/processes").json()["Processes"] == []
    for method, path in (
        ("GET", f"/jaula/containers/{watched['Id']}/verify"),
        ("GET", f"/jaula/containers/{watched['Id']}/why"),
        ("POST", f"/jaula/containers/{watched['Id']}/record?seconds=1"),
        ("GET", "/jaula/audit"),
    ):
        assert reader.request(method, path).status == 403, path


def test_an_owner_sees_its_own_containers(guarded: PrivateEngine, watched: dict[str, Any]) -> None:
    owner = ApiUser(guarded, OWNER, OWNER)
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"]}
    key = owner.request("POST", "/containers/create", body).json()["Id"]
    try:
        assert owner.request("POST", f"/containers/{key}/start").status == 204
        assert owner.request("GET", f"/jaula/containers/{key}/verify").status == 200
        assert owner.request("GET", f"/jaula/containers/{watched['Id']}/verify").status == 403
        exec_ = owner.request("POST", f"/containers/{key}/exec", {"Cmd": ["sleep", "1001"]})
        started = owner.request("POST", f"/exec/{exec_.json()['Id']}/start", {"Detach": True})
        assert started.status == 200
        containers.eventually(lambda: own_processes(owner) == [key, key], "both processes")
    finally:
        owner.request("DELETE", f"/containers/{key}?force=1")


def test_commands_of_the_builds_of_others_are_not_shown(guarded: PrivateEngine) -> None:
    word = secrets.token_hex(8)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        text = f"FROM busybox\nRUN echo {word} > /file\n".encode()
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    headers = {"Content-Type": "application/x-tar"}
    built = guarded.request("POST", "/build?version=1", data.getvalue(), headers=headers)
    assert b"errorDetail" not in built.body, built.body
    assert word in guarded.request("GET", "/v1.44/system/df").body.decode()
    for uid in (READER, OWNER):
        reply = ApiUser(guarded, uid, uid).request("GET", "/v1.44/system/df")
        assert reply.status == 200
        assert word not in reply.body.decode()


def test_the_output_of_health_checks_of_others_is_not_shown(guarded: PrivateEngine) -> None:
    word = secrets.token_hex(8)
    test = f"echo {word[:8]}$((0)){word[8:]}"  # the output differs from the command
    flags = ("--health-cmd", test, "--health-interval", "1s")
    with containers.running(guarded, "busybox", flags=flags) as name:
        path, shown = f"/containers/{name}/json", f"{word[:8]}0{word[8:]}"

        def is_shown() -> bool:
            return shown in guarded.request("GET", path).body.decode()

        containers.eventually(is_shown, "a health check has run", 60)
        for uid in (READER, OWNER):
            reply = ApiUser(guarded, uid, uid).request("GET", path)
            assert reply.json()["State"]["Health"]["Log"]
            assert shown not in reply.body.decode()


def own_processes(user: ApiUser) -> list[str]:
    """Return the container of each process that a user sees, which are those of containers only."""
    rows = user.request("GET", "/jaula/processes").json()["Processes"]
    assert {row["Name"] for row in rows} <= {"sleep"}, rows
    assert {row["Parent"] for row in rows} <= {0}, rows
    return [row["Inside"] for row in rows]


# -- commands --------------------------------------------------------------------------------------


def test_why_runs_the_command_and_names_the_layer(
    guarded: PrivateEngine, watched: dict[str, Any]
) -> None:
    body = {"Cmd": ["mount", "-t", "tmpfs", "none", "/mnt"]}
    reply = guarded.request("POST", f"/jaula/containers/{watched['Id']}/why", body)
    if reply.status == 409:
        pytest.skip(reply.json()["message"])  # this kernel cannot trace
    explanations = [each["explanation"] for each in reply.json()["diagnoses"]]
    assert any(
        each["layer"] == "seccomp" and each["flag"] == "--cap-add SYS_ADMIN"
        for each in explanations
    )


def test_why_needs_a_command_for_a_running_container(
    guarded: PrivateEngine, watched: dict[str, Any]
) -> None:
    path = f"/jaula/containers/{watched['Id']}/why"
    assert guarded.request("GET", path).status == 400
    assert guarded.request("POST", path, {"Cmd": []}).status == 400
    assert guarded.request("POST", "/jaula/containers/none/why", {"Cmd": ["id"]}).status == 404


def test_a_record_becomes_a_profile(guarded: PrivateEngine, watched: dict[str, Any]) -> None:
    reply = guarded.request("POST", f"/jaula/containers/{watched['Id']}/record?seconds=1")
    if reply.status == 409:
        pytest.skip(reply.json()["message"])  # this kernel cannot record
    lines = [json.loads(line) for line in reply.body.splitlines()]
    assert lines[0]["container"]["id"] == watched["Id"]
    assert lines[-1]["type"] == "end"
    connection = UnixConnection(str(guarded.socket), 60.0)
    connection.request("POST", "/jaula/harden", reply.body)
    answer = connection.getresponse()
    assert answer.status == 200
    assert b"capabilities = " in answer.read()
    connection.request("POST", "/jaula/harden", b"no record\n")
    refused = connection.getresponse()
    assert refused.status == 400, refused.read()


@pytest.mark.parametrize("seconds", ["0", "-1", "99999", "x"])
def test_a_record_has_a_bounded_time(
    guarded: PrivateEngine, watched: dict[str, Any], seconds: str
) -> None:
    path = f"/jaula/containers/{watched['Id']}/record?seconds={seconds}"
    assert guarded.request("POST", path).status == 400


def test_an_audit_has_its_score(guarded: PrivateEngine, watched: dict[str, Any]) -> None:
    report = guarded.request("GET", "/jaula/audit?scope=containers").json()
    assert report["scopes"] == ["containers"]
    assert 0 < report["score"]["all"]["holding"] < report["score"]["all"]["applicable"]
    assert guarded.request("GET", "/jaula/audit?scope=none").status == 400
    assert guarded.request("GET", "/jaula/audit?profile=none").status == 400
    assert watched["Id"]
