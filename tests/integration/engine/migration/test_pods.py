"""Pods move as one: their connections go on, or all containers run on at the source."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.migration import SUBNET, Site, Sites, ip, move_interrupted, sites
from harness.moved_pod import POD, PORT, Pod, PodEngine, call, pid_at, pods_of, remove_pods
from jaula.features.kubernetes.cri.proto import api_pb2

pytestmark = [
    pytest.mark.criu,
    pytest.mark.needs("gcc", "ip", "openssl", "nsenter", "/usr/lib/cni/bridge"),
]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with sites(tmp_path_factory.mktemp("sites"), 12, kind=PodEngine) as made:
        yield made


@pytest.fixture
def pod(two: Sites, tmp_path: Path) -> Iterator[Pod]:
    made = Pod(two.a, tmp_path / "logs")
    ip("neigh", "flush", "all", netns=two.client)
    time.sleep(0.5)
    yield made
    for site in (two.a, two.b):
        remove_pods(site)


def migrate(source: Site, target: Site, *words: str) -> str:
    return source.jaula("container", "migrate", *words, "--to", target.target)


def test_a_pod_goes_on_at_the_target(two: Sites, pod: Pod) -> None:
    with two.counting(pod.address, PORT) as client:
        ids = migrate(two.a, two.b, "--keep-address", "--pod", POD).split()
        time.sleep(0.5)
        result = client.finish()
    assert result["failure"] == ""
    assert result["answers"] == result["last"]
    status, moved = pod.status(two.b), pod.containers(two.b)
    assert pod.runs(two.b)
    assert status.network.ip == pod.address
    assert dict(status.labels) == {"app": POD}
    assert {status.id, *(each.id for each in moved.values())} == set(ids)
    server = moved["server"].id
    assert call(two.b, lambda cri: cri.run(server, "cat", "/dev/shm/f")) == "kept\n"
    read = ("cat", "/proc/sys/kernel/hostname")
    assert call(two.b, lambda cri: cri.run(server, *read)) == "box\n"
    containers.eventually(
        lambda: "tick" in (pod.logs / "server.log").read_text(), "the log goes on"
    )
    assert pod.status(two.a).state == api_pb2.SANDBOX_NOTREADY
    assert {each.state for each in pod.containers(two.a).values()} == {api_pb2.CONTAINER_EXITED}


def test_a_pod_with_a_user_namespace_moves_after_rounds(two: Sites, tmp_path: Path) -> None:
    try:
        pod = Pod(two.a, tmp_path / "logs", userns=True)
        ip("neigh", "flush", "all", netns=two.client)
        time.sleep(0.5)
        with two.counting(pod.address, PORT) as client:
            migrate(two.a, two.b, "--keep-address", "--pre-copy", "2", "--pod", POD)
            time.sleep(0.5)
            result = client.finish()
        assert result["failure"] == ""
        assert result["answers"] == result["last"]
        assert pod.runs(two.b)
        server = pod.containers(two.b)["server"].id
        read = ("sh", "-c", "cat /dev/shm/f /proc/self/uid_map")
        text = call(two.b, lambda cri: cri.run(server, *read))
        assert text.split() == ["kept", "0", str(65536 * 60), "65536"]
    finally:
        for site in (two.a, two.b):
            remove_pods(site)


def test_a_pod_with_a_file_of_the_host_needs_the_same_one(two: Sites, tmp_path: Path) -> None:
    mount = tmp_path / "termination"
    mount.write_text("shared\n")
    try:
        pod = Pod(two.a, tmp_path / "logs", mount=mount)
        time.sleep(0.5)
        text = two.a.refused("container", "migrate", "--pod", POD, "--to", two.b.target)
        assert f"{mount} is a directory of this host" in text
        assert "--volumes shared" in text
        assert pod.runs(two.a)
        migrate(two.a, two.b, "--volumes", "shared", "--pod", POD)
        assert pod.runs(two.b)
        server = pod.containers(two.b)["server"].id
        read = ("cat", "/dev/termination-log")
        assert call(two.b, lambda cri: cri.run(server, *read)) == "shared\n"
    finally:
        for site in (two.a, two.b):
            remove_pods(site)


def test_an_absent_pod_is_named(two: Sites) -> None:
    text = two.a.refused("container", "migrate", "--pod", "absent", "--to", two.b.target)
    assert "No such running pod: absent (crictl pods lists them)" in text


def test_a_pod_moves_there_and_back(two: Sites, pod: Pod) -> None:
    with two.counting(pod.address, PORT) as client:
        for source, target in ((two.a, two.b), (two.b, two.a)):
            time.sleep(0.5)
            migrate(source, target, "--rm", "--pod", f"default/{POD}")
            assert pod.runs(target)
            assert pods_of(source) == []
        time.sleep(0.5)
        result = client.finish()
    assert result["failure"] == ""
    assert result["answers"] == result["last"]


def test_a_pod_gets_a_new_address_if_its_own_is_not_free(two: Sites, pod: Pod) -> None:
    engine_of(two.b).configure(two.b.netns[-1], first=150)
    time.sleep(1)  # the engine follows the file
    try:
        text = two.a.refused(
            "container", "migrate", "--keep-address", "--pod", POD, "--to", two.b.target
        )
        assert pod.address in text
        assert pod.runs(two.a)
        assert pods_of(two.b) == []
        done = two.a.engine.cli("jaula", "container", "migrate", "--pod", POD, "--to", two.b.target)
        assert done.returncode == 0, done.stderr
        assert f"the address {pod.address} cannot be kept" in done.stderr
        assert pod.runs(two.b)
        address = pod.status(two.b).network.ip
        assert int(address.removeprefix(f"{SUBNET}.")) >= 150
        with two.counting(address, 7000) as client:
            assert client.finish()["failure"] == ""
    finally:
        engine_of(two.b).configure(two.b.netns[-1])
        time.sleep(1)


def engine_of(site: Site) -> PodEngine:
    assert isinstance(site.engine, PodEngine)
    return site.engine


def kill_a_container(two: Sites) -> None:
    found = two.b.engine.request("GET", "/containers/json?all=1&pods=1").json()
    (id,) = [each["Id"] for each in found if each["Pod"]["Container"] == "relay"]
    two.b.engine.request("DELETE", f"/containers/{id}?force=1")


def restart_target(two: Sites) -> None:
    two.b.engine.kill()
    two.b.engine.start()


def kill_criu(two: Sites) -> None:
    """Kill a CRIU of the target: it is in the network namespace of the pod."""
    namespace = os.readlink(f"/proc/{pid_at(two.b)}/ns/net")
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                program = os.readlink(directory / "exe").rpartition("/")[2]
                if program == "criu" and os.readlink(directory / "ns/net") == namespace:
                    os.kill(int(directory.name), signal.SIGKILL)
                    return
    raise AssertionError("no CRIU is in the pod")


@pytest.mark.parametrize(
    ("stage", "interrupt"),
    [("stopped", kill_a_container), ("stopped", restart_target), ("restoring", kill_criu)],
)
def test_a_pod_runs_on_if_something_fails_before_the_commit(
    two: Sites, pod: Pod, stage: str, interrupt: Callable[[Sites], None]
) -> None:
    with two.counting(pod.address, PORT) as client:
        text = move_interrupted(
            two.a,
            two.b,
            ("--pod", POD),
            f"relay.*: {stage}",
            lambda: interrupt(two),
            timeout=90,
        )
        time.sleep(0.5)
        result = client.finish()
    assert "all containers of the group run on here" in text
    assert result["failure"] == ""
    assert result["answers"] == result["last"]
    assert pod.runs(two.a)
    assert pod.status(two.a).network.ip == pod.address
    containers.eventually(
        lambda: two.b.engine.request("GET", "/containers/json?all=1&pods=1").json() == [],
        "the target has undone it",
    )
    assert not list((two.b.engine.root / "ips").rglob("10.*"))


def test_a_container_of_a_pod_does_not_move_alone(two: Sites, pod: Pod) -> None:
    for name in (f"k8s_relay_{POD}_default_uid-{POD}_0", f"k8s_POD_{POD}_default_uid-{POD}_0"):
        text = two.a.refused("container", "migrate", name, "--to", two.b.target)
        assert f"jaula container migrate --pod {pod.id[:12]} --to tcp://HOST:2376" in text
    assert pod.runs(two.a)


def test_a_log_directory_that_cannot_be_made_is_a_refusal(two: Sites, pod: Pod) -> None:
    moved = pod.logs.rename(pod.logs.with_name("moved"))
    pod.logs.write_text("")  # both engines have the same file system
    try:
        done = two.a.engine.cli(
            *("jaula", "container", "migrate", "--dry-run", "--pod", POD, "--to", two.b.target)
        )
        assert done.returncode == 1
        assert f"{pod.logs} is in the way of the log directory" in done.stdout
        assert f"remove {pod.logs} at the target" in done.stdout
    finally:
        pod.logs.unlink()
        moved.rename(pod.logs)
    assert pod.runs(two.a)


def test_an_evacuation_moves_a_pod_as_one(two: Sites, pod: Pod) -> None:
    done = two.a.engine.cli("jaula", "host", "evacuate", "--to", two.b.target)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if f"pod {POD}" in line]
    assert len(rows) == 3
    assert all("moved" in row for row in rows)
    assert pod.runs(two.b)


def test_a_system_v_object_of_a_pod_is_a_refusal(two: Sites, pod: Pod) -> None:
    join = ["nsenter", f"--ipc=/proc/{pid_at(two.a)}/ns/ipc"]
    subprocess.run([*join, "ipcmk", "-Q"], check=True, capture_output=True)
    text = two.a.refused("container", "migrate", "--pod", POD, "--to", two.b.target)
    assert "its IPC namespace has a System V message queue, which would be lost" in text
    assert "ipcrm" in text
    assert pod.runs(two.a)
