"""The steps that a start has left for a spare init."""

from __future__ import annotations

import msgspec
import pytest

from jaula.engine.containers.resolved_request import resolve
from jaula.engine.oci_spec import security_opt, spare_init_shape, start_spec
from jaula.engine.oci_spec.inputs import HostFacts, SpecInputs
from jaula.runtime.create import mount_plan, spare_init
from jaula.runtime.init import spare
from jaula.runtime.init.mount_steps import AttachPrepared
from jaula.runtime.init.step import Step
from jaula.spec.api_documents import ContainerCreate, HostConfig
from jaula.spec.runtime_spec import IDMapping, Mount, Spec

IDS = (IDMapping(0, 1_000_000, 65536),)
HOST = HostFacts()
SHAPE = spare_init_shape.shape("0" * 64, "/jaula/x", HOST, IDS)


def spec_of(host: HostConfig | None = None, *, tty: bool = False) -> Spec:
    body = ContainerCreate(cmd=("sh",), tty=tty, host_config=host or HostConfig())
    resolved = resolve(body)
    inputs = SpecInputs("0" * 64, "/jaula/x", "box", HOST, mappings=IDS)
    return start_spec.build(body, resolved, inputs, security_opt.decide(resolved, HOST))


def plan(document: Spec) -> tuple[Step, ...]:
    return mount_plan.plan(document, v1_hierarchies=())


def left(document: Spec) -> tuple[Step, ...] | None:
    ahead = [s for s in plan(SHAPE) if not isinstance(s, spare_init.OF_START)]
    return spare_init.left(plan(document), ahead)


def described(document: Spec) -> list[str]:
    steps = left(document)
    assert steps is not None
    return [step.describe() for step in steps]


def test_a_default_start_attaches_three_trees_and_no_more() -> None:
    assert described(spec_of()) == [
        "set the root's propagation to PRIVATE",
        "attach prepared mount -3 at /proc",
        "attach prepared mount -4 at /dev",
        "attach prepared mount -5 at /sys",
        "create the working directory /",
    ]


def test_volumes_terminal_and_a_read_only_root_come_after_the_trees() -> None:
    document = spec_of(HostConfig(readonly_rootfs=True), tty=True)
    volume = Mount("/data", "/srv", "bind", ("rbind",))
    scratch = Mount("/tmp", "tmpfs", "tmpfs", ())
    document = msgspec.structs.replace(document, mounts=(*document.mounts, volume, scratch))
    assert described(document)[4:] == [
        f"attach prepared mount {len(document.mounts) - 2} at /data",
        "mount tmpfs at /tmp ()",
        "open a terminal and bind it at /dev/console",
        "create the working directory /",
        "make the root read-only",
    ]


@pytest.mark.parametrize(
    "host",
    [
        HostConfig(privileged=True),
        HostConfig(security_opt=("unmask=/proc/kcore",)),
        HostConfig(security_opt=("mask=/proc/cpuinfo",)),
        HostConfig(security_opt=("systempaths=unconfined",)),
        HostConfig(ipc_mode="none"),
        HostConfig(shm_size=1 << 20),
        HostConfig(sysctls={"net.ipv4.ip_forward": "1"}),
    ],
    ids=lambda host: repr(host)[:60],
)
def test_a_start_with_other_system_directories_does_not_fit(host: HostConfig) -> None:
    assert left(spec_of(host)) is None


@pytest.mark.parametrize("path", ["/proc/data", "/sys/data", "/dev/data", "/dev", "//dev/./x"])
def test_a_mount_in_a_system_directory_does_not_fit(path: str) -> None:
    document = spec_of()
    mount = Mount(path, "/srv", "bind", ("rbind",))
    document = msgspec.structs.replace(document, mounts=(*document.mounts, mount))
    assert left(document) is None


def test_a_missing_step_does_not_fit() -> None:
    document = spec_of()
    document = msgspec.structs.replace(document, mounts=document.mounts[:-1])
    assert left(document) is None


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        (HostConfig(), True),
        (HostConfig(memory=64 << 20, cap_drop=("ALL",), readonly_rootfs=True), True),
        (HostConfig(privileged=True), False),
        (HostConfig(pid_mode="host"), False),
        (HostConfig(userns_mode="host"), False),
        (HostConfig(cgroup_parent="other"), False),
        (HostConfig(security_opt=("mask=/proc/cpuinfo",)), False),
        (HostConfig(runtime="runc"), False),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_the_engine_reserves_one_for_the_default_shape(host: HostConfig, fits: bool) -> None:
    resolved = resolve(ContainerCreate(cmd=("sh",), host_config=host))
    assert spare_init_shape.has_default_shape(host, resolved, {"bridge": None}, "bridge") is fits
    assert not spare_init_shape.has_default_shape(host, resolved, {"other": None}, "bridge")
    assert not spare_init_shape.has_default_shape(host, resolved, {}, "bridge")


def test_the_message_of_a_start_is_the_same_after_its_way() -> None:
    steps = left(spec_of())
    assert steps is not None
    document = spec_of()
    assert document.process is not None
    from jaula.runtime.init import process_setup

    process = process_setup.encode_process(document.process, (b"program", 0))
    request = spare.SpareStart((3, 4), steps, process, "box", None, False)
    assert spare.decode(spare.encode(request)) == request
    assert any(
        isinstance(step, AttachPrepared) for step in spare.decode(spare.encode(request)).steps
    )
