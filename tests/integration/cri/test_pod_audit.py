"""The audit log has each call of CRI that changes something, with its pod, and counts probes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import leaks
from harness.engine import PrivateEngine
from harness.pods import Cri, connected, container_config, sandbox_config
from harness.stream_client import SpdyClient
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_status import GrpcError

Line = dict[str, Any]


@pytest.fixture(scope="module")
def node(worker_index: int) -> Iterator[PrivateEngine]:
    private = PrivateEngine((worker_index + 79) % 250 + 1, extra_flags=("--cri",))
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private


def entries(engine: PrivateEngine) -> list[Line]:
    done = engine.cli("jaula", "system", "audit-log", "--format", "json")
    return [json.loads(line) for line in done.stdout.splitlines()]


def use(engine: PrivateEngine, work: Any) -> list[Line]:
    """Run ``work`` with a connection; return the entries that it made."""
    before = entries(engine)[-1]["time"]  # both logs in the order of time

    async def run() -> None:
        async with connected(engine) as cri:
            try:
                await work(cri)
            finally:
                for pod in (await cri.call("ListPodSandbox")).items:
                    await cri.call("RemovePodSandbox", pod_sandbox_id=pod.id)

    asyncio.run(run())
    return [line for line in entries(engine) if line["time"] > before]


def test_each_call_is_an_entry_with_its_pod(node: PrivateEngine, tmp_path: Path) -> None:
    ids: dict[str, str] = {}

    async def work(cri: Cri) -> None:
        pod = ids["pod"] = await cri.run_pod("web", log_directory=str(tmp_path / "logs"))
        config = container_config("main", "sleep", "100", log_path="main/0.log")
        created = await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
        main = ids["main"] = created.container_id
        await cri.call("StartContainer", container_id=main)
        limits = api_pb2.LinuxContainerResources(cpu_shares=512)
        await cri.call("UpdateContainerResources", container_id=main, linux=limits)
        await cri.call("ReopenContainerLog", container_id=main)
        await cri.run(main, "echo", "a")
        await cri.call("Exec", container_id=main, cmd=["id"], stdout=True)
        await cri.call("Attach", container_id=main, stdout=True)
        await cri.call("PortForward", pod_sandbox_id=pod, port=[80, 81])
        await cri.call("StopContainer", container_id=main)
        await cri.call("RemoveContainer", container_id=main)
        await cri.call("StopPodSandbox", pod_sandbox_id=pod)
        await cri.call("RemovePodSandbox", pod_sandbox_id=pod)
        config = api_pb2.RuntimeConfig(network_config=api_pb2.NetworkConfig(pod_cidr="10.1.0.0/24"))
        await cri.call("UpdateRuntimeConfig", runtime_config=config)

    made = use(node, work)
    by_action = {line["action"]: line for line in made}
    of_pod = ("pod run", "port-forward request", "pod stop", "pod remove")
    of_container = (
        *("container create", "container start", "container update", "container reopen log"),
        *("exec", "exec request", "attach request", "container stop", "container remove"),
        "container spec",
    )
    for action in (*of_pod, *of_container):
        line = by_action[action]
        assert (line["pod"], line["pod_uid"], line["status"]) == ("default/web", "uid-web", 200)
        assert line["object"] == ids["pod" if action in of_pod else "main"], action
        assert line["uid"] == 0
        assert len(json.dumps(line)) < 2048
    for action in ("pod run", "container create", "container update"):
        assert len(by_action[action]["seal"]) == 64
    assert by_action["container create"]["image"] == "busybox"
    assert by_action["container create"]["name"] == "k8s_main_web_default_uid-web_0"
    assert by_action["container create"]["pid"] == os.getpid()
    assert by_action["exec"]["argv"] == ["echo", "a"]
    assert by_action["exec request"]["argv"] == ["id"]
    assert by_action["port-forward request"]["argv"] == ["80", "81"]
    assert by_action["runtime update"]["object"] == "10.1.0.0/24"
    assert node.cli("jaula", "system", "audit-log", "--verify").returncode == 0


def test_failures_are_entries_of_bounded_length(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("web")
        main = await cri.run_container(pod, "main", "sleep", "100")
        with pytest.raises(GrpcError):
            await cri.call("ExecSync", container_id=main, cmd=["sleep", "9"], timeout=1)
        config = container_config("x" * 250, "true")
        config.image.image = "absent:1"
        with pytest.raises(GrpcError):
            await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
        with pytest.raises(GrpcError):
            await cri.call("StartContainer", container_id=main)
        with pytest.raises(GrpcError):
            await cri.call("RunPodSandbox", config=sandbox_config("web"))

    made = use(node, work)
    failed = {line["action"]: line for line in made if line["status"] != 200}
    assert (failed["exec"]["status"], failed["exec"]["pod"]) == (504, "default/web")
    assert "did not end" in failed["exec"]["error"]
    assert failed["container create"]["status"] == 404
    assert failed["container create"]["pod"] == "default/web"
    assert failed["container start"]["status"] == 409
    assert failed["pod run"]["status"] == 409
    assert max(len(json.dumps(line)) for line in made) < 4096


def test_a_probe_does_not_fill_the_log(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        main = await cri.run_container(await cri.run_pod("web"), "main", "sleep", "100")
        for _ in range(20):
            await cri.call("ExecSync", container_id=main, cmd=["true"])
        await cri.call("ExecSync", container_id=main, cmd=["true", "other"])

    made = use(node, work)
    assert [line["argv"] for line in made if line["action"] == "exec"] == [
        ["true"],
        ["true", "other"],
    ]
    node.stop()
    node.start()
    counted = [line for line in entries(node) if line.get("argv") == ["true"]]
    assert [line.get("count", 1) for line in counted] == [1, 19]


def test_an_exec_over_a_url_is_logged_when_it_runs(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        main = await cri.run_container(await cri.run_pod("web"), "main", "sleep", "100")
        url = (await cri.call("Exec", container_id=main, cmd=["id"], stdout=True)).url
        assert not [line for line in entries(node) if line["action"] == "exec start"]
        client = await SpdyClient.connect(url, "v4.channel.k8s.io")
        try:
            ids = await client.open_all("error", "stdout")
            await client.until_ended(ids["error"], ids["stdout"])
        finally:
            client.close()

    made = use(node, work)
    ran = [line for line in made if line["action"] in ("exec create", "exec start")]
    assert [line["argv"] for line in ran] == [["id"], ["id"]]
    assert {line["pod"] for line in ran} == {"default/web"}
