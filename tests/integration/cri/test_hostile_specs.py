"""Pods and containers whose specification names what it should not: one clear error each.

The canaries are files of the host that a mistake would change or show. The client of CRI is the
kubelet, which may mount and read any path of the host. What it hands on comes from users: names,
log paths below a directory that a pod may have mounted, sysctls, resolver entries.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import leaks
from harness.engine import PrivateEngine
from harness.pods import Cri, calls, container_config, sandbox_config
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_status import Code, GrpcError

Change = Callable[[Any], object]
CLEAR = (Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.UNIMPLEMENTED)


@pytest.fixture(scope="module")
def node(worker_index: int) -> Iterator[PrivateEngine]:
    private = PrivateEngine((worker_index + 71) % 250 + 1, extra_flags=("--cri",))
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private
        assert "Traceback" not in private.log.read_text(errors="replace")


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """Yield a directory with a file that must not change."""
    directory = tmp_path / "canary"
    directory.mkdir()
    file = directory / "file"
    file.write_text("unchanged")
    before = file.stat()
    yield directory
    assert file.read_text() == "unchanged"
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert sorted(os.listdir(directory)) == ["file"]


async def refused(call: Awaitable[object]) -> GrpcError:
    with pytest.raises(GrpcError) as caught:
        await call
    assert caught.value.code in CLEAR, (caught.value.code, caught.value.message)
    return caught.value


async def none_left(cri: Cri) -> None:
    assert not (await cri.call("ListPodSandbox")).items
    assert not (await cri.call("ListContainers")).containers


@pytest.mark.parametrize("kind", ["file", "fifo", "link", "below a file", "device"])
def test_a_log_directory_that_is_something_else_is_refused(
    node: PrivateEngine, tmp_path: Path, canary: Path, kind: str
) -> None:
    path = tmp_path / "logs"
    match kind:
        case "file":
            path = canary / "file"
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to(canary)
        case "below a file":
            path = canary / "file" / "logs"
        case "device":
            path = Path("/dev/null")

    async def work(cri: Cri) -> None:
        call = cri.call("RunPodSandbox", config=sandbox_config("x", log_directory=str(path)))
        assert "log directory" in (await refused(call)).message
        await none_left(cri)

    calls(node, work)


@pytest.mark.parametrize(
    "path", ["logs", "../logs", "/tmp/../logs", "/", "//", "/a\0b", "/" + "x" * 300, "/x" * 3000]
)
def test_a_log_directory_is_a_normal_absolute_path(node: PrivateEngine, path: str) -> None:
    async def work(cri: Cri) -> None:
        call = cri.call("RunPodSandbox", config=sandbox_config("x", log_directory=path))
        error = await refused(call)
        assert "log directory" in error.message and len(error.message) < 1000
        await none_left(cri)

    calls(node, work)


def test_the_log_directory_of_a_refused_pod_is_removed(node: PrivateEngine, tmp_path: Path) -> None:
    async def work(cri: Cri) -> None:
        config = sandbox_config("x", log_directory=str(tmp_path / "pods" / "x"))
        config.linux.sysctls["kernel.shm_rmid_forced"] = "not a number"
        with pytest.raises(GrpcError, match="shm_rmid_forced"):
            await cri.call("RunPodSandbox", config=config)
        assert not (tmp_path / "pods" / "x").exists()

    calls(node, work)


@pytest.mark.parametrize("path", ["../0.log", "/0.log", "a/../../0.log", "a//0.log", ".", "a\0b"])
def test_a_log_path_outside_of_the_pod_s_directory_is_refused(
    node: PrivateEngine, tmp_path: Path, path: str
) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("x", log_directory=str(tmp_path / "pods" / "x"))
        config = container_config("main", "true", log_path=path)
        error = await refused(cri.call("CreateContainer", pod_sandbox_id=pod, config=config))
        assert "log path" in error.message
        assert not (await cri.call("ListContainers")).containers

    calls(node, work)
    assert not list(tmp_path.rglob("0.log"))


@pytest.mark.parametrize("kind", ["link", "hard link", "fifo", "directory", "link above"])
def test_a_log_file_that_a_pod_has_replaced_is_not_written(
    node: PrivateEngine, tmp_path: Path, canary: Path, kind: str
) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    path = directory / "0.log"
    log_path = "0.log"
    match kind:
        case "link":
            path.symlink_to(canary / "file")
        case "hard link":
            path.hardlink_to(canary / "file")
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "link above":
            (directory / "main").symlink_to(canary)
            log_path = "main/0.log"

    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("x", log_directory=str(directory))
        config = container_config("main", "echo", "written", log_path=log_path)
        created = await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
        with pytest.raises(GrpcError) as caught:
            await cri.call("StartContainer", container_id=created.container_id)
        assert caught.value.code is not Code.INTERNAL and "log" in caught.value.message
        status = await cri.container(created.container_id)
        assert status.state in (api_pb2.CONTAINER_CREATED, api_pb2.CONTAINER_EXITED)

    try:
        calls(node, work)
    finally:
        if kind == "hard link":
            path.unlink()


def mount(**fields: Any) -> Change:
    return lambda config: config.mounts.add(**fields)


def privileged_paths(config: Any) -> None:
    config.linux.security_context.masked_paths.append("relative")


CONTAINERS: dict[str, Change] = {
    "a host path that is relative": mount(host_path="etc", container_path="/x"),
    "a host path with ..": mount(host_path="/etc/../nowhere-jlt", container_path="relative"),
    "a host path with NUL": mount(host_path="/e\0tc", container_path="/x"),
    "a container path that is relative": mount(host_path="/etc", container_path="x"),
    "a container path that is the root": mount(host_path="/etc", container_path="/"),
    "a container path with NUL": mount(host_path="/etc", container_path="/a\0b"),
    "a container path without an end": mount(host_path="/etc", container_path="/x" * 3000),
    "no paths": mount(),
    "a device that is absent": lambda c: c.devices.add(
        host_path="/dev/jlt-absent", container_path="/dev/x", permissions="rwm"
    ),
    "a device that is a file": lambda c: c.devices.add(
        host_path="/etc/hostname", container_path="/dev/x", permissions="rwm"
    ),
    "a device with bad permissions": lambda c: c.devices.add(
        host_path="/dev/null", container_path="/dev/x", permissions="rwx;"
    ),
    "a seccomp profile that is a device": lambda c: set_seccomp(c, "/dev/zero"),
    "a seccomp profile of /proc": lambda c: set_seccomp(c, "/proc/self/environ"),
    "a seccomp profile that is relative": lambda c: set_seccomp(c, "../etc/shadow"),
    "a seccomp profile with NUL": lambda c: set_seccomp(c, "/a\0b"),
    "a seccomp profile that is a directory": lambda c: set_seccomp(c, "/etc"),
    "a seccomp profile that is not one": lambda c: set_seccomp(c, "/etc/hostname"),
    "a device of CDI": lambda c: c.CDI_devices.add(name="../../etc=x"),
    "a name with a slash": lambda c: setattr(c.metadata, "name", "../x"),
    "a name with a newline": lambda c: setattr(c.metadata, "name", "x\ny"),
    "a name without an end": lambda c: setattr(c.metadata, "name", "x" * 100_000),
    "labels without an end": lambda c: c.labels.update({"a": "x" * (2 << 20)}),
    "annotations without an end": lambda c: c.annotations.update({"a": "x" * (2 << 20)}),
    "a variable without a name": lambda c: c.envs.add(key="", value=b"x"),
    "a variable with NUL": lambda c: c.envs.add(key="a", value=b"x\0y"),
    "a variable with = in its name and NUL": lambda c: c.envs.add(key="a\0=b", value=b"x"),
    "an unknown capability": lambda c: (
        c.linux.security_context.capabilities.add_capabilities.append("CAP_X\n")
    ),
    "a user of 40 digits": lambda c: setattr(
        c.linux.security_context, "run_as_username", "9" * 40 + ":"
    ),
    "a negative user": lambda c: setattr(c.linux.security_context.run_as_user, "value", -5),
    "a user that is too large": lambda c: setattr(
        c.linux.security_context.run_as_user, "value", 1 << 40
    ),
    "a negative group": lambda c: c.linux.security_context.supplemental_groups.append(-1),
    "a directory that is relative": lambda c: setattr(c, "working_dir", "../../x"),
}


def set_seccomp(config: Any, path: str) -> None:
    profile = config.linux.security_context.seccomp
    profile.profile_type = api_pb2.SecurityProfile.Localhost
    profile.localhost_ref = path


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_hostile_container_has_one_clear_error(
    node: PrivateEngine, canary: Path, name: str
) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("x")
        config = container_config("main", "true")
        CONTAINERS[name](config)

        async def run() -> None:
            created = await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
            ids.append(created.container_id)
            await cri.call("StartContainer", container_id=created.container_id)

        ids: list[str] = []
        error = await refused(run())
        assert len(error.message) < 2000
        listed = [item.id for item in (await cri.call("ListContainers")).containers]
        assert listed == ids

    calls(node, work)


SANDBOXES: dict[str, Change] = {
    "a name with ..": lambda c: setattr(c.metadata, "name", "../x"),
    "a name that adds arguments of CNI": lambda c: setattr(
        c.metadata, "name", "x;K8S_POD_NAMESPACE=y"
    ),
    "a namespace with a newline": lambda c: setattr(c.metadata, "namespace", "x\ny"),
    "a uid without an end": lambda c: setattr(c.metadata, "uid", "x" * 100_000),
    "a resolver with a newline": lambda c: c.dns_config.servers.append("1.1.1.1\nsearch evil"),
    "a search domain with a newline": lambda c: c.dns_config.searches.append("x\nnameserver ::1"),
    "an option with a blank": lambda c: c.dns_config.options.append("ndots:1 rotate"),
    "a server that is a name": lambda c: c.dns_config.servers.append("evil.example"),
    "a sysctl of the host": lambda c: c.linux.sysctls.update({"kernel.core_pattern": "|/x"}),
    "a sysctl with ..": lambda c: c.linux.sysctls.update({"net/../kernel/core_pattern": "|/x"}),
    "a sysctl with a slash": lambda c: c.linux.sysctls.update({"net.ipv4/../../x": "1"}),
    "a sysctl without a name": lambda c: c.linux.sysctls.update({"": "1"}),
    "a sysctl with NUL": lambda c: c.linux.sysctls.update({"net.a\0b": "1"}),
    "a cgroup parent with ..": lambda c: setattr(c.linux, "cgroup_parent", "/a/../../b"),
    "a cgroup parent with NUL": lambda c: setattr(c.linux, "cgroup_parent", "/a\0b"),
    "a cgroup parent without an end": lambda c: setattr(c.linux, "cgroup_parent", "/x" * 3000),
    "labels without an end": lambda c: c.labels.update({"a": "x" * (2 << 20)}),
    "annotations without an end": lambda c: c.annotations.update({"a": "x" * (2 << 20)}),
    "an AppArmor profile that is a path": lambda c: set_apparmor(c, "localhost/../../x\n"),
    "a SELinux level of two lines": lambda c: setattr(
        c.linux.security_context.selinux_options, "level", "s0\nuser:x"
    ),
}


def set_apparmor(config: Any, name: str) -> None:
    profile = config.linux.security_context.apparmor
    profile.profile_type = api_pb2.SecurityProfile.Localhost
    profile.localhost_ref = name


@pytest.mark.parametrize("name", SANDBOXES)
def test_a_hostile_pod_has_one_clear_error(node: PrivateEngine, canary: Path, name: str) -> None:
    async def work(cri: Cri) -> None:
        config = sandbox_config("x")
        SANDBOXES[name](config)
        error = await refused(cri.call("RunPodSandbox", config=config))
        assert len(error.message) < 2000, len(error.message)
        await none_left(cri)

    calls(node, work)


HOST_NAMES = ("a b", "a\nb", "-a", "x" * 65, "a/b", "é", "a\0b", "..")


@pytest.mark.parametrize("name", HOST_NAMES)
def test_a_host_name_of_another_form_is_refused(node: PrivateEngine, name: str) -> None:
    async def work(cri: Cri) -> None:
        config = sandbox_config("x", hostname=name)
        config.linux.security_context.namespace_options.network = api_pb2.POD
        error = await refused_or_without_network(cri.call("RunPodSandbox", config=config))
        assert "hostname" in error.message
        await none_left(cri)

    async def refused_or_without_network(call: Awaitable[object]) -> GrpcError:
        with pytest.raises(GrpcError) as caught:
            await call
        return caught.value

    calls(node, work)
