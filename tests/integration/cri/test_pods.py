"""Pods over the CRI socket: sandboxes, their containers, the engine's end, bad requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import load_image
from harness import leaks
from harness.engine import PrivateEngine
from harness.pods import Cri, calls, connected, container_config, refused, sandbox_config, until
from harness.stream_client import SpdyClient, request, spdy_headers
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_status import Code, GrpcError


@pytest.fixture(scope="module")
def node(worker_index: int) -> Iterator[PrivateEngine]:
    private = PrivateEngine((worker_index + 57) % 250 + 1, extra_flags=("--cri",))
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private


def test_a_sandbox_has_one_small_process_named_pause(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("web", labels={"app": "web"}, annotations={"a": "b"})
        (listed,) = (await cri.call("ListPodSandbox")).items
        assert (listed.id, listed.state, listed.metadata.name) == (
            pod,
            api_pb2.SANDBOX_READY,
            "web",
        )
        assert (dict(listed.labels), dict(listed.annotations)) == ({"app": "web"}, {"a": "b"})
        pid = node.request("GET", f"/containers/{pod}/json").json()["State"]["Pid"]
        assert Path(f"/proc/{pid}/comm").read_text() == "pause\n"
        status = Path(f"/proc/{pid}/status").read_text()
        assert int(status.partition("VmRSS:")[2].split()[0]) < 64  # KiB
        assert "CapEff:\t0000000000000000" in status

    calls(node, work)


def test_the_shim_of_a_container_with_a_log_imports_nothing(
    node: PrivateEngine, tmp_path: Path
) -> None:
    def private_memory(container: str) -> int:
        """Return kB that the container's shim shares with no other process."""
        pid = node.request("GET", f"/containers/{container}/json").json()["State"]["Pid"]
        stat = Path(f"/proc/{pid}/stat").read_text()
        shim = stat.rpartition(")")[2].split()[1]
        memory = Path(f"/proc/{shim}/smaps_rollup").read_text()
        return int(memory.partition("Private_Dirty:")[2].split()[0])

    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("web", log_directory=str(tmp_path))
        container = await cri.run_container(pod, "main", "sleep", "1000", log_path="main.log")
        await asyncio.sleep(1)  # the helper of the start has exited
        assert private_memory(container) < private_memory(pod) + 1000

    calls(node, work)


def test_a_container_runs_is_stopped_and_keeps_its_status(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("web")
        config = container_config(
            "main", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done"
        )
        created = await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
        id = created.container_id
        assert (await cri.container(id)).state == api_pb2.CONTAINER_CREATED
        await cri.call("StartContainer", container_id=id)
        running = await cri.container(id)
        assert (running.state, running.metadata.name) == (api_pb2.CONTAINER_RUNNING, "main")
        assert running.started_at >= running.created_at > 0
        error = await refused(cri.call("StartContainer", container_id=id))
        assert "is running" in str(error)
        assert (await cri.run(id, "echo", "inside")) == "inside\n"
        await asyncio.sleep(0.2)
        for _ in range(2):
            await cri.call("StopContainer", container_id=id, timeout=10)
        ended = await cri.container(id)
        assert (ended.state, ended.exit_code, ended.reason) == (
            api_pb2.CONTAINER_EXITED,
            3,
            "Error",
        )
        for _ in range(2):
            await cri.call("RemoveContainer", container_id=id)
        error = await refused(cri.call("ContainerStatus", container_id=id))
        assert error.code is Code.NOT_FOUND

    calls(node, work)


@pytest.mark.parametrize(("mode", "shared"), [(api_pb2.POD, True), (api_pb2.CONTAINER, False)])
def test_the_process_namespace_is_the_pod_s_or_the_container_s(
    node: PrivateEngine, mode: int, shared: bool
) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("shared", pid=mode)
        config = container_config("main", "sleep", "100")
        config.linux.security_context.namespace_options.pid = mode
        id = (await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)).container_id
        await cri.call("StartContainer", container_id=id)
        first = (await cri.run(id, "cat", "/proc/1/comm")).strip()
        assert first == ("pause" if shared else "sleep")
        if shared:  # an orphan is reaped by pause
            await cri.run(id, "sh", "-c", "sleep 0.05 & exit 0")
            await asyncio.sleep(0.3)
            assert "Z" not in await cri.run(id, "sh", "-c", "cut -d' ' -f3 /proc/[0-9]*/stat")

    calls(node, work)


def test_containers_of_a_pod_share_memory_and_host_name(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("two")
        one = await cri.run_container(pod, "one", "sleep", "100")
        two = await cri.run_container(pod, "two", "sleep", "100")
        await cri.run(one, "sh", "-c", "echo shared > /dev/shm/file")
        assert await cri.run(two, "cat", "/dev/shm/file") == "shared\n"
        for kind in ("net", "ipc", "uts"):
            link = ("readlink", f"/proc/self/ns/{kind}")
            assert await cri.run(one, *link) == await cri.run(two, *link)
        assert (
            os.readlink("/proc/self/ns/net")
            == (await cri.run(one, "readlink", "/proc/self/ns/net")).strip()
        )

    calls(node, work)


def test_exec_sync_has_both_streams_the_status_and_a_limit(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        id = await cri.run_container(await cri.run_pod("exec"), "main", "sleep", "100")
        command = ("sh", "-c", "echo out; echo err >&2; exit 7")
        done = await cri.call("ExecSync", container_id=id, cmd=command, timeout=10)
        assert (done.stdout, done.stderr, done.exit_code) == (b"out\n", b"err\n", 7)
        error = await refused(
            cri.call(
                "ExecSync", container_id=id, cmd=["sh", "-c", "sleep 100 & sleep 99"], timeout=1
            )
        )
        assert error.code is Code.DEADLINE_EXCEEDED
        assert "sleep 99" not in await cri.run(id, "ps")
        done = await cri.call(
            "ExecSync", container_id=id, cmd=["head", "-c", str(1 << 20), "/dev/zero"]
        )
        assert len(done.stdout) == 1 << 20

    calls(node, work)


def test_docker_s_lists_have_pods_only_if_asked(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("hidden")
        id = await cri.run_container(pod, "main", "sleep", "100")
        await cri.call("StopContainer", container_id=id)
        assert node.request("GET", "/containers/json?all=1").json() == []
        listed = node.request("GET", "/containers/json?all=1&pods=1").json()
        assert {entry["Id"] for entry in listed} == {pod, id}
        assert "k8s_main_hidden" in node.cli("jaula", "ps", "-a", "--pods").stdout
        assert node.request("POST", "/containers/prune").json()["ContainersDeleted"] is None
        assert node.request("GET", f"/containers/{id}/json").status == 200
        assert node.request("GET", "/info").json()["Containers"] == 0

    calls(node, work)


def test_pods_outlive_the_engine(node: PrivateEngine) -> None:
    ids: list[str] = []

    async def start(cri: Cri) -> None:
        pod = await cri.run_pod("lasting")
        ids.append(pod)
        ids.append(await cri.run_container(pod, "main", "sleep", "100"))

    async def begin() -> None:
        async with connected(node) as cri:
            await start(cri)

    asyncio.run(begin())
    node.kill()
    node.start()

    async def work(cri: Cri) -> None:
        (pod,) = (await cri.call("ListPodSandbox")).items
        assert (pod.id, pod.state) == (ids[0], api_pb2.SANDBOX_READY)
        assert (await cri.container(ids[1])).state == api_pb2.CONTAINER_RUNNING
        assert await cri.run(ids[1], "echo", "alive") == "alive\n"
        await cri.run(ids[1], "sh", "-c", "echo shared > /dev/shm/file")
        second = await cri.run_container(ids[0], "second", "sleep", "100")
        assert await cri.run(second, "cat", "/dev/shm/file") == "shared\n"
        options = await cri.run(second, "grep", " /dev/shm ", "/proc/mounts")
        assert {"nosuid", "nodev", "noexec"} <= set(options.split()[3].split(","))

    calls(node, work)


def test_a_call_of_exec_ends_when_the_shim_is_killed(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        id = await cri.run_container(await cri.run_pod("killed"), "main", "sleep", "100")
        call = cri.call("ExecSync", container_id=id, cmd=["sh", "-c", "echo out; sleep 98"])
        running = asyncio.ensure_future(call)
        top = f"/containers/{id}/top"
        await until(lambda: b"sleep 98" in node.request("GET", top).body)
        pid = node.request("GET", f"/containers/{id}/json").json()["State"]["Pid"]
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        os.kill(int(parent), 9)
        done = await asyncio.wait_for(running, 20)
        assert (done.stdout, done.exit_code) == (b"out\n", 137)

    calls(node, work)


def test_a_client_that_leaves_does_not_undo_a_start(node: PrivateEngine, tmp_path: Path) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("left")
        config = container_config("main", "sh", "-c", "echo run >> /out/runs; sleep 100")
        config.mounts.add(host_path=str(tmp_path), container_path="/out")
        created = await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
        async with connected(node) as other:
            start = other.call("StartContainer", container_id=created.container_id)
            starting = asyncio.ensure_future(start)
            await asyncio.sleep(0.03)
        with contextlib.suppress(GrpcError):
            await starting
        await until((tmp_path / "runs").exists)
        await asyncio.sleep(0.3)
        if (await cri.container(created.container_id)).state == api_pb2.CONTAINER_CREATED:
            await cri.call("StartContainer", container_id=created.container_id)
        assert (tmp_path / "runs").read_text() == "run\n"

    calls(node, work)


def test_removal_of_a_sandbox_ends_its_containers(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("gone")
        await cri.run_container(pod, "main", "sleep", "100")
        for _ in range(2):
            await cri.call("StopPodSandbox", pod_sandbox_id=pod)
        status = (await cri.call("PodSandboxStatus", pod_sandbox_id=pod)).status
        assert status.state == api_pb2.SANDBOX_NOTREADY
        config = container_config("late", "true")
        error = await refused(cri.call("CreateContainer", pod_sandbox_id=pod, config=config))
        assert "does not run" in str(error)
        for _ in range(2):
            await cri.call("RemovePodSandbox", pod_sandbox_id=pod)
        assert not (await cri.call("ListContainers")).containers

    calls(node, work)


def test_bad_requests_get_one_clear_error_and_leave_nothing(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        error = await refused(cri.call("RunPodSandbox"))
        assert error.code is Code.INVALID_ARGUMENT
        config = sandbox_config("x")
        config.metadata.uid = "a/b"
        error = await refused(cri.call("RunPodSandbox", config=config))
        assert (error.code, "'a/b'" in str(error)) == (Code.INVALID_ARGUMENT, True)
        error = await refused(
            cri.call("RunPodSandbox", config=sandbox_config("x"), runtime_handler="gvisor")
        )
        assert (error.code, "gvisor" in str(error)) == (Code.NOT_FOUND, True)
        config = sandbox_config("x")
        config.linux.sysctls["kernel.panic"] = "1"
        error = await refused(cri.call("RunPodSandbox", config=config))
        assert "kernel.panic" in str(error)
        pod = await cri.run_pod("x")
        error = await refused(cri.call("RunPodSandbox", config=sandbox_config("x")))
        assert error.code is Code.FAILED_PRECONDITION
        error = await refused(
            cri.call("CreateContainer", pod_sandbox_id=pod, config=api_pb2.ContainerConfig())
        )
        assert error.code is Code.INVALID_ARGUMENT
        absent = container_config("c", "true")
        absent.image.image = "absent"
        error = await refused(cri.call("CreateContainer", pod_sandbox_id=pod, config=absent))
        assert error.code is Code.NOT_FOUND
        error = await refused(cri.call("PodSandboxStatus", pod_sandbox_id="abc"))
        assert error.code is Code.NOT_FOUND
        assert len((await cri.call("ListPodSandbox")).items) == 1
        assert not (await cri.call("ListContainers")).containers

    calls(node, work)


def test_the_socket_is_root_s(node: PrivateEngine) -> None:
    status = (node.run / "cri.sock").stat()
    assert (status.st_mode & 0o777, status.st_uid) == (0o600, 0)


def test_a_log_is_written_for_the_kubelet_and_opened_again(
    node: PrivateEngine, tmp_path: Path
) -> None:
    async def work(cri: Cri) -> None:
        directory = tmp_path / "pods" / "default_logging_uid"
        pod = await cri.run_pod("logging", log_directory=str(directory))
        script = "echo one; while [ ! -e /dev/shm/go ]; do sleep 0.05; done; echo two; sleep 100"
        id = await cri.run_container(pod, "main", "sh", "-c", script, log_path="main/0.log")
        file = directory / "main/0.log"
        assert (await cri.container(id)).log_path == str(file)
        await until(lambda: file.read_text().endswith(" stdout F one\n"))
        file.rename(directory / "main/0.log.old")
        await cri.call("ReopenContainerLog", container_id=id)
        await cri.run(id, "touch", "/dev/shm/go")
        await until(lambda: file.read_text().endswith(" stdout F two\n"))
        assert node.cli("jaula", "logs", id).stdout == "two\n"

    calls(node, work)


def test_limits_are_set_changed_and_reported_with_the_usage(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        config = container_config("main", "sleep", "100")
        config.linux.resources.memory_limit_in_bytes = 64 << 20
        config.linux.resources.cpu_shares = 512
        pod = await cri.run_pod("limits")
        id = (await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)).container_id
        await cri.call("StartContainer", container_id=id)
        assert (await cri.container(id)).resources.linux.memory_limit_in_bytes == 64 << 20
        changed = api_pb2.LinuxContainerResources(memory_limit_in_bytes=96 << 20, cpu_shares=256)
        await cri.call("UpdateContainerResources", container_id=id, linux=changed)
        resources = (await cri.container(id)).resources.linux
        assert (resources.memory_limit_in_bytes, resources.cpu_shares) == (96 << 20, 256)
        await cri.run(id, "sh", "-c", "echo data > /file")
        (stats,) = (await cri.call("ListContainerStats")).stats
        assert (stats.attributes.id, stats.attributes.metadata.name) == (id, "main")
        assert stats.cpu.usage_core_nano_seconds.value > 0
        assert 0 < stats.memory.working_set_bytes.value < 96 << 20
        assert stats.memory.available_bytes.value < 96 << 20
        assert stats.writable_layer.used_bytes.value == 5
        (pod_stats,) = (await cri.call("ListPodSandboxStats")).stats
        assert pod_stats.attributes.metadata.name == "limits"
        assert pod_stats.linux.process.process_count.value > 0
        assert [c.attributes.id for c in pod_stats.linux.containers] == [id]
        one = (await cri.call("ContainerStats", container_id=id)).stats
        assert one.writable_layer.fs_id.mountpoint == str(node.root / "lib")

    calls(node, work)


def test_exec_over_spdy_has_input_both_outputs_and_the_status(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        id = await cri.run_container(await cri.run_pod("streams"), "main", "sleep", "100")
        command = ("sh", "-c", "cat; echo err >&2; exit 3")
        options = {
            "container_id": id,
            "cmd": command,
            "stdin": True,
            "stdout": True,
            "stderr": True,
        }
        url = (await cri.call("Exec", **options)).url
        client = await SpdyClient.connect(url, "v4.channel.k8s.io")
        try:
            ids = await client.open_all("error", "stdin", "stdout", "stderr")
            await client.send(ids["stdin"], b"typed\n", fin=True)
            await client.until_ended(ids["error"], ids["stdout"], ids["stderr"])
            assert client.received[ids["stdout"]] == b"typed\n"
            assert client.received[ids["stderr"]] == b"err\n"
            status = json.loads(client.received[ids["error"]])
            assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
            assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
        finally:
            client.close()
        again, _reader, writer = await request(url, spdy_headers("v4.channel.k8s.io"))
        writer.close()
        assert again.status == 404

    calls(node, work)


def test_port_forward_reaches_the_loopback_interface_of_a_pod(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("ports")
        with socket.create_server(("127.0.0.1", 0)) as server:  # the pod has the host's network
            port = server.getsockname()[1]
            url = (await cri.call("PortForward", pod_sandbox_id=pod, port=[port])).url
            client = await SpdyClient.connect(url, "portforward.k8s.io")
            try:
                headers = {"port": str(port), "requestid": "0"}
                error = await client.open(streamtype="error", **headers)
                data = await client.open(streamtype="data", **headers)
                await client.send(error, b"", fin=True)
                await client.send(data, b"to the pod", fin=True)
                peer, _ = await asyncio.to_thread(server.accept)
                with peer:
                    assert await asyncio.to_thread(peer.recv, 100) == b"to the pod"
                    peer.sendall(b"from the pod")
                await client.until_ended(error, data)
                assert client.received[data] == b"from the pod"
                assert not client.received.get(error)
            finally:
                client.close()

    calls(node, work)


def test_events_have_the_statuses_of_their_pod(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        async with connected(node) as listener:
            events = listener.stream("GetContainerEvents", api_pb2.GetEventsRequest())
            first = asyncio.ensure_future(anext(events))
            await until(lambda: node.request("GET", "/info").json()["NEventsListener"] > 0)
            pod = await cri.run_pod("events")
            id = await cri.run_container(pod, "main", "sh", "-c", "exit 4")
            seen = [await first]
            while seen[-1].container_event_type != api_pb2.CONTAINER_STOPPED_EVENT:
                seen.append(await anext(events))
            await cri.call("RemovePodSandbox", pod_sandbox_id=pod)
            while (seen[-1].container_id, seen[-1].container_event_type) != (
                pod,
                api_pb2.CONTAINER_DELETED_EVENT,
            ):
                seen.append(await anext(events))
            kinds = [event.container_event_type for event in seen if event.container_id == id]
            assert kinds == [
                *(api_pb2.CONTAINER_CREATED_EVENT, api_pb2.CONTAINER_STARTED_EVENT),
                *(api_pb2.CONTAINER_STOPPED_EVENT, api_pb2.CONTAINER_DELETED_EVENT),
            ]
            stopped = next(
                e for e in seen if e.container_event_type == api_pb2.CONTAINER_STOPPED_EVENT
            )
            assert stopped.pod_sandbox_status.id == pod
            (status,) = stopped.containers_statuses
            assert (status.id, status.exit_code) == (id, 4)
            await events.aclose()

    calls(node, work)


def test_lists_are_streamed_as_well(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("streamed")
        id = await cri.run_container(pod, "main", "sleep", "100")
        for method, message, field in (
            ("StreamPodSandboxes", api_pb2.StreamPodSandboxesRequest(), "pod_sandboxes"),
            ("StreamContainers", api_pb2.StreamContainersRequest(), "containers"),
            ("StreamContainerStats", api_pb2.StreamContainerStatsRequest(), "container_stats"),
            ("StreamPodSandboxStats", api_pb2.StreamPodSandboxStatsRequest(), "pod_sandbox_stats"),
        ):
            (part,) = [part async for part in cri.stream(method, message)]
            (item,) = getattr(part, field)
            attributes = getattr(item, "attributes", item)
            assert attributes.id == (pod if "Sandbox" in method else id)

    calls(node, work)


def test_a_handler_gives_a_pod_a_user_namespace_of_its_own(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        handlers = {h.name for h in (await cri.call("Status")).runtime_handlers}
        assert handlers >= {"", "jaula-userns"}
        call = {"config": sandbox_config("mapped"), "runtime_handler": "jaula-userns"}
        pod = (await cri.call("RunPodSandbox", **call)).pod_sandbox_id
        assert (await cri.call("ListPodSandbox")).items[0].runtime_handler == "jaula-userns"
        one = await cri.run_container(pod, "one", "sleep", "100")
        two = await cri.run_container(pod, "two", "sleep", "100")
        row = (await cri.run(one, "cat", "/proc/self/uid_map")).split()
        assert row[0] == "0" and int(row[1]) > 100_000 and int(row[2]) == 65536
        link = ("readlink", "/proc/self/ns/user")
        assert await cri.run(one, *link) == await cri.run(two, *link)
        assert (await cri.run(one, *link)).strip() != os.readlink("/proc/self/ns/user")
        await cri.run(one, "sh", "-c", "echo shared > /dev/shm/file")
        assert await cri.run(two, "cat", "/dev/shm/file") == "shared\n"

    calls(node, work)


def test_the_kubelet_chooses_the_ids_of_a_pod(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        config = sandbox_config("chosen")
        options = config.linux.security_context.namespace_options.userns_options
        options.mode = api_pb2.POD
        for mappings in (options.uids, options.gids):
            mappings.add(container_id=0, host_id=1_900_000_000, length=65536)
        pod = (await cri.call("RunPodSandbox", config=config)).pod_sandbox_id
        id = await cri.run_container(pod, "main", "sleep", "100")
        row = (await cri.run(id, "cat", "/proc/self/uid_map")).split()
        assert row == ["0", "1900000000", "65536"]
        status = (await cri.call("PodSandboxStatus", pod_sandbox_id=pod)).status
        shown = status.linux.namespaces.options.userns_options
        assert (shown.mode, shown.uids[0].host_id) == (api_pb2.POD, 1_900_000_000)

    calls(node, work)


@pytest.mark.needs("runc")
def test_a_handler_is_a_runtime_of_the_configuration(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine = new_engine("--cri", "--add-runtime", "other=runc")
    load_image(engine, "busybox")

    async def work(cri: Cri) -> None:
        call = {"config": sandbox_config("other"), "runtime_handler": "other"}
        pod = (await cri.call("RunPodSandbox", **call)).pod_sandbox_id
        id = await cri.run_container(pod, "main", "sleep", "100")
        document = engine.request("GET", f"/containers/{id}/json").json()
        assert document["HostConfig"]["Runtime"] == "other"
        assert await cri.run(id, "echo", "inside") == "inside\n"

    calls(engine, work)
