"""The kubelet's checkpoint API: an archive below its directory, and a container that runs on."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from harness.kubelet import Kubelet, Pending, container, pod

pytestmark = pytest.mark.criu

COUNT = "i=0; while :; do i=$((i+1)); echo $i; echo $i >/root/last; sleep 0.1; done"


@pytest.mark.parametrize("host_users", [True, False])
def test_the_kubelet_checkpoints_a_container(node: Kubelet, *, host_users: bool) -> None:
    name = "counted" if host_users else "mapped"
    full = node.apply(pod(name, container("main", COUNT), hostUsers=host_users))
    node.ready(name)
    before = node.status(name, "main")
    reply = node.request("POST", f"/checkpoint/default/{full}/main")
    assert reply.status == 200, reply.body
    (location,) = json.loads(reply.body)["items"]
    path = Path(location)
    assert path.parent == node.directory / "root/checkpoints"
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        names = archive.getnames()
        log = archive.extractfile("container.log")
        assert log is not None
        assert b" stdout F 1\n" in log.read()
    for expected in ("spec.dump", "config.dump", "rootfs-diff.tar", "checkpoint/pstree.img"):
        assert expected in names
    seen = len(node.read_log(name, "main").splitlines())
    node.until(lambda: _has_lines(node, name, seen + 5))
    assert node.status(name, "main")["containerID"] == before["containerID"]
    assert node.status(name, "main")["restartCount"] == 0


def _has_lines(node: Kubelet, name: str, least: int) -> None:
    numbers = [int(line) for line in node.read_log(name, "main").splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))
    if len(numbers) < least:
        raise Pending(f"the log has {len(numbers)} lines")


def test_an_absent_container_has_no_checkpoint(node: Kubelet) -> None:
    full = node.apply(pod("single", container("main", "sleep 1000")))
    node.ready("single")
    reply = node.request("POST", f"/checkpoint/default/{full}/other")
    assert reply.status == 404


def test_a_static_pod_goes_on_from_a_checkpoint(node: Kubelet, tmp_path: Path) -> None:
    full = node.apply(pod("former", container("main", COUNT), hostUsers=False))
    node.ready("former")
    node.until(lambda: _has_lines(node, "former", 5))
    reply = node.request("POST", f"/checkpoint/default/{full}/main")
    assert reply.status == 200, reply.body
    (location,) = json.loads(reply.body)["items"]
    node.delete("former")
    shutil.move(location, tmp_path / "main.tar")
    label = "LABEL org.criu.checkpoint.container.name=main"
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\nADD main.tar /\n{label}\n")
    done = node.engine.cli("jaula", "build", "-t", "former:1", str(tmp_path))
    assert done.returncode == 0, done.stderr
    restored = {"name": "main", "image": "former:1", "imagePullPolicy": "Never"}
    node.apply(pod("latter", restored, hostUsers=False))
    node.ready("latter")
    node.until(lambda: _goes_on(node, "latter"))
    assert node.status("latter", "main")["restartCount"] == 0


def _goes_on(node: Kubelet, name: str) -> None:
    numbers = [int(line) for line in node.read_log(name, "main").splitlines()]
    if len(numbers) < 5:
        raise Pending(f"the log has {len(numbers)} lines")
    assert numbers[0] > 1
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
