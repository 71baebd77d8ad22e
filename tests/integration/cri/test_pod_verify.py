"""``jaula verify`` of pods: no false alarm, and each change behind the engine's back is found."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import birth, containers
from harness.engine import PROJECT
from harness.pod_node import Node, running_node
from harness.pods import Cri, container_config, sandbox_config
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.kernel.netlink import in_netns

pytestmark = pytest.mark.needs("/usr/lib/cni/bridge", "nsenter")
Rows = dict[str, dict[str, Any]]
FIRST_ID = 1_900_000_000


@pytest.fixture(scope="module")
def node(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running_node((worker_index + 67) % 250 + 1, tmp_path_factory.mktemp("cni")) as made:
        yield made


def jaula(node: Node, *words: str) -> subprocess.CompletedProcess[str]:
    with in_netns(node.netns):
        return node.engine.cli("jaula", *words)


def reports(node: Node, *words: str) -> dict[str, Rows]:
    """Return the rows of ``verify`` by name of the container in its pod, and by row."""
    done = jaula(node, "verify", "--format", "json", *words)
    assert done.stdout, done.stderr
    found: dict[str, Rows] = {}
    for row in json.loads(done.stdout):
        name = row["subject"].split("_")[1] if row["subject"].startswith("k8s_") else row["subject"]
        found.setdefault(name, {})[row["id"]] = row
    return found


def failing(found: dict[str, Rows]) -> dict[str, set[str]]:
    """Return the rows that fail or are unknown, by container."""
    bad = {
        name: {id for id, row in rows.items() if row["verdict"] in ("FAILS", "unknown")}
        for name, rows in found.items()
    }
    return {name: ids for name, ids in bad.items() if ids}


def pod_config(name: str, pid: Any = api_pb2.CONTAINER) -> api_pb2.PodSandboxConfig:
    config = sandbox_config(name, pid=pid, hostname=name)
    config.linux.security_context.namespace_options.network = api_pb2.POD
    return config


def main_config(name: str = "main", pid: Any = api_pb2.CONTAINER) -> api_pb2.ContainerConfig:
    config = container_config(name, "sleep", "1000")
    config.linux.security_context.namespace_options.pid = pid
    return config


async def start(
    cri: Cri, pod: api_pb2.PodSandboxConfig, *configs: api_pb2.ContainerConfig
) -> tuple[str, list[str]]:
    id = (await cri.call("RunPodSandbox", config=pod)).pod_sandbox_id
    ids = []
    for config in configs:
        created = await cri.call("CreateContainer", pod_sandbox_id=id, config=config)
        await cri.call("StartContainer", container_id=created.container_id)
        ids.append(created.container_id)
    return id, ids


# -- no false alarm -------------------------------------------------------------------------------


def default(pod: api_pb2.PodSandboxConfig, main: api_pb2.ContainerConfig, directory: Path) -> None:
    pass


def host_users_false(
    pod: api_pb2.PodSandboxConfig, main: api_pb2.ContainerConfig, directory: Path
) -> None:
    options = pod.linux.security_context.namespace_options.userns_options
    options.mode = api_pb2.POD
    for mappings in (options.uids, options.gids):
        mappings.add(container_id=0, host_id=FIRST_ID, length=65536)


def host_namespaces(
    pod: api_pb2.PodSandboxConfig, main: api_pb2.ContainerConfig, directory: Path
) -> None:
    for context in (pod.linux.security_context, main.linux.security_context):
        options = context.namespace_options
        options.network = options.pid = options.ipc = api_pb2.NODE


def privileged(
    pod: api_pb2.PodSandboxConfig, main: api_pb2.ContainerConfig, directory: Path
) -> None:
    pod.linux.security_context.privileged = True
    main.linux.security_context.privileged = True


def restricted(
    pod: api_pb2.PodSandboxConfig, main: api_pb2.ContainerConfig, directory: Path
) -> None:
    context = main.linux.security_context
    context.readonly_rootfs = context.no_new_privs = True
    context.run_as_user.value = 1000
    context.capabilities.drop_capabilities.append("ALL")
    context.seccomp.profile_type = api_pb2.SecurityProfile.RuntimeDefault
    limits = main.linux.resources
    limits.memory_limit_in_bytes, limits.cpu_shares = 64 << 20, 102
    limits.cpu_period, limits.cpu_quota = 100_000, 50_000


def unconfined(
    pod: api_pb2.PodSandboxConfig, main: api_pb2.ContainerConfig, directory: Path
) -> None:
    main.linux.security_context.seccomp.profile_type = api_pb2.SecurityProfile.Unconfined


def own_profile(
    pod: api_pb2.PodSandboxConfig, main: api_pb2.ContainerConfig, directory: Path
) -> None:
    profile = directory / "profile.json"
    profile.write_text(
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":'
        '[{"names":["swapon"],"action":"SCMP_ACT_ERRNO"}]}'
    )
    profile.chmod(0o644)
    seccomp = main.linux.security_context.seccomp
    seccomp.profile_type = api_pb2.SecurityProfile.Localhost
    seccomp.localhost_ref = str(profile)


def shared_processes(
    pod: api_pb2.PodSandboxConfig, main: api_pb2.ContainerConfig, directory: Path
) -> None:
    pod.linux.security_context.namespace_options.pid = api_pb2.POD
    main.linux.security_context.namespace_options.pid = api_pb2.POD


def host_port(
    pod: api_pb2.PodSandboxConfig, main: api_pb2.ContainerConfig, directory: Path
) -> None:
    pod.port_mappings.add(host_port=18080, container_port=80)


def kubelet_mounts(
    pod: api_pb2.PodSandboxConfig, main: api_pb2.ContainerConfig, directory: Path
) -> None:
    for name, target in (
        ("hosts", "/etc/hosts"),
        ("termination", "/dev/termination-log"),
    ):
        (directory / name).write_text("127.0.0.1 localhost\n")
        main.mounts.add(container_path=target, host_path=str(directory / name))
    (directory / "token").mkdir()
    main.mounts.add(
        container_path="/var/run/secrets/kubernetes.io/serviceaccount",
        host_path=str(directory / "token"),
        readonly=True,
    )
    pod.dns_config.servers.append("192.0.2.53")
    pod.linux.sysctls["net.ipv4.ip_unprivileged_port_start"] = "80"


@pytest.mark.parametrize(
    ("change", "row", "reason"),
    [
        (default, "namespace user", "hostUsers"),
        (default, "namespace net", "that of the pod"),
        (default, "pids limit", "the pod's cgroup"),
        (host_users_false, "namespace user", "that of the pod"),
        (host_namespaces, "namespace pid", "hostPID"),
        (host_namespaces, "namespace net", "hostNetwork"),
        (host_namespaces, "namespace ipc", "hostIPC"),
        (privileged, "capabilities bounding", "privileged"),
        (restricted, "namespace net", "that of the pod"),
        (unconfined, "seccomp", "seccomp=unconfined"),
        (own_profile, "seccomp", "allows by default"),
        (shared_processes, "namespace pid", "that of the pod"),
        (host_port, "namespace net", "that of the pod"),
        (kubelet_mounts, "namespace net", "that of the pod"),
    ],
    ids=lambda value: value.__name__ if callable(value) else value,
)
def test_each_row_of_a_pod_holds_or_is_relaxed_with_its_reason(
    node: Node,
    tmp_path: Path,
    change: Callable[[api_pb2.PodSandboxConfig, api_pb2.ContainerConfig, Path], None],
    row: str,
    reason: str,
) -> None:
    async def work(cri: Cri) -> None:
        pod, main = pod_config("plain"), main_config()
        change(pod, main, tmp_path)
        other = api_pb2.ContainerConfig()
        other.CopyFrom(main)
        other.metadata.name = "other"
        id, _ = await start(cri, pod, main, other)
        found = await asyncio.to_thread(reports, node, id)
        assert set(found) == {"POD", "main", "other"}
        assert not failing(found), {
            name: [found[name][id] for id in ids] for name, ids in failing(found).items()
        }
        assert found["main"][row]["verdict"] == "relaxed"
        assert reason in found["main"][row]["requested"]

    node.calls(work)


def test_a_cgroup_of_the_kubelet_is_named_with_its_limits(node: Node) -> None:
    async def work(cri: Cri) -> None:
        pod = pod_config("sliced")
        parent = f"/{node.engine.cgroup_parent}/burstable/pod1"
        pod.linux.cgroup_parent = parent
        id, _ = await start(cri, pod, main_config())
        inspect = containers.inspect(node.engine, id)
        try:
            files = cgroup_files(inspect["State"]["Pid"], "memory.limit_in_bytes", "memory.max")
            (files.parent.parent / files.name).write_text(str(256 << 20))
            found = await asyncio.to_thread(reports, node, id)
            assert not failing(found)
            row = found["POD"]["pod cgroup"]
            assert row["requested"].startswith(parent)
            assert f"memory {256 << 20}" in row["effective"]
        finally:
            await cri.call("RemovePodSandbox", pod_sandbox_id=id)
            remove_cgroups(parent)

    node.calls(work)


def cgroup_files(pid: int, *names: str) -> Path:
    """Return the first of the control files that the cgroup of a process has."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for top in (f"/sys/fs/cgroup/{controllers}", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
            for name in names:
                file = Path(f"{top}{path}/{name}")
                if file.exists():
                    return file
    raise AssertionError(f"no {names} for {pid}")


def remove_cgroups(path: str) -> None:
    """Remove the cgroups of a pod and of its class, as the kubelet does."""
    tops = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]
    for below in (path, os.path.dirname(path)):
        for top in tops:
            if (directory := Path(f"{top}{below}")).is_dir():
                directory.rmdir()


# -- no blind row ---------------------------------------------------------------------------------


class Pod:
    """A running pod with a container ``main``, and the reports on it."""

    def __init__(self, node: Node, id: str, main: str) -> None:
        self.node, self.id, self.main = node, id, main
        self.sandbox_pid = int(containers.inspect(node.engine, id)["State"]["Pid"])
        self.pid = int(containers.inspect(node.engine, main)["State"]["Pid"])

    def failing(self) -> dict[str, set[str]]:
        return failing(reports(self.node, self.id))

    def enter(self, pid: int, kinds: str, *command: str) -> str:
        words = ["nsenter", "-t", str(pid), *(f"-{kind}" for kind in kinds), *command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ip(self, *words: str) -> str:
        return self.enter(self.sandbox_pid, "n", "ip", *words)


@contextmanager
def foreign_process(*command: str) -> Iterator[int]:
    """Execute sleep by a command, which may fork before; yield the pid of the command."""
    with subprocess.Popen(
        [*command, "/bin/sleep", "100"], stdin=subprocess.DEVNULL, start_new_session=True
    ) as process:

        def sleeps() -> bool:
            pids = (process.pid, *birth.children(process.pid))
            return "sleep\n" in [Path(f"/proc/{pid}/comm").read_text() for pid in pids]

        try:
            containers.eventually(sleeps, "sleep is executed")
            yield process.pid
        finally:
            os.killpg(process.pid, 9)


def with_pod(
    node: Node, test: Callable[[Pod], None], *, pid: Any = api_pb2.CONTAINER, add: str = ""
) -> None:
    async def work(cri: Cri) -> None:
        main = main_config(pid=pid)
        if add:
            main.linux.security_context.capabilities.add_capabilities.append(add)
        id, (container,) = await start(cri, pod_config("changed", pid=pid), main)

        def run() -> None:
            pod = Pod(node, id, container)
            assert not pod.failing()
            test(pod)

        await asyncio.to_thread(run)

    node.calls(work)


def test_a_process_in_the_cgroup_of_a_container_is_found(node: Node) -> None:
    def test(pod: Pod) -> None:
        with foreign_process() as stranger:
            members = cgroup_files(pod.pid, "pids.max").parent / "cgroup.procs"
            members.write_text(str(stranger))
            assert pod.failing() == {"main": {"cgroup members"}}
        containers.eventually(lambda: not pod.failing(), "it is well again")

    with_pod(node, test)


@pytest.mark.parametrize("kind", ["n", "i", "u"])
def test_a_process_that_joined_a_namespace_of_the_pod_is_found(node: Node, kind: str) -> None:
    def test(pod: Pod) -> None:
        with foreign_process("nsenter", "-t", str(pod.sandbox_pid), f"-{kind}"):
            assert pod.failing() == {"POD": {"namespace holders"}}

    with_pod(node, test)


def test_a_process_with_more_capabilities_in_a_shared_process_namespace_is_found(
    node: Node,
) -> None:
    def test(pod: Pod) -> None:
        with foreign_process("nsenter", "-t", str(pod.sandbox_pid), "-p"):
            assert {"processes", "process cgroups"} <= pod.failing()["POD"]
        with foreign_process("nsenter", "-t", str(pod.pid), "-p", "-m"):
            assert {"processes", "process cgroups"} <= pod.failing()["main"]

    with_pod(node, test, pid=api_pb2.POD)


def test_a_mount_over_a_file_of_the_kubelet_is_found(node: Node) -> None:
    def test(pod: Pod) -> None:
        pod.enter(pod.pid, "m", "/bin/mount", "-t", "tmpfs", "x", "/etc")
        assert "mount inventory" in pod.failing()["main"]

    with_pod(node, test)


def test_a_changed_limit_is_found(node: Node) -> None:
    def test(pod: Pod) -> None:
        limit = cgroup_files(pod.pid, "memory.limit_in_bytes", "memory.max")
        limit.write_text(str(64 << 20))
        assert pod.failing() == {"main": {"memory limit"}}

    with_pod(node, test)


@pytest.mark.parametrize(
    ("words", "row"),
    [
        ("link add extra0 type bridge", "interfaces"),
        ("addr add 10.231.0.200/24 dev eth0", "addresses"),
        ("-6 addr add fd00:231::dead/64 dev eth0 nodad", "ipv6"),
        ("route add 203.0.113.0/24 via 10.231.0.77", "routes"),
        ("link set eth0 address 02:00:00:00:00:77", "links"),
    ],
)
def test_a_changed_network_of_a_pod_is_found(node: Node, words: str, row: str) -> None:
    def test(pod: Pod) -> None:
        pod.ip(*words.split())
        assert row in pod.failing()["POD"]
        if " add " in words:  # the plugin would search rules for an address that it did not add
            pod.ip(*words.replace(" add ", " del ").removesuffix(" nodad").split())

    with_pod(node, test)


def test_a_pod_that_is_moved_to_another_bridge_is_found(node: Node) -> None:
    def test(pod: Pod) -> None:
        index = int(pod.ip("-o", "link", "show", "eth0").partition("@if")[2].partition(":")[0])
        with in_netns(node.netns):
            listed = subprocess.run(
                ["ip", "-o", "link"], capture_output=True, text=True, check=True
            ).stdout
            (name,) = (
                line.split(": ")[1].partition("@")[0]
                for line in listed.splitlines()
                if line.startswith(f"{index}:")
            )
            subprocess.run(["ip", "link", "set", name, "nomaster"], check=True)
        assert pod.failing() == {"POD": {"links"}}

    with_pod(node, test)


def test_a_container_with_net_admin_may_make_interfaces_that_lead_nowhere(node: Node) -> None:
    def test(pod: Pod) -> None:
        pod.ip("link", "add", "inner0", "type", "bridge")
        found = reports(node, pod.id)
        assert not failing(found)
        assert found["POD"]["interfaces"]["verdict"] == "relaxed"
        assert "CAP_NET_ADMIN of main" in found["POD"]["interfaces"]["requested"]
        with in_netns(node.netns):
            subprocess.run(
                ["ip", "link", "add", "out0", "type", "veth", "peer", "name", "in0",
                 "netns", str(pod.sandbox_pid)], check=True,
            )  # fmt: skip
        assert pod.failing() == {"POD": {"interfaces"}}

    with_pod(node, test, add="NET_ADMIN")


def test_a_changed_spec_is_found_by_its_seal(node: Node) -> None:
    def test(pod: Pod) -> None:
        for id, name in ((pod.id, "POD"), (pod.main, "main")):
            rows = reports(node, pod.id)[name]
            assert rows["request seal"]["verdict"] == rows["spec seal"]["verdict"] == "holds"
            spec = node.engine.root / "lib" / "containers" / id / "config.json"
            whole = spec.read_bytes()
            try:
                spec.write_bytes(whole + b"\n")
                assert "spec seal" in pod.failing()[name]
            finally:
                spec.write_bytes(whole)

    with_pod(node, test)


# -- which containers -----------------------------------------------------------------------------


def test_a_pod_is_named_by_name_uid_or_id(node: Node) -> None:
    def test(pod: Pod) -> None:
        for ref in ("changed", "default/changed", "uid-changed", pod.id, pod.id[:12]):
            done = jaula(node, "verify", "--format", "json", "--pod", ref)
            rows = json.loads(done.stdout)
            assert {row["pod"] for row in rows} == {"default/changed"}
            assert {row["subject"].split("_")[1] for row in rows} == {"POD", "main"}
        assert set(reports(node, "--all")) == {"POD", "main"}
        assert set(reports(node, pod.main)) == {"main"}
        text = jaula(node, "verify", "--pod", "changed").stdout
        assert "k8s_main_changed_default_uid-changed_0 of pod default/changed:" in text
        done = jaula(node, "verify", "--pod", "absent")
        assert (done.returncode, done.stdout) == (1, "")
        assert "no running pod absent" in done.stderr

    with_pod(node, test)


def test_a_change_in_a_pod_is_reported_and_emitted(node: Node) -> None:
    def test(pod: Pod) -> None:
        words = [str(PROJECT / "jaula"), "verify", "--watch", "--format", "json", "--pod",
                 "changed"]  # fmt: skip
        with in_netns(node.netns):
            watch = subprocess.Popen(
                words, stdout=subprocess.PIPE, text=True, env=node.engine.environment()
            )
        try:
            time.sleep(3)
            pod.enter(pod.pid, "m", "/bin/mount", "-t", "tmpfs", "x", "/home")
            assert watch.stdout is not None
            line = json.loads(watch.stdout.readline())
            assert (line["row"], line["verdict"]) == ("mount inventory", "FAILS")
            assert line["container"].startswith("k8s_main_changed")
            containers.eventually(lambda: emitted() == [pod.main], "the event is emitted")
        finally:
            watch.terminate()
            watch.wait()
            if watch.stdout:
                watch.stdout.close()

    def emitted() -> list[str]:
        done = jaula(node, "events", "--since", "1", "--until", str(int(time.time()) + 1),
                     "--format", "{{json .}}", "--filter", "event=isolation-changed")  # fmt: skip
        return [json.loads(line)["Actor"]["ID"] for line in done.stdout.splitlines()]

    with_pod(node, test)


def test_tree_and_ps_show_pods(node: Node) -> None:
    def test(pod: Pod) -> None:
        tree = jaula(node, "tree", "default/changed").stdout
        whole = jaula(node, "tree").stdout
        for text in (tree, whole):
            assert "pod default/changed" in text
        assert "pause(" in tree.partition("pod default/changed")[2]
        assert f"sleep({pod.pid}" in tree
        listed = jaula(node, "ps", "--pods").stdout.splitlines()
        assert listed[0].split()[-2:] == ["NAMESPACE", "POD"]
        assert {tuple(line.split()[-2:]) for line in listed[1:]} == {("default", "changed")}
        shown = jaula(node, "ps", "--pods", "--format", "{{.Pod}} {{.Namespace}}").stdout
        assert set(shown.splitlines()) == {"changed default"}

    with_pod(node, test)
