"""``jaula edit`` on the real kernel, seen by the docker command; hostile containers and races."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.containers import cgroup_value, eventually, inspect, pid, running, unique
from harness.engine import PROJECT, PrivateEngine, Reply, UnixConnection

SERVE = ("sh", "-c", "for port in 80 81; do httpd -p $port; done; exec sleep 600")


@pytest.fixture
def web(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    with running(engine, busybox, *SERVE) as name:
        eventually(lambda: inside(engine, name, "netstat -tln").count(" :::8") == 2, "it serves")
        yield name


def inside(engine: PrivateEngine, name: str, script: str) -> str:
    return engine.cli("jaula", "exec", name, "sh", "-c", script).stdout


def edit(engine: PrivateEngine, name: str, **body: Any) -> Reply:
    return engine.request("POST", f"/jaula/containers/{name}/edit", body)


def message(reply: Reply) -> str:
    return str(reply.json()["message"])


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status in (200, 404)
    except OSError:
        return False
    finally:
        connection.close()


def published(engine: PrivateEngine, name: str, port: str) -> int:
    return int(inspect(engine, name)["NetworkSettings"]["Ports"][port][0]["HostPort"])


def mounted(engine: PrivateEngine, name: str) -> list[str]:
    table = Path(f"/proc/{pid(engine, name)}/mountinfo").read_text()
    return [line.split()[4] for line in table.splitlines()]


def test_docker_sees_ports_that_are_published_and_removed(engine: PrivateEngine, web: str) -> None:
    done = engine.cli("jaula", "edit", "--publish-add", "127.0.0.1::80", web)
    assert (done.returncode, done.stdout) == (0, f"{web}\n"), done.stderr
    number = published(engine, web, "80/tcp")
    assert engine.cli("docker", "port", web).stdout == f"80/tcp -> 127.0.0.1:{number}\n"
    assert answers(number)
    engine.cli("jaula", "edit", "--publish-add", "127.0.0.1::81", web)
    other = published(engine, web, "81/tcp")
    assert answers(number) and answers(other)
    assert engine.cli("jaula", "edit", "--publish-rm", f"{number}:80", web).returncode == 0
    assert engine.cli("docker", "port", web).stdout == f"81/tcp -> 127.0.0.1:{other}\n"
    assert not answers(number)
    assert answers(other)
    engine.cli("docker", "restart", "-t", "0", web)
    ports = inspect(engine, web)["NetworkSettings"]["Ports"]
    assert ports["81/tcp"] and not ports.get("80/tcp")


def test_mounts_come_and_go_and_are_those_of_the_next_start(
    engine: PrivateEngine, web: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("of the host\n")
    volume = unique("v")
    words = ("--mount-add", f"{tmp_path}:/host:ro", "--mount-add", f"{volume}:/data",
             "--mount-add", "type=tmpfs,target=/memory,tmpfs-size=1m")  # fmt: skip
    try:
        done = engine.cli("jaula", "edit", *words, web)
        assert done.returncode == 0, done.stderr
        assert inside(engine, web, "cat /host/file") == "of the host\n"
        inside(engine, web, "echo kept > /data/file")
        assert "Read-only" in engine.cli("jaula", "exec", web, "touch", "/host/x").stderr
        shown = json.loads(engine.cli("docker", "inspect", web).stdout)[0]
        assert {m["Destination"] for m in shown["Mounts"]} == {"/host", "/data", "/memory"}
        for _ in range(2):  # while it runs, and after a restart
            assert {"/host", "/data", "/memory"} <= set(mounted(engine, web))
            done = engine.cli("jaula", "verify", web)
            assert done.returncode == 0, done.stdout
            assert "mount volume" in done.stdout or "change" in done.stdout
            engine.cli("docker", "restart", "-t", "0", web)
        assert inside(engine, web, "cat /data/file") == "kept\n"
        done = engine.cli("jaula", "edit", "--mount-rm", "/host", "--mount-rm", "/memory", web)
        assert done.returncode == 0, done.stderr
        assert not {"/host", "/memory"} & set(mounted(engine, web))
        assert engine.cli("jaula", "verify", web).returncode == 0
    finally:
        engine.request("DELETE", f"/containers/{web}?force=1")
        engine.request("DELETE", f"/volumes/{volume}")


def test_a_mount_in_use_is_removed_with_detach_only(engine: PrivateEngine, web: str) -> None:
    assert edit(engine, web, Mounts=[{"Type": "tmpfs", "Target": "/memory"}]).status == 200
    engine.cli("jaula", "exec", "-d", web, "sh", "-c", "cd /memory; exec sleep 300")
    script = "for p in /proc/[0-9]*; do readlink $p/cwd; done"
    eventually(lambda: "/memory" in inside(engine, web, script), "it is used")
    refused = edit(engine, web, Unmount=["/memory"])
    assert refused.status == 409
    assert "in use" in message(refused)
    assert "/memory" in mounted(engine, web)
    assert edit(engine, web, Unmount=["/memory"], Detach=True).status == 200
    assert "/memory" not in mounted(engine, web)


def test_a_change_that_fails_changes_nothing(
    engine: PrivateEngine, web: str, tmp_path: Path
) -> None:
    before, table = inspect(engine, web), mounted(engine, web)
    volume = unique("v")
    with running(engine, "busybox", flags=("-p", "127.0.0.1::80")) as other:
        taken = str(published(engine, other, "80/tcp"))
        reply = edit(
            engine,
            web,
            Mounts=[
                {"Type": "volume", "Source": volume, "Target": "/data"},
                {"Type": "bind", "Source": str(tmp_path), "Target": "/host"},
            ],
            Publish={"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": taken}]},
            Update={"Memory": 64 << 20},
            Labels={"never": "set"},
        )
    assert reply.status == 500
    assert "port is already allocated" in message(reply)
    assert mounted(engine, web) == table
    after = inspect(engine, web)
    assert after == before
    assert engine.request("GET", f"/volumes/{volume}").status == 404
    assert engine.cli("jaula", "verify", web).returncode == 0


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "changes nothing"),
        ({"Mounts": [{"Type": "tmpfs", "Target": "/proc/sys"}]}, 400, "in /proc"),
        ({"Mounts": [{"Type": "tmpfs", "Target": "/dev/shm"}]}, 409, "mounted at /dev/shm already"),
        ({"Mounts": [{"Type": "tmpfs", "Target": "/sys/firmware"}]}, 409, "already"),
        ({"Mounts": [{"Type": "tmpfs", "Target": "relative"}]}, 400, "absolute"),
        ({"Mounts": [{"Type": "bind", "Source": "/nowhere", "Target": "/x"}]}, 400, "not exist"),
        ({"Mounts": [{"Type": "image", "Source": "busybox", "Target": "/x"}]}, 400, "image"),
        ({"Mounts": [{"Type": "tmpfs", "Target": "/etc/passwd/x"}]}, 400, "Not a directory"),
        ({"Unmount": ["/nothing"]}, 400, "no mount at /nothing"),
        ({"Unmount": ["/proc/kcore"]}, 400, "in /proc"),
        ({"Unpublish": {"80/tcp": [{"HostPort": "1"}]}}, 400, "not published"),
        ({"Publish": {"80/icmp": [{}]}}, 400, "unknown protocol"),
        ({"Publish": {"80/tcp": [{"HostPort": "70000"}]}}, 400, "65535"),
        ({"Connect": {"no-such-network": {}}}, 404, "no-such-network"),
        ({"Disconnect": ["no-such-network"]}, 404, "no-such-network"),
        ({"RemoveLabels": ["no-label"]}, 400, "no label"),
        ({"Update": {"RestartPolicy": {"Name": "sometimes"}}}, 400, "sometimes"),
        ({"Version": "0" * 16, "Labels": {"a": "b"}}, 409, "changed by another client"),
        ({"Healthcheck": {"Test": ["WRONG"]}}, 400, "ealth"),
    ],
)  # fmt: skip
def test_what_cannot_be_changed_is_refused(
    engine: PrivateEngine, refusing: str, body: dict[str, Any], status: int, words: str
) -> None:
    table = mounted(engine, refusing)
    reply = edit(engine, refusing, **body)
    assert (reply.status, words in message(reply)) == (status, True), reply
    assert mounted(engine, refusing) == table


@pytest.fixture(scope="module")
def refusing(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    with running(engine, busybox, "sleep", "600") as name:
        yield name


def test_links_of_the_container_lead_nowhere(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    script = (
        "ln -s /proc/sys /kernel; ln -s /sys /files; ln -s ../../../../../../etc /up;"
        " mkdir /own; exec sleep 600"
    )
    with running(engine, busybox, "sh", "-c", script) as name:
        eventually(lambda: "own" in inside(engine, name, "ls /"), "the links are there")
        table = mounted(engine, name)
        for target in ("/kernel/vm", "/kernel/kernel/x"):
            reply = edit(engine, name, Mounts=[{"Type": "tmpfs", "Target": target}])
            assert reply.status in (400, 409), reply
        assert mounted(engine, name) == table
        (tmp_path / "file").write_text("x")
        reply = edit(engine, name, Mounts=[
            {"Type": "bind", "Source": str(tmp_path), "Target": "/up/inside"}])  # fmt: skip
        assert reply.status == 200, reply
        assert "/etc/inside" in mounted(engine, name)
        assert not Path("/etc/inside").exists()
        inside(engine, name, "rm /up; ln -s /sys /up")
        reply = edit(engine, name, Unmount=["/up/inside"])
        assert reply.status in (400, 409), reply
        inside(engine, name, "rm /up; ln -s /etc /up")
        assert edit(engine, name, Unmount=["/up/inside"]).status == 200
        assert mounted(engine, name) == table


def test_a_container_that_swaps_its_paths_gets_no_mount_outside(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    """I3: while the program swaps a directory and links, mounts are made beneath its root."""
    host = os.stat("/etc").st_ino, Path("/proc/self/mountinfo").read_text().count("\n")
    script = (
        "mkdir /a /a/in; while :; do mv /a /b; ln -s /proc /a; rm /a; ln -s /../../etc /a; rm /a;"
        " mv /b /a; done"
    )
    with running(engine, busybox, "sh", "-c", script) as name:
        masks = [path for path in mounted(engine, name) if path.startswith(("/proc", "/sys"))]
        for _ in range(12):
            reply = edit(engine, name, Mounts=[
                {"Type": "bind", "Source": str(tmp_path), "Target": "/a/in/m"}])  # fmt: skip
            assert reply.status in (200, 400, 409, 500, 503), reply
            if reply.status == 200:
                for _ in range(200):
                    if edit(engine, name, Unmount=["/a/in/m"]).status == 200:
                        break
        now = [path for path in mounted(engine, name) if path.startswith(("/proc", "/sys"))]
        assert now == masks
    assert (os.stat("/etc").st_ino, not Path("/etc/in").exists()) == (host[0], True)
    assert list(tmp_path.iterdir()) == []


def test_two_edits_at_once_are_one_after_the_other(engine: PrivateEngine, web: str) -> None:
    replies: list[Reply] = []

    def publish(port: str, target: str) -> None:
        replies.append(
            edit(
                engine,
                web,
                Publish={port: [{"HostIp": "127.0.0.1"}]},
                Mounts=[{"Type": "tmpfs", "Target": target}],
            )
        )

    threads = [
        threading.Thread(target=publish, args=(f"{80 + n % 2}/tcp", f"/memory{n}"))
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reply.status for reply in replies] == [200] * 6
    assert len(inspect(engine, web)["Changes"]) == 6
    assert {f"/memory{n}" for n in range(6)} <= set(mounted(engine, web))
    ports = inspect(engine, web)["NetworkSettings"]["Ports"]
    numbers = [int(b["HostPort"]) for rows in ports.values() for b in rows]
    assert len(numbers) == 6
    assert all(map(answers, numbers))


def test_a_second_editor_is_told_of_the_first_change(engine: PrivateEngine, web: str) -> None:
    version = engine.request("GET", f"/jaula/containers/{web}/edit").json()["Version"]
    assert edit(engine, web, Version=version, Labels={"first": "1"}).status == 200
    reply = edit(engine, web, Version=version, Labels={"second": "2"})
    assert reply.status == 409
    assert inspect(engine, web)["Config"]["Labels"] == {"first": "1"}


ENDING: dict[str, dict[str, Any]] = {
    "mount": {"Mounts": [{"Type": "tmpfs", "Target": "/memory"}]},
    "unmount": {"Unmount": ["/former"]},
    "publish": {"Publish": {"80/tcp": [{"HostIp": "127.0.0.1"}]}},
    "unpublish": {"Unpublish": {"81/tcp": [{}]}},
    "connect": {"Connect": {"ending": {}}},
    "disconnect": {"Disconnect": ["bridge"]},
    "limits": {"Update": {"Memory": 64 << 20}},
    "remove limits": {"RemoveLimits": ["PidsLimit"]},
    "labels": {"Labels": {"edited": "yes"}},
    "healthcheck": {"Healthcheck": {"Test": ["CMD", "true"]}},
}


@pytest.fixture(scope="module")
def ending_network(engine: PrivateEngine) -> Iterator[None]:
    assert engine.request("POST", "/networks/create", {"Name": "ending"}).status == 201
    yield
    assert engine.request("DELETE", "/networks/ending").status == 204


@pytest.mark.slow
@pytest.mark.usefixtures("ending_network")
@pytest.mark.parametrize("change", ENDING)
def test_each_change_of_a_container_that_ends_is_made_or_refused(
    engine: PrivateEngine, busybox: str, change: str
) -> None:
    flags = ("--tmpfs", "/former", "-p", "127.0.0.1::81", "--pids-limit", "77")
    for delay in (0, 10, 30):  # milliseconds
        with running(engine, busybox, "sleep", "600", flags=flags) as name:
            script = f"sleep 0.0{delay:02}; kill -9 {pid(engine, name)}"
            end = subprocess.Popen(["sh", "-c", script])
            before = editable(engine, name)
            reply = edit(engine, name, **ENDING[change])
            end.wait()
            assert reply.status in (200, 409), reply
            if reply.status == 409:
                assert "is not running" in message(reply)
            eventually(lambda n=name: not inspect(engine, n)["State"]["Running"], "it ended")
            assert (editable(engine, name) == before) == (reply.status == 409)
            assert engine.request("POST", f"/containers/{name}/start").status == 204
            done = engine.cli("jaula", "verify", name)
            assert done.returncode == 0, done.stdout


def editable(engine: PrivateEngine, name: str) -> Any:
    """Return all that an edit may change, by the record."""
    document = engine.request("GET", f"/jaula/containers/{name}/edit").json()
    del document["Version"]
    return document


def test_a_limit_is_removed_at_once(engine: PrivateEngine, busybox: str) -> None:
    limits = {
        "memory": ("64m", "memory", "memory.limit_in_bytes", "memory.max"),
        "cpus": ("0.5", "cpu", "cpu.cfs_quota_us", "cpu.max"),
        "cpu-shares": ("512", "cpu", "cpu.shares", "cpu.weight"),
        "cpuset-cpus": ("0", "cpuset", "cpuset.cpus", "cpuset.cpus.effective"),
        "pids-limit": ("77", "pids", "pids.max", "pids.max"),
    }
    flags = [f"--{name}={value[0]}" for name, value in limits.items()]

    def values(name: str) -> dict[str, str]:
        return {
            each: cgroup_value(pid(engine, name), *files) for each, (_, *files) in limits.items()
        }

    with (
        running(engine, busybox, "sleep", "600") as free,
        running(engine, busybox, "sleep", "600", flags=flags) as name,
    ):
        limited, unlimited = values(name), values(free)
        assert all(limited[each] != unlimited[each] for each in limits), (limited, unlimited)
        for each in limits:
            done = engine.cli("jaula", "edit", "--limit-rm", each, name)
            assert done.returncode == 0, done.stderr
            present = values(name)
            assert present.pop(each) == unlimited[each]
            limited.pop(each)
            assert {key: present[key] for key in limited} == limited
        assert editable(engine, name)["Limits"] == {}
        done = engine.cli("jaula", "verify", name)
        assert done.returncode == 0, done.stdout
        engine.cli("docker", "restart", "-t", "0", name)
        assert values(name) == unlimited
        refused = edit(engine, name, RemoveLimits=["Memory"])
        assert refused.status == 400
        assert "has no limit Memory" in message(refused)


def test_removed_limits_return_if_a_later_step_fails(engine: PrivateEngine, busybox: str) -> None:
    flags = ("--memory", "64m", "--tmpfs", "/used")
    with running(engine, busybox, "sh", "-c", "cd /used; exec sleep 600", flags=flags) as name:
        files = ("memory", "memory.limit_in_bytes", "memory.max")
        before = editable(engine, name)
        reply = edit(engine, name, RemoveLimits=["Memory"], Unmount=["/used"])
        assert reply.status == 409
        assert cgroup_value(pid(engine, name), *files) == str(64 << 20)
        assert editable(engine, name) == before


def test_ports_of_a_container_on_an_internal_network(engine: PrivateEngine, busybox: str) -> None:
    inside_only, other = unique("internal"), unique("open")
    body = {"Name": inside_only, "Internal": True}
    assert engine.request("POST", "/networks/create", body).status == 201
    assert engine.request("POST", "/networks/create", {"Name": other}).status == 201
    flags = ("--network", inside_only, "-p", "127.0.0.1::81")
    try:
        with running(engine, busybox, *SERVE, flags=flags) as name:
            add = {"80/tcp": [{"HostIp": "127.0.0.1"}]}
            before = editable(engine, name)
            refused = edit(engine, name, Publish=add)
            assert refused.status == 400
            assert "no network on which ports can be published" in message(refused)
            assert editable(engine, name) == before
            assert edit(engine, name, Unpublish={"81/tcp": [{}]}).status == 200
            assert editable(engine, name)["PortBindings"] == {}
            # A second network publishes, also if it comes with the same change.
            assert edit(engine, name, Connect={other: {}}, Publish=add).status == 200
            number = published(engine, name, "80/tcp")
            eventually(lambda: answers(number), "it answers")
            assert edit(engine, name, Disconnect=[other]).status == 200
            assert not answers(number)
            assert edit(engine, name, Unpublish={"80/tcp": [{}]}).status == 200
            assert engine.cli("jaula", "verify", name).returncode == 0
    finally:
        for network in (inside_only, other):
            engine.request("DELETE", f"/networks/{network}")


def test_the_engine_finishes_the_edit_of_a_killed_client(
    engine: PrivateEngine, busybox: str
) -> None:
    words = ("--mount-add", "type=tmpfs,target=/memory", "--memory", "64m", "--label-add", "e=1")
    made = 0
    for delay in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3):  # seconds
        with running(engine, busybox, "sleep", "600") as name:
            before = editable(engine, name)
            client = subprocess.Popen(
                [PROJECT / "jaula", "edit", *words, name],
                env=engine.environment(),
                stdout=subprocess.DEVNULL,
            )
            time.sleep(delay)
            client.kill()
            client.wait()
            assert edit(engine, name, Labels={"after": "1"}).status == 200  # waits for the other
            document = editable(engine, name)
            is_made = "e" in document["Labels"]
            made += is_made
            assert ("/memory" in mounted(engine, name)) == is_made
            assert (document["Limits"] != before["Limits"]) == is_made
            assert engine.cli("jaula", "verify", name).returncode == 0
    with running(engine, busybox, "sleep", "600") as name:
        connection = UnixConnection(str(engine.socket))
        path = f"/jaula/containers/{name}/edit"
        content = json.dumps({"Mounts": [{"Type": "tmpfs", "Target": "/memory"}]})
        connection.request("POST", path, content, {"Content-Type": "application/json"})
        connection.close()  # without reading the answer
        eventually(lambda: "/memory" in mounted(engine, name), "the edit is made")
        eventually(lambda: len(editable(engine, name)["Mounts"]) == 1, "it is recorded")


def test_a_container_that_ends_is_a_clear_error(engine: PrivateEngine, busybox: str) -> None:
    for delay in range(8):
        with running(engine, busybox, "sleep", "600") as name:
            end = subprocess.Popen(["sh", "-c", f"sleep 0.0{delay}; kill -9 {pid(engine, name)}"])
            reply = edit(
                engine,
                name,
                Mounts=[{"Type": "tmpfs", "Target": "/memory"}],
                Publish={"80/tcp": [{"HostIp": "127.0.0.1"}]},
                Update={"Memory": 64 << 20},
            )
            end.wait()
            assert reply.status in (200, 409), reply
            if reply.status == 409:
                assert "is not running" in message(reply)
            eventually(lambda n=name: not inspect(engine, n)["State"]["Running"], "it ended")
            document = inspect(engine, name)
            assert (len(document["Mounts"]) == 1) == (reply.status == 200)
            assert engine.request("POST", f"/containers/{name}/start").status == 204
            assert ("/memory" in mounted(engine, name)) == (reply.status == 200)


def test_a_stopped_container_changes_for_its_next_start(
    engine: PrivateEngine, busybox: str
) -> None:
    with running(engine, busybox, "sleep", "600") as name:
        engine.cli("jaula", "kill", name)
        eventually(lambda: not inspect(engine, name)["State"]["Running"], "it ended")
        reply = edit(
            engine,
            name,
            Mounts=[{"Type": "tmpfs", "Target": "/memory"}],
            Publish={"80/tcp": [{"HostIp": "127.0.0.1"}]},
            Update={"Memory": 64 << 20},
        )
        assert reply.status == 200, reply
        assert inspect(engine, name)["Changes"][0]["Running"] is False
        assert engine.request("POST", f"/containers/{name}/start").status == 204
        assert "/memory" in mounted(engine, name)
        assert published(engine, name, "80/tcp")


def test_the_editor_shows_errors_again_and_cancels_without_a_change(
    engine: PrivateEngine, web: str, tmp_path: Path
) -> None:
    def editor(name: str, script: str) -> dict[str, str]:
        file = tmp_path / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return engine.environment() | {"EDITOR": str(file)}

    def run(name: str, script: str) -> subprocess.CompletedProcess[str]:
        return engine.cli("jaula", "edit", web, env=editor(name, script))

    done = run("nothing", "true")
    assert (done.returncode, done.stdout) == (0, "edit cancelled, no changes made\n"), done.stderr
    done = run("restart", 'sed -i "s/^restart.*/restart = \\"always\\"/" "$1"')
    assert done.returncode == 0, done.stderr
    assert '+restart = "always"' in done.stdout
    assert inspect(engine, web)["HostConfig"]["RestartPolicy"]["Name"] == "always"
    done = run("wrong", f'cat "$1" >> {tmp_path}/shown; sed -i "s/^restart.*/restart = 7/" "$1"')
    assert done.returncode == 1
    assert "restart must be a string" in done.stderr
    assert "# The change failed: restart must be a string" in (tmp_path / "shown").read_text()
    kept = Path(done.stderr.splitlines()[0].rpartition(" ")[2])
    kept.unlink()
    done = run("fails", "exit 3")
    assert done.returncode == 1
    assert "failed with status 3" in done.stderr


def test_an_update_event_has_the_changes(engine: PrivateEngine, web: str) -> None:
    assert edit(engine, web, Labels={"seen": "1"}).status == 200
    listed = engine.cli(
        "docker", "events", "--since", "1m", "--until", str(time.time() + 1),
        "--format", "{{json .}}", "--filter", f"container={web}", "--filter", "event=update",
    ).stdout  # fmt: skip
    assert json.loads(listed.splitlines()[-1])["Actor"]["Attributes"]["changes"] == "label seen=1"
