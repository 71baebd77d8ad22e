"""``jaula audit`` judges the containers of pods by what is in effect in them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import leaks
from harness.engine import PrivateEngine
from harness.pods import Cri, connected, container_config, sandbox_config
from jaula.features.kubernetes.cri.proto import api_pb2


@pytest.fixture(scope="module")
def node(worker_index: int) -> Iterator[PrivateEngine]:
    private = PrivateEngine((worker_index + 131) % 250 + 1, extra_flags=("--cri",))
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private


@asynccontextmanager
async def pods(engine: PrivateEngine) -> AsyncIterator[Cri]:
    """Connect, and remove every pod at the end."""
    async with connected(engine) as cri:
        try:
            yield cri
        finally:
            for pod in (await cri.call("ListPodSandbox")).items:
                await cri.call("RemovePodSandbox", pod_sandbox_id=pod.id)


def hardened() -> Any:
    """Return the configuration of a container that the guidance has nothing against."""
    config = container_config("hard", "sleep", "1000")
    linux = config.linux
    linux.resources.memory_limit_in_bytes = 64 << 20
    linux.resources.cpu_quota, linux.resources.cpu_period = 50_000, 100_000
    context = linux.security_context
    context.run_as_user.value = context.run_as_group.value = 1000
    context.readonly_rootfs = context.no_new_privs = True
    context.capabilities.drop_capabilities.append("ALL")
    context.seccomp.profile_type = api_pb2.SecurityProfile.RuntimeDefault
    return config


def weak(tmp_path: Path) -> Any:
    token = tmp_path / "token"
    token.mkdir()
    target = "/var/run/secrets/kubernetes.io/serviceaccount"
    config = container_config("weak", "sleep", "1000")
    config.mounts.add(host_path="/etc", container_path="/host", readonly=True)
    config.mounts.add(host_path=str(token), container_path=target, readonly=True)
    config.envs.add(key="DB_PASSWORD", value=b"hunter2")
    config.linux.security_context.privileged = True
    return config


def audit(engine: PrivateEngine, *words: str) -> dict[str, Any]:
    done = engine.cli("jaula", "audit", "--no-history", "--format", "json", *words)
    assert done.returncode in (0, 1) and done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def states(report: dict[str, Any], subject: str) -> dict[str, str]:
    return {
        control["id"]: finding["state"]
        for control in report["controls"]
        for finding in control["findings"]
        if finding["subject"] == subject
    }


def test_each_container_of_a_pod_is_judged_by_every_profile(
    node: PrivateEngine, tmp_path: Path
) -> None:
    reports: dict[str, dict[str, Any]] = {}

    async def run() -> None:
        async with pods(node) as cri:
            config = sandbox_config("web", log_directory=str(tmp_path / "logs"))
            config.linux.security_context.privileged = True
            answer = await cri.call("RunPodSandbox", config=config)
            pod = answer.pod_sandbox_id
            for config in (hardened(), weak(tmp_path)):
                created = await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
                await cri.call("StartContainer", container_id=created.container_id)
            for profile in ("nsa-k8s", "cis", "jaula"):
                words = ("--containers", "--profile", profile)
                reports[profile] = await asyncio.to_thread(audit, node, *words)

    asyncio.run(run())
    subjects = {f["subject"] for c in reports["nsa-k8s"]["controls"] for f in c["findings"]}
    assert subjects == {"default/web/hard", "default/web/weak"}, "no sandbox"

    hard, bad = (states(reports["nsa-k8s"], f"default/web/{name}") for name in ("hard", "weak"))
    # The pod of the harness is on the host's network and asks for no user namespace; the limit of
    # processes is the kubelet's.
    assert {id for id, state in hard.items() if state == "fail"} == {
        "host-network", "user-namespace", "pod-processes",
    }  # fmt: skip
    fails = {"non-root", "root-group", "immutable-root", "not-privileged", "privilege-escalation",
             "dropped-capabilities", "host-paths", "host-devices", "pod-seccomp", "token-mount",
             "secret-variables", "pod-memory", "pod-cpu"}  # fmt: skip
    assert {id for id in fails if bad[id] != "fail"} == set()
    assert "hunter2" not in json.dumps(reports)

    hard, bad = (states(reports["cis"], f"default/web/{name}") for name in ("hard", "weak"))
    assert hard["5.15"] == hard["5.27"] == "not-applicable", "the kubelet's"
    assert {id for id, state in hard.items() if state in ("fail", "unknown")} == {
        "5.10", "5.21", "5.29", "5.31",
    }  # fmt: skip
    assert {"4.1", "5.4", "5.5", "5.6", "5.22"} <= {id for id, s in bad.items() if s == "fail"}

    hard = states(reports["jaula"], "default/web/hard")
    assert hard["capabilities"] == hard["seccomp"] == hard["memory-limit"] == "pass"
    assert "fail" == hard["users"] == hard["namespaces"], "relaxed by the pod"
    assert "unknown" not in hard.values(), hard


def test_a_limit_of_the_pod_counts_for_its_containers(node: PrivateEngine, tmp_path: Path) -> None:
    """The cgroup of the pod is made by the test, as the kubelet makes it."""
    report: dict[str, Any] = {}
    trees = [tree for tree in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))
             if list(tree.glob("memory.*"))]  # fmt: skip
    if not trees:
        pytest.skip("the memory controller has no hierarchy here")
    group = trees[0] / node.cgroup_parent / "pod1"

    async def run() -> None:
        async with pods(node) as cri:
            pod = await cri.run_pod(
                "limited",
                log_directory=str(tmp_path / "logs"),
                linux=api_pb2.LinuxPodSandboxConfig(cgroup_parent=f"/{node.cgroup_parent}/pod1"),
            )
            await cri.run_container(pod, "main", "sleep", "1000")
            name = "memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes"
            (group / name).write_text(str(64 << 20))
            report.update(await asyncio.to_thread(audit, node, "--containers"))

    try:
        asyncio.run(run())
    finally:
        for tree in {trees[0].parent, *Path("/sys/fs/cgroup").glob("*"), *trees}:
            own = tree / node.cgroup_parent / "pod1"
            if own.is_dir() and not tree.is_symlink():
                own.rmdir()
    found = states(report, "default/limited/main")
    assert found["5.11"] == "pass" and found["5.13"] == "fail"


def test_without_pods_nothing_is_judged(node: PrivateEngine) -> None:
    report = audit(node, "--containers", "--profile", "nsa-k8s")
    assert {control["state"] for control in report["controls"]} == {"not-applicable"}
