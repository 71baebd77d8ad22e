"""Security contexts of CRI on the kernel: users, namespaces, paths, capabilities, mounts."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import leaks
from harness.engine import PrivateEngine
from harness.pods import Cri, calls, container_config, refused, sandbox_config
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_status import Code

_FIRST_ID = 1_950_000_000
_COUNT = 65536


@pytest.fixture(scope="module")
def node(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    private = PrivateEngine((worker_index + 131) % 250 + 1, extra_flags=("--cri",))
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        context = tmp_path_factory.mktemp("groups")
        (context / "passwd").write_text(
            "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/app:/bin/sh\n"
        )
        (context / "group").write_text("root:x:0:\napp:x:1000:\nextra:x:50000:app\n")
        (context / "Dockerfile").write_text("FROM busybox\nCOPY passwd group /etc/\n")
        built = private.cli("jaula", "build", "-t", "groups", str(context))
        assert built.returncode == 0, built.stderr
        yield private


def mapped_sandbox(name: str, **fields: Any) -> api_pb2.PodSandboxConfig:
    """Return a pod with a user namespace, as the kubelet asks for one."""
    config = sandbox_config(name, **fields)
    _map(config.linux.security_context.namespace_options)
    return config


def _map(options: api_pb2.NamespaceOption) -> None:
    options.userns_options.mode = api_pb2.POD
    for rows in (options.userns_options.uids, options.userns_options.gids):
        rows.add(container_id=0, host_id=_FIRST_ID, length=_COUNT)


async def run_pod(cri: Cri, config: api_pb2.PodSandboxConfig) -> str:
    return str((await cri.call("RunPodSandbox", config=config)).pod_sandbox_id)


async def create(cri: Cri, pod: str, config: api_pb2.ContainerConfig) -> str:
    created = await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
    return str(created.container_id)


async def start(cri: Cri, pod: str, config: api_pb2.ContainerConfig) -> str:
    id = await create(cri, pod, config)
    await cri.call("StartContainer", container_id=id)
    return id


async def exited(cri: Cri, container: str) -> int:
    """Return the exit status of a container after its exit."""
    for _ in range(200):
        status = await cri.container(container)
        if status.state == api_pb2.CONTAINER_EXITED:
            return int(status.exit_code)
        await asyncio.sleep(0.05)
    raise AssertionError("the container does not exit")


def host_pid(engine: PrivateEngine, container: str) -> int:
    return int(engine.request("GET", f"/containers/{container}/json").json()["State"]["Pid"])


def namespace(pid: int, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


# -- users ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "group", "expected"),
    [
        (api_pb2.Merge, None, [1000, 50000, 4000]),
        (api_pb2.Merge, 3000, [3000, 50000, 4000]),
        (api_pb2.Strict, None, [1000, 4000]),
        (api_pb2.Strict, 3000, [3000, 4000]),
    ],
)
def test_groups_are_those_of_the_policy_and_are_reported(
    node: PrivateEngine, policy: int, group: int | None, expected: list[int]
) -> None:
    async def work(cri: Cri) -> None:
        assert (await cri.call("Status")).features.supplemental_groups_policy
        config = container_config("main", "sleep", "100")
        config.image.image = "groups"
        context = config.linux.security_context
        context.run_as_user.value = 1000
        if group is not None:
            context.run_as_group.value = group
        context.supplemental_groups.append(4000)
        context.supplemental_groups_policy = policy
        pod = await cri.run_pod("groups")
        id = await create(cri, pod, config)
        assert (await cri.container(id)).user.linux.gid == expected[0]
        await cri.call("StartContainer", container_id=id)
        user = (await cri.container(id)).user.linux
        assert (user.uid, user.gid) == (1000, expected[0])
        assert list(user.supplemental_groups) == expected
        status = Path(f"/proc/{host_pid(node, id)}/status").read_text()
        groups = status.partition("Groups:")[2].split("\n", 1)[0].split()
        assert sorted(map(int, groups)) == sorted(expected)
        assert sorted(map(int, (await cri.run(id, "id", "-G")).split())) == sorted(expected)
        assert (await cri.run(id, "id", "-u")) == "1000\n"

    calls(node, work)


def test_a_user_name_is_looked_up_in_the_image_when_the_container_is_created(
    node: PrivateEngine,
) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("names")
        config = container_config("main", "sleep", "100")
        config.image.image = "groups"
        config.linux.security_context.run_as_username = "app"
        id = await start(cri, pod, config)
        user = (await cri.container(id)).user.linux
        assert (user.uid, list(user.supplemental_groups)) == (1000, [1000, 50000])
        for name, text in (("absent", "absent"), ("app:0", "'app:0'")):
            config.metadata.name = "other"
            config.linux.security_context.run_as_username = name
            error = await refused(create(cri, pod, config))
            assert (error.code, text in str(error)) == (Code.INVALID_ARGUMENT, True), error
        assert [c.id for c in (await cri.call("ListContainers")).containers] == [id]

    calls(node, work)


# -- namespaces ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mapped", [False, True])
def test_a_debug_container_joins_the_process_namespace_of_its_target(
    node: PrivateEngine, mapped: bool
) -> None:
    async def work(cri: Cri) -> None:
        make = mapped_sandbox if mapped else sandbox_config
        pod = await run_pod(cri, make("debug", pid=api_pb2.CONTAINER))
        config = container_config("main", "sleep", "111")
        config.linux.security_context.namespace_options.pid = api_pb2.CONTAINER
        target = await start(cri, pod, config)
        debug = container_config("debugger", "sleep", "222")
        options = debug.linux.security_context.namespace_options
        options.pid, options.target_id = api_pb2.TARGET, target
        id = await start(cri, pod, debug)
        assert (await cri.run(id, "cat", "/proc/1/cmdline")).split("\0")[:2] == ["sleep", "111"]
        pids = {name: host_pid(node, c) for name, c in (("p", pod), ("t", target), ("d", id))}
        assert namespace(pids["d"], "pid") == namespace(pids["t"], "pid")
        assert namespace(pids["d"], "pid") != namespace(pids["p"], "pid")
        for kind in ("ipc", "uts", "net", "user"):
            assert namespace(pids["d"], kind) == namespace(pids["p"], kind)
        assert (namespace(pids["d"], "user") != namespace(os.getpid(), "user")) is mapped
        listed = await cri.run(target, "ps")
        assert "sleep 222" in listed
        verified = node.cli("jaula", "verify", "--format", "json", id)
        rows = {row["id"]: row["verdict"] for row in json.loads(verified.stdout)}
        assert (rows["namespace pid"], "FAILS" in rows.values()) == ("relaxed", False), rows
        tree = node.cli("jaula", "tree", id)
        assert f"sleep({pids['d']}," in tree.stdout, tree
        await cri.call("StopContainer", container_id=target)
        assert await exited(cri, id) == 137

    calls(node, work)


def test_a_target_must_be_a_running_container_of_the_pod(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        pod, other = await cri.run_pod("one"), await cri.run_pod("two")
        ended = await cri.run_container(pod, "ended", "true")
        foreign = await cri.run_container(other, "main", "sleep", "100")
        await exited(cri, ended)
        debug = container_config("debugger", "true")
        options = debug.linux.security_context.namespace_options
        options.pid = api_pb2.TARGET
        for target, code, text in (
            ("", Code.INVALID_ARGUMENT, "target_id"),
            (foreign, Code.INVALID_ARGUMENT, "not of the pod"),
            (ended, Code.FAILED_PRECONDITION, "does not run"),
            (pod, Code.NOT_FOUND, "No such container"),
            ("0" * 64, Code.NOT_FOUND, "No such container"),
        ):
            options.target_id = target
            error = await refused(create(cri, pod, debug))
            assert (error.code, text in str(error)) == (code, True), error
        assert len((await cri.call("ListContainers")).containers) == 2

    calls(node, work)


HANDLERS = [
    "",
    pytest.param("runc", marks=pytest.mark.needs("runc")),
    pytest.param(
        "crun",
        marks=[
            pytest.mark.needs("crun"),
            pytest.mark.skipif(
                not os.path.exists("/sys/fs/cgroup/cgroup.controllers"),
                reason="crun refuses hosts with cgroup v1 hierarchies",
            ),
        ],
    ),
]


@pytest.mark.parametrize("handler", HANDLERS)
def test_what_a_handler_reports_works(
    new_engine: Callable[..., PrivateEngine], handler: str, tmp_path: Path
) -> None:
    """User namespaces with id-mapped mounts, also on the host's network, and recursive ro."""
    flags = ("--add-runtime", f"{handler}x={handler}") if handler else ()
    name = f"{handler}x" if handler else ""
    engine = new_engine("--cri", *flags, "--add-runtime", "old=/bin/false")
    load_image(engine, "busybox")
    (tmp_path / "sub").mkdir()
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("data")

    async def work(cri: Cri) -> None:
        status = await cri.call("Status")
        assert status.features.user_namespaces_host_network and status.features.mount_options
        features = {h.name: h.features for h in status.runtime_handlers}
        assert features[name].recursive_read_only_mounts and features[name].user_namespaces
        assert not features["old"].recursive_read_only_mounts
        assert not features["old"].user_namespaces
        sandbox = mapped_sandbox("mapped", pid=api_pb2.CONTAINER)
        call = {"config": sandbox, "runtime_handler": name}
        pod = str((await cri.call("RunPodSandbox", **call)).pod_sandbox_id)
        config = container_config("main", "sleep", "100")
        config.linux.security_context.namespace_options.pid = api_pb2.CONTAINER
        config.mounts.add(
            container_path="/ro", host_path=str(tmp_path), readonly=True, recursive_read_only=True
        )
        config.mounts.add(container_path="/rw", host_path=str(tmp_path))
        for mount in config.mounts:
            for rows in (mount.uidMappings, mount.gidMappings):
                rows.add(container_id=0, host_id=_FIRST_ID, length=_COUNT)
        id = await start(cri, pod, config)
        row = (await cri.run(id, "cat", "/proc/self/uid_map")).split()
        assert row == ["0", str(_FIRST_ID), str(_COUNT)]
        pid = host_pid(engine, id)
        assert namespace(pid, "net") == namespace(os.getpid(), "net")
        assert await cri.run(id, "stat", "-c", "%u", "/rw/file") == "0\n"
        await cri.run(id, "touch", "/rw/new")
        assert (tmp_path / "new").stat().st_uid == 0
        done = await cri.call("ExecSync", container_id=id, cmd=["touch", "/ro/sub/x"])
        assert b"Read-only" in done.stderr
        mounts = {m.container_path: m for m in (await cri.container(id)).mounts}
        assert mounts["/ro"].recursive_read_only and not mounts["/rw"].recursive_read_only
        debug = container_config("debugger", "sleep", "100")
        options = debug.linux.security_context.namespace_options
        options.pid, options.target_id = api_pb2.TARGET, id
        id = await start(cri, pod, debug)
        assert namespace(host_pid(engine, id), "pid") == namespace(pid, "pid")
        assert "sleep" in await cri.run(id, "cat", "/proc/1/comm")

    calls(engine, work)


def test_a_handler_without_a_feature_refuses_it(
    new_engine: Callable[..., PrivateEngine], tmp_path: Path
) -> None:
    engine = new_engine("--cri", "--add-runtime", "old=/bin/false")
    load_image(engine, "busybox")

    async def work(cri: Cri) -> None:
        call = {"config": mapped_sandbox("mapped"), "runtime_handler": "old"}
        error = await refused(cri.call("RunPodSandbox", **call))
        assert (error.code, "'old' has no user namespaces" in str(error)) == (
            Code.UNIMPLEMENTED,
            True,
        )
        assert not (await cri.call("ListPodSandbox")).items

    calls(engine, work)


# -- confinement ---------------------------------------------------------------------------------


def test_absent_lists_of_paths_unmask_proc_in_a_user_namespace_only(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        for name, make, masked in (("host", sandbox_config, True), ("own", mapped_sandbox, False)):
            pod = await run_pod(cri, make(name))
            config = container_config("main", "sleep", "100")
            config.linux.security_context.capabilities.add_capabilities.append("SYS_ADMIN")
            config.linux.security_context.seccomp.profile_type = api_pb2.SecurityProfile.Unconfined
            id = await start(cri, pod, config)
            table = await cri.run(id, "cat", "/proc/self/mountinfo")
            covered = {line.split()[4] for line in table.splitlines()}
            assert ("/proc/sys" in covered, "/proc/keys" in covered) == (masked, masked)
            if not masked:  # a nested container can mount its own
                nested = ("unshare", "-Urpfm", "sh", "-c", "mount -t proc proc /proc && echo $$")
                assert await cri.run(id, *nested) == "1\n"
        context = config.linux.security_context
        context.masked_paths.append("/proc/keys")
        config.metadata.name = "masked"
        id = await start(cri, pod, config)
        assert "/proc/keys" in await cri.run(id, "cat", "/proc/self/mountinfo")

    calls(node, work)


@pytest.mark.parametrize("mapped", [False, True])
def test_a_privileged_container_needs_a_privileged_pod(node: PrivateEngine, mapped: bool) -> None:
    async def work(cri: Cri) -> None:
        config = (mapped_sandbox if mapped else sandbox_config)("plain")
        privileged = container_config("main", "sleep", "100")
        privileged.linux.security_context.privileged = True
        pod = await run_pod(cri, config)
        error = await refused(create(cri, pod, privileged))
        assert (error.code, "no privileged container" in str(error)) == (
            Code.INVALID_ARGUMENT,
            True,
        )
        config.metadata.name = "privileged"
        config.linux.security_context.privileged = True
        pod = await run_pod(cri, config)
        id = await start(cri, pod, privileged)
        status = Path(f"/proc/{host_pid(node, id)}/status").read_text()
        assert "Seccomp:\t0" in status
        effective = int(status.partition("CapEff:\t")[2].split()[0], 16)
        assert effective & 1 << 21  # SYS_ADMIN
        names = set((await cri.run(id, "ls", "/dev")).split())
        assert ("kmsg" in names) is (not mapped and os.path.exists("/dev/kmsg"))
        table = await cri.run(id, "cat", "/proc/self/mountinfo")
        assert "/proc/keys" not in table

    calls(node, work)


def test_flags_and_capabilities_of_a_context(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("flags")
        config = container_config("strict", "sleep", "100")
        context = config.linux.security_context
        context.readonly_rootfs = context.no_new_privs = True
        context.capabilities.drop_capabilities.append("ALL")
        context.capabilities.add_capabilities.append("CHOWN")
        strict = await start(cri, pod, config)
        config = container_config("all", "sleep", "100")
        capabilities = config.linux.security_context.capabilities
        capabilities.add_capabilities.extend(("ALL", "SYS_TIME"))
        capabilities.drop_capabilities.append("SYS_TIME")
        everything = await start(cri, pod, config)
        found = {}
        for id in (strict, everything):
            status = Path(f"/proc/{host_pid(node, id)}/status").read_text()
            lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            found[id] = (int(lines["CapEff"], 16), lines["NoNewPrivs"], int(lines["CapAmb"], 16))
        assert found[strict] == (1, "1", 0)
        effective, no_new_privs, ambient = found[everything]
        assert (no_new_privs, ambient) == ("0", 0)
        assert effective & 1 << 21 and not effective & 1 << 25
        for path in ("/x", "/etc/hosts", "/etc/resolv.conf"):
            done = await cri.call(
                "ExecSync", container_id=strict, cmd=["sh", "-c", f"echo >> {path}"]
            )
            assert b"Read-only" in done.stderr, path
        config.metadata.name = "ambient"
        capabilities.add_ambient_capabilities.append("NET_ADMIN")
        error = await refused(create(cri, pod, config))
        assert (error.code, "ambient" in str(error)) == (Code.UNIMPLEMENTED, True)

    calls(node, work)


def test_sysctls_are_those_of_the_pod_s_own_namespaces(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        config = sandbox_config("sysctls")
        config.linux.sysctls["kernel.msgmax"] = "4096"
        pod = await run_pod(cri, config)
        id = await cri.run_container(pod, "main", "sleep", "100")
        assert await cri.run(id, "cat", "/proc/sys/kernel/msgmax") == "4096\n"
        for name, value, ipc in (
            ("vm.swappiness", "1", api_pb2.POD),
            ("net.core.somaxconn", "1", api_pb2.POD),  # the pod is on the host's network
            ("kernel.msgmax", "1", api_pb2.NODE),
        ):
            config = sandbox_config("refused")
            config.linux.security_context.namespace_options.ipc = ipc
            config.linux.sysctls[name] = value
            error = await refused(cri.call("RunPodSandbox", config=config))
            assert (error.code, name in str(error)) == (Code.INVALID_ARGUMENT, True), error
        assert len((await cri.call("ListPodSandbox")).items) == 1

    calls(node, work)


def test_a_checkpoint_that_is_not_possible_is_one_clear_error(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        id = await cri.run_container(await cri.run_pod("kept"), "main", "sleep", "100")
        error = await refused(
            cri.call("CheckpointContainer", container_id=id, location="/absent/checkpoint.tar")
        )
        assert (error.code, "/absent" in str(error)) == (Code.INVALID_ARGUMENT, True)
        assert (await cri.container(id)).state == api_pb2.CONTAINER_RUNNING
        error = await refused(cri.call("CheckpointContainer", container_id="absent"))
        assert error.code is Code.NOT_FOUND

    calls(node, work)


# -- files and mounts ----------------------------------------------------------------------------


def test_the_resolver_of_a_pod_counts_on_the_host_s_network_as_well(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        config = sandbox_config("resolver")
        config.dns_config.servers.append("192.0.2.7")
        config.dns_config.searches.append("svc.cluster.example")
        config.dns_config.options.append("ndots:5")
        id = await cri.run_container(await run_pod(cri, config), "main", "sleep", "100")
        text = await cri.run(id, "cat", "/etc/resolv.conf")
        for line in ("nameserver 192.0.2.7", "search svc.cluster.example", "options ndots:5"):
            assert line in text.splitlines()
        assert len([line for line in text.splitlines() if line.startswith("nameserver")]) == 1

    calls(node, work)


def test_sources_of_mounts_are_links_and_missing_directories(
    node: PrivateEngine, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_text("data")
    (tmp_path / "link").symlink_to(tmp_path / "real")

    async def work(cri: Cri) -> None:
        config = container_config("main", "sleep", "100", stop_signal=api_pb2.SIGNAL_SIGPOLL)
        config.image.user_specified_image = "registry.example/busybox:1"
        config.mounts.add(container_path="/link", host_path=str(tmp_path / "link"))
        config.mounts.add(container_path="/new", host_path=str(tmp_path / "made/here"))
        config.mounts.add(
            container_path="/noexec",
            host_path=str(tmp_path / "real"),
            mount_options=("noexec", "nodev", "nosuid"),
        )
        pod = await cri.run_pod("mounts")
        id = await start(cri, pod, config)
        assert await cri.run(id, "cat", "/link/file") == "data"
        assert (tmp_path / "made/here").is_dir()
        table = {
            line.split()[4]: line.split()[5]
            for line in (await cri.run(id, "cat", "/proc/self/mountinfo")).splitlines()
        }
        assert {"noexec", "nodev", "nosuid"} <= set(table["/noexec"].split(","))
        assert "noexec" not in table["/link"]
        status = await cri.container(id)
        mounts = {m.container_path: m for m in status.mounts}
        assert list(mounts["/noexec"].mount_options) == ["noexec", "nodev", "nosuid"]
        assert status.stop_signal == api_pb2.SIGNAL_SIGIO  # the same number
        assert status.image.user_specified_image == ""  # no name of the image

    calls(node, work)


def test_the_id_map_of_a_mount_is_that_of_its_pod(node: PrivateEngine, tmp_path: Path) -> None:
    async def work(cri: Cri) -> None:
        config = container_config("main", "true")
        mount = config.mounts.add(container_path="/data", host_path=str(tmp_path))
        for rows in (mount.uidMappings, mount.gidMappings):
            rows.add(container_id=0, host_id=_FIRST_ID, length=_COUNT)
        error = await refused(create(cri, await cri.run_pod("host"), config))
        assert (error.code, "/data" in str(error)) == (Code.INVALID_ARGUMENT, True)
        pod = await run_pod(cri, mapped_sandbox("own"))
        mount.host_path = "/sys/kernel"  # no id map is possible there
        id = await create(cri, pod, config)
        error = await refused(cri.call("StartContainer", container_id=id))
        assert "/sys/kernel" in str(error)
        config.metadata.name = "other"
        _map(config.linux.security_context.namespace_options)
        config.linux.security_context.namespace_options.userns_options.uids[0].length = 10
        config.linux.security_context.namespace_options.userns_options.gids[0].length = 10
        error = await refused(create(cri, pod, config))
        assert (error.code, "the container" in str(error)) == (Code.INVALID_ARGUMENT, True)

    calls(node, work)


def test_mounts_with_contradictory_fields_are_refused(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("bad")
        for fields, text in (
            ({"host_path": "/srv", "recursive_read_only": True}, "not readonly"),
            (
                {
                    "host_path": "/srv",
                    "readonly": True,
                    "recursive_read_only": True,
                    "propagation": api_pb2.PROPAGATION_HOST_TO_CONTAINER,
                },
                "not private",
            ),
            (
                {"host_path": "/srv", "propagation": api_pb2.PROPAGATION_BIDIRECTIONAL},
                "only a privileged container",
            ),
            ({"host_path": "/srv", "image_sub_path": "bin"}, "no image"),
            ({"host_path": "/srv", "mount_options": ["dev"]}, "'dev'"),
            ({"host_path": "relative"}, "absolute"),
            ({}, "Source"),
        ):
            config = container_config("main", "true")
            config.mounts.add(container_path="/data", **fields)
            error = await refused(create(cri, pod, config))
            assert (error.code, text in str(error)) == (Code.INVALID_ARGUMENT, True), error
        assert not (await cri.call("ListContainers")).containers

    calls(node, work)


@pytest.mark.parametrize("mapped", [False, True])
def test_an_image_volume_has_a_path_of_the_image(node: PrivateEngine, mapped: bool) -> None:
    async def work(cri: Cri) -> None:
        pod = await run_pod(cri, (mapped_sandbox if mapped else sandbox_config)("volume"))
        config = container_config("main", "sleep", "100")
        config.mounts.add(
            container_path="/etc-of-image",
            image=api_pb2.ImageSpec(image="groups"),
            image_sub_path="etc",
            readonly=True,
            mount_options=("noexec",),
        )
        id = await start(cri, pod, config)
        assert "extra" in await cri.run(id, "cat", "/etc-of-image/group")
        done = await cri.call("ExecSync", container_id=id, cmd=["touch", "/etc-of-image/x"])
        assert b"Read-only" in done.stderr
        assert "noexec" in next(
            line.split()[5]
            for line in (await cri.run(id, "cat", "/proc/self/mountinfo")).splitlines()
            if line.split()[4] == "/etc-of-image"
        )
        (mount,) = (await cri.container(id)).mounts
        assert (mount.image.image, mount.image_sub_path, mount.host_path) == ("groups", "etc", "")
        assert mount.image.image_ref.startswith("sha256:")
        config.metadata.name = "absent"
        config.mounts[0].image_sub_path = "absent"
        error = await refused(create(cri, pod, config))
        assert "absent" in str(error)

    calls(node, work)


@pytest.mark.parametrize(
    "mode", [api_pb2.PROPAGATION_HOST_TO_CONTAINER, api_pb2.PROPAGATION_BIDIRECTIONAL]
)
def test_mounts_propagate_between_host_and_container(
    new_engine: Callable[..., PrivateEngine], tmp_path: Path, mode: Any
) -> None:
    place = tmp_path / "shared"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], check=True)
    subprocess.run(["mount", "--make-shared", str(place)], check=True)
    (place / "a").mkdir()
    (place / "b").mkdir()
    engine = new_engine("--cri")
    load_image(engine, "busybox")

    async def work(cri: Cri) -> None:
        config = sandbox_config("propagation")
        config.linux.security_context.privileged = True
        pod = await run_pod(cri, config)
        both = container_config("main", "sleep", "100")
        both.linux.security_context.privileged = True
        both.mounts.add(container_path="/shared", host_path=str(place), propagation=mode)
        id = await start(cri, pod, both)
        mount = ["mount", "-t", "tmpfs", "of-host", str(place / "a")]
        await asyncio.to_thread(subprocess.run, mount, check=True)
        assert "of-host" in await cri.run(id, "cat", "/proc/self/mountinfo")
        await cri.run(id, "mount", "-t", "tmpfs", "of-container", "/shared/b")
        arrived = "of-container" in Path("/proc/self/mountinfo").read_text()
        assert arrived is (mode == api_pb2.PROPAGATION_BIDIRECTIONAL)
        assert (await cri.container(id)).mounts[0].propagation == mode

    try:
        calls(engine, work)
    finally:
        subprocess.run(["umount", "-R", str(place)], check=True)
