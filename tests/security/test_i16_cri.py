"""I16: the socket of CRI checks its peer, and each field of a pod asks the policy.

CVE-2014-3499 and CVE-2026-34040 (a socket that more users than root may use), CVE-2024-41110.
"""

from __future__ import annotations

import asyncio
import grp
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.pod_node import Node, running_node
from harness.pods import Cri, connected, container_config
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_status import Code, GrpcError

pytestmark = pytest.mark.needs("/usr/lib/cni/bridge")
HANDLER = "jaula-userns"
RUNS, READS, NOBODY, OTHER, TRUSTED = 54321, 54322, 54323, 54324, 54325
RULES = f"""
[user.{RUNS}]
access = "run"
max-memory = "1g"
security-options = ["landlock=off", "systempaths=unconfined"]

[user.{READS}]
access = "read"

[user.{OTHER}]
access = "run"

[user.{TRUSTED}]
access = "run"
host-mounts = ["/granted"]
"""


class Guarded:
    """A node with a policy, whose socket a group may use."""

    def __init__(self, node: Node, policy: Path, group: int) -> None:
        self.node, self.policy, self.group = node, policy, group

    def use(self, uid: int, work: Callable[[Cri], Awaitable[None]]) -> None:
        """Run ``work`` as a user of the group; root removes every pod afterwards."""

        async def run() -> None:
            try:
                async with connected(self.node.engine, uid, uid, (self.group,)) as cri:
                    await work(cri)
            finally:
                await self.remove_pods()

        asyncio.run(run())

    async def remove_pods(self) -> None:
        async with connected(self.node.engine) as root:
            for pod in (await root.call("ListPodSandbox")).items:
                await root.call("RemovePodSandbox", pod_sandbox_id=pod.id)

    def set_policy(self, rules: str) -> None:
        """Write the policy and have it read."""
        self.policy.write_text(rules)
        assert self.node.engine.process is not None
        self.node.engine.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)


@pytest.fixture(scope="module")
def guarded(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("cni")
    policy = directory / "policy.toml"
    policy.write_text(RULES)
    policy.chmod(0o600)
    group = next(g for g in grp.getgrall() if g.gr_gid not in (0, 65534))
    flags = ("--policy", str(policy), "--cri-socket-group", group.gr_name)
    with running_node((worker_index + 73) % 250 + 1, directory, *flags) as node:
        node.engine.run.chmod(0o711)
        yield Guarded(node, policy, group.gr_gid)


async def denied(call: Awaitable[object]) -> str:
    with pytest.raises(GrpcError) as caught:
        await call
    assert caught.value.code is Code.PERMISSION_DENIED, caught.value
    return str(caught.value)


def pod_config(name: str = "web") -> api_pb2.PodSandboxConfig:
    """Return a pod with its own network, which asks for nothing by the handler jaula-userns."""
    return api_pb2.PodSandboxConfig(
        metadata=api_pb2.PodSandboxMetadata(name=name, uid=f"uid-{name}", namespace="default")
    )


async def run_pod(cri: Cri, config: api_pb2.PodSandboxConfig, handler: str = HANDLER) -> str:
    ran = await cri.call("RunPodSandbox", config=config, runtime_handler=handler)
    return str(ran.pod_sandbox_id)


def test_only_the_group_that_the_operator_names_can_connect(guarded: Guarded) -> None:
    facts = (guarded.node.engine.run / "cri.sock").stat()
    assert (facts.st_mode & 0o777, facts.st_uid, facts.st_gid) == (0o660, 0, guarded.group)

    async def outside() -> None:
        async with connected(guarded.node.engine, RUNS, RUNS):
            pass

    with pytest.raises(PermissionError):
        asyncio.run(outside())


@pytest.mark.parametrize(
    ("uid", "method", "access"),
    [
        (NOBODY, "Version", "read"),
        (NOBODY, "ListPodSandbox", "read"),
        (READS, "RunPodSandbox", "run"),
        (READS, "UpdateRuntimeConfig", "run"),
    ],
)
def test_a_caller_without_a_right_gets_the_line_that_would_give_it(
    guarded: Guarded, uid: int, method: str, access: str
) -> None:
    async def work(cri: Cri) -> None:
        fields = {"config": pod_config()} if method == "RunPodSandbox" else {}
        text = await denied(cri.call(method, **fields))
        assert f'the line access = "{access}" below [user.{uid}] in {guarded.policy}' in text

    guarded.use(uid, work)


def test_the_line_that_an_error_names_allows_the_call(guarded: Guarded) -> None:
    async def work(cri: Cri) -> None:
        text = await denied(run_pod(cri, pod_config(), ""))
        line, title = (
            text.partition("the line ")[2].partition(" below "),
            text.partition(" below ")[2].partition(" in ")[0],
        )
        assert title == f"[user.{RUNS}]"
        guarded.set_policy(RULES.replace(f"{title}\n", f"{title}\n{line[0]}\n"))
        try:
            pod = await run_pod(cri, pod_config(), "")
            assert [p.id for p in (await cri.call("ListPodSandbox")).items] == [pod]
        finally:
            guarded.set_policy(RULES)

    guarded.use(RUNS, work)


def node_mode(field: str) -> Callable[[api_pb2.PodSandboxConfig], None]:
    def change(config: api_pb2.PodSandboxConfig) -> None:
        options = config.linux.security_context.namespace_options
        setattr(options, field, api_pb2.NODE)

    return change


def chosen_ids(config: api_pb2.PodSandboxConfig) -> None:
    options = config.linux.security_context.namespace_options.userns_options
    options.mode = api_pb2.POD
    for mappings in (options.uids, options.gids):
        mappings.add(container_id=0, host_id=1_900_000_000, length=65536)


def low_port(config: api_pb2.PodSandboxConfig) -> None:
    config.port_mappings.add(host_port=80, container_port=80)


def log_directory(config: api_pb2.PodSandboxConfig) -> None:
    config.log_directory = "/var/log/pods/x"


def cgroup_parent(config: api_pb2.PodSandboxConfig) -> None:
    config.linux.cgroup_parent = "/kubepods"


def label(config: api_pb2.PodSandboxConfig) -> None:
    config.linux.security_context.selinux_options.type = "spc_t"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (node_mode("network"), 'host-namespaces = ["network"]'),
        (node_mode("pid"), 'host-namespaces = ["pid"]'),
        (node_mode("ipc"), 'host-namespaces = ["ipc"]'),
        (chosen_ids, 'host-namespaces = ["user"]'),
        (low_port, 'host-ports = ["1024-65535", "80"]'),
        (log_directory, 'host-mounts = ["/var/log/pods/x"]'),
        (cgroup_parent, 'cgroup-parents = ["/kubepods"]'),
        (
            label,
            'security-options = ["landlock=off", "systempaths=unconfined", "label=type:spc_t"]',
        ),
    ],
)
def test_a_field_of_a_pod_is_denied_with_its_line_and_leaves_nothing(
    guarded: Guarded, change: Callable[[api_pb2.PodSandboxConfig], None], line: str
) -> None:
    async def work(cri: Cri) -> None:
        config = pod_config("denied")
        change(config)
        text = await denied(run_pod(cri, config))
        assert (f"the line {line} below [user.{RUNS}]" in text) or (
            line.startswith("host-namespaces") and "uts" in text  # the host's network has its name
        ), text
        assert not (await cri.call("ListPodSandbox")).items
        assert not os.path.exists("/var/log/pods/x")
        assert guarded.node.engine.request("GET", "/containers/json?all=1&pods=1").json() == []

    guarded.use(RUNS, work)
    assert not guarded.node.used()


def context(config: api_pb2.ContainerConfig) -> Any:
    return config.linux.security_context


def confined(config: api_pb2.ContainerConfig) -> None:
    context(config).seccomp.profile_type = api_pb2.SecurityProfile.RuntimeDefault


def unconfined(config: api_pb2.ContainerConfig) -> None:
    context(config).seccomp.profile_type = api_pb2.SecurityProfile.Unconfined


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda c: setattr(context(c), "privileged", True), "privileged = true"),
        (
            lambda c: context(c).capabilities.add_capabilities.append("SYS_ADMIN"),
            'capabilities = ["SYS_ADMIN"]',
        ),
        (
            lambda c: c.mounts.add(container_path="/host", host_path="/", readonly=True),
            'host-mounts = ["/:ro"]',
        ),
        (
            lambda c: c.devices.add(host_path="/dev/kmsg", container_path="/x", permissions="r"),
            'devices = ["/dev/kmsg"]',
        ),
        (
            unconfined,
            'security-options = ["landlock=off", "systempaths=unconfined", "seccomp=unconfined"]',
        ),
        (
            lambda c: setattr(c.linux.resources, "memory_limit_in_bytes", 2 << 30),
            'max-memory = "2048m"',
        ),
    ],
)
def test_a_field_of_a_container_is_denied_with_its_line(
    guarded: Guarded, change: Callable[[api_pb2.ContainerConfig], object], line: str
) -> None:
    async def work(cri: Cri) -> None:
        sandbox = pod_config()
        sandbox.linux.security_context.privileged = True  # permits, and asks for nothing itself
        pod = await run_pod(cri, sandbox)
        config = container_config("main", "sleep", "100")
        config.linux.resources.memory_limit_in_bytes = 64 << 20
        confined(config)
        change(config)
        create = cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
        text = await denied(create)
        assert f"the line {line} below [user.{RUNS}]" in text
        assert not (await cri.call("ListContainers")).containers

    guarded.use(RUNS, work)


def test_a_path_tells_nothing_about_the_files_of_the_host(guarded: Guarded) -> None:
    async def work(cri: Cri) -> None:
        pod = await run_pod(cri, pod_config())
        texts = []
        for path in ("/etc/shadow", "/etc/absent"):
            config = container_config("main", "sleep", "100")
            seccomp = context(config).seccomp
            seccomp.profile_type = api_pb2.SecurityProfile.Localhost
            seccomp.localhost_ref = path
            create = cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
            texts.append((await denied(create)).replace(path, "PATH"))
        assert texts[0] == texts[1]
        assert 'host-mounts = ["PATH:ro"]' in texts[0]

    guarded.use(RUNS, work)


@pytest.mark.parametrize("image", [False, True], ids=["location", "archive as image"])
def test_a_checkpoint_needs_the_right_to_its_path(
    guarded: Guarded, tmp_path: Path, *, image: bool
) -> None:
    """It is written and read by root: as a mount, it could be any file of the host."""
    own = tmp_path / "own"
    own.mkdir()
    os.chown(own, TRUSTED, TRUSTED)

    async def call(cri: Cri, pod: str, id: str, path: str) -> None:
        if not image:
            await cri.call("CheckpointContainer", container_id=id, location=path)
            return
        config = _confined("other")
        config.image.image = path
        await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)

    async def without(cri: Cri) -> None:
        pod, id = await _run_own(cri)
        texts = [
            (await denied(call(cri, pod, id, path))).replace(path, "PATH")
            for path in ("/etc/shadow", "/etc/absent")
        ]
        assert texts[0] == texts[1]
        assert f'host-mounts = ["PATH{":ro" if image else ""}"]' in texts[0]

    async def trusted(cri: Cri) -> None:
        pod, id = await _run_own(cri)
        for path in (f"{own}/x.tar", "/granted/../etc/x.tar"):
            with pytest.raises(GrpcError) as caught:
                await call(cri, pod, id, path)
            assert caught.value.code in (Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED)
        with pytest.raises(GrpcError, match="No such file"):
            await call(cri, pod, id, "/granted/x.tar")
        assert not os.listdir(own)

    guarded.use(RUNS, without)
    more = f'"/granted", "{own}"]\nsecurity-options = ["landlock=off", "systempaths=unconfined"'
    guarded.set_policy(RULES.replace('"/granted"', more))
    try:
        guarded.use(TRUSTED, trusted)
    finally:
        guarded.set_policy(RULES)


def _confined(name: str) -> api_pb2.ContainerConfig:
    config = container_config(name, "sleep", "100")
    config.linux.resources.memory_limit_in_bytes = 64 << 20
    confined(config)
    return config


async def _run_own(cri: Cri) -> tuple[str, str]:
    pod = await run_pod(cri, pod_config())
    created = await cri.call("CreateContainer", pod_sandbox_id=pod, config=_confined("main"))
    await cri.call("StartContainer", container_id=created.container_id)
    return pod, str(created.container_id)


def test_a_log_directory_that_its_user_could_replace_is_refused(
    guarded: Guarded, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    os.chown(own, TRUSTED, TRUSTED)
    (own / "link").symlink_to("/etc")
    guarded.set_policy(RULES.replace('"/granted"', f'"{own}"'))

    async def work(cri: Cri) -> None:
        for name in ("logs", "link/logs", "../../etc"):
            config = pod_config()
            config.log_directory = f"{own}/{name}"
            with pytest.raises(GrpcError) as caught:
                await run_pod(cri, config)
            assert caught.value.code in (Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED)
            assert "log directory" in str(caught.value)
        assert not os.path.exists("/etc/logs")

    try:
        guarded.use(TRUSTED, work)
    finally:
        guarded.set_policy(RULES)


def test_a_pod_belongs_to_the_user_who_ran_it(guarded: Guarded) -> None:
    async def run() -> None:
        engine, groups = guarded.node.engine, (guarded.group,)
        async with (
            connected(engine, RUNS, RUNS, groups) as owner,
            connected(engine, OTHER, OTHER, groups) as other,
            connected(engine) as root,
        ):
            pod = await run_pod(owner, pod_config())
            id = await root.run_container(pod, "main", "sleep", "100")
            config = container_config("own", "sleep", "100")
            config.linux.resources.memory_limit_in_bytes = 64 << 20
            confined(config)
            create = owner.call("CreateContainer", pod_sandbox_id=pod, config=config)
            own = (await create).container_id
            await owner.call("StartContainer", container_id=own)
            assert (await owner.run(own, "echo", "inside")) == "inside\n"
            assert not (await other.call("ListPodSandbox")).items
            assert not (await other.call("ListContainers")).containers
            for call in (
                other.call("PodSandboxStatus", pod_sandbox_id=pod),
                other.call("StopPodSandbox", pod_sandbox_id=pod),
                other.call("RemovePodSandbox", pod_sandbox_id=pod),
                other.call("PortForward", pod_sandbox_id=pod, port=[80]),
                other.call("CreateContainer", pod_sandbox_id=pod, config=container_config("x")),
                other.call("ContainerStatus", container_id=id),
                other.call("StopContainer", container_id=id),
                other.call("RemoveContainer", container_id=id),
                other.call("ExecSync", container_id=id, cmd=["id"]),
                other.call("Exec", container_id=id, cmd=["id"], stdout=True),
                other.call("Attach", container_id=id, stdout=True),
                other.call("ReopenContainerLog", container_id=id),
                other.call("CheckpointContainer", container_id=id, location="/granted/x"),
                owner.call("CheckpointContainer", container_id=id, location="/granted/x"),
                other.call(
                    "UpdateContainerResources",
                    container_id=id,
                    linux=api_pb2.LinuxContainerResources(cpu_shares=2),
                ),
                owner.call("ExecSync", container_id=id, cmd=["id"]),  # root created it
            ):
                text = await denied(call)
                assert "others =" in text and str(guarded.policy) in text
            assert (await root.run(id, "echo", "alive")) == "alive\n"

    try:
        asyncio.run(run())
    finally:
        asyncio.run(guarded.remove_pods())
    log = guarded.node.engine.cli("jaula", "system", "audit-log", "--format", "json").stdout
    refused = {
        line["action"]
        for line in map(json.loads, log.splitlines())
        if line.get("uid") == OTHER and line["status"] == 403
    }
    assert {"exec", "exec request", "attach request", "port-forward request"} <= refused
